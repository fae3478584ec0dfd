"""Charts as SVG, styled by the report's style sheet or by one of their own."""
