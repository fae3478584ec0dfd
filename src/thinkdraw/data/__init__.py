"""Files → typed rows: readers of prompt sets, the leak guard that keeps test prompts out of training, and makers of new sets."""
