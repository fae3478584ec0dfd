"""Settings that explain themselves.

`thinkdraw explain`, commented YAML, docs/config.md and JSON schemas. The descriptions stand in the configuration
classes, beside the fields. `schema.py` writes them, with types and defaults, into `configs/schema/`; everything that
only shows settings reads these files and needs no torch.
"""
