"""Charts as SVG: in the report they follow its style sheet, as files they bring it along."""
