"""A reward in a process of its own: the server of `thinkdraw serve`, and the reward `http` that asks it."""
