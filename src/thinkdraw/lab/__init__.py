"""The small world that needs no download: scenes, prompts, rationales, an exact detector, and a shipped checkpoint."""

from pathlib import Path


def checkpoint_path() -> Path:
    """The lab's Janus checkpoint inside the package."""
    return Path(__file__).parent / "assets" / "janus"


def clip_path() -> Path:
    """The lab's CLIP inside the package."""
    return Path(__file__).parent / "assets" / "clip"
