"""The Janus family: model functions, text, picture tokens, and likelihood."""
