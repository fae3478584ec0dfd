"""UniGenBench: test points of a prompt, each checked by a vision-language model."""
