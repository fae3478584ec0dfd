"""The Janus family: network, text, picture tokens, loading, and the likelihood of rollouts."""
