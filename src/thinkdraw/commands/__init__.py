"""Verbs of the command line that have a file of their own; `thinkdraw.cli` mounts them. Heavy imports happen inside the functions."""
