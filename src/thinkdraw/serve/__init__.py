"""A reward in a process of its own: `thinkdraw serve`, and the reward `http`."""
