"""TODO policies.janus."""
