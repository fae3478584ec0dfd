"""The small world that needs no download, with a checkpoint that is shipped.

It has scenes, prompts, rationales and an exact detector.
"""

from pathlib import Path


def checkpoint_path() -> Path:
    """Return the folder of the lab's Janus checkpoint inside the package."""
    return Path(__file__).parent / "assets" / "janus"


def clip_path() -> Path:
    """Return the folder of the lab's CLIP inside the package."""
    return Path(__file__).parent / "assets" / "clip"
