"""DPG-Bench: dense prompts as graphs of questions, each counted only if its parents hold."""
