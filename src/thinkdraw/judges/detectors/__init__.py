"""Judges that say where things are: boxes, masks, depth and colours."""
