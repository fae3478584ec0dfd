"""What every run needs around the mathematics: files, metrics, devices, HTTP."""
