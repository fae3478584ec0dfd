"""DeepSeek's own layout of Janus checkpoints, `model_type: multi_modality`."""
