"""What `thinkdraw train` runs: one loop a file."""
