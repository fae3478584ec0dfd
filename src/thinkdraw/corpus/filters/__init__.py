"""What rows of a corpus must hold: filters on texts and pictures, judges' labels, and the pass that applies them."""
