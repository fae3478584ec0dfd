"""`thinkdraw eval` and `thinkdraw thoughts`."""
