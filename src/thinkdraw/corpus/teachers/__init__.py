"""Teachers of a corpus: what they are asked, how fast, how answers are checked."""
