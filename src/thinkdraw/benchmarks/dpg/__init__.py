"""DPG-Bench: dense prompts as graphs of questions."""
