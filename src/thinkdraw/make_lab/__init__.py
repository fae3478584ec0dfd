"""How the lab's own checkpoints were made: tokenizer, rows, pretraining, and a small CLIP."""
