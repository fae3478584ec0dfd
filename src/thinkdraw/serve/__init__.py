"""A reward over HTTP: the server, its queue, the wire format, and the reward that asks it."""
