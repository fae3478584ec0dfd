"""What all verbs share: how a command line is read, and how results are printed."""
