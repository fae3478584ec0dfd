"""How the lab's own checkpoints are made: tokenizer, rows, pretraining, CLIP."""
