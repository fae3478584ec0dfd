"""thinkdraw trains image generators that think before they draw.

The public API, in the order in which one meets it: `load_policy`, `load_prompts`, `load_reward`, `rollout`, `evaluate`, `train`,
`report`. Everything is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from thinkdraw.version import __version__ as __version__

if TYPE_CHECKING:
    from thinkdraw.api import evaluate, load_policy, load_prompts, load_reward, report, rollout, train

__all__ = ["evaluate", "load_policy", "load_prompts", "load_reward", "report", "rollout", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from thinkdraw import api

        # All at once: importing the room `report` has set that name to the module, and here it is the function.
        globals().update({public: getattr(api, public) for public in __all__})
        return globals()[name]
    raise AttributeError(f"module 'thinkdraw' has no attribute {name!r}")
