"""Judges that answer a question about a picture, as P(yes) or in words."""
