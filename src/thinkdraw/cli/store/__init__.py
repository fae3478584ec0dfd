"""Verbs of rollout stores: sample, score, store info, store export."""
