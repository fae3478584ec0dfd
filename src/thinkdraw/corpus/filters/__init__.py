"""Filters of a corpus: rules on texts and pictures, judges' verdicts, and labels."""
