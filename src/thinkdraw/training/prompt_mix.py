"""Several sources of prompts as one list, each with its share."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt

MOST = 1_000_000  # prompts of a mix, repeats among them


class WeightedSource(StrictModel):
    """One source of a mix."""

    source: str = Field(description="`lab`, or a file or folder of prompts.")
    weight: float = Field(
        default=1.0,
        gt=0,
        description="Share of the prompts that are drawn from here, in any unit; whatever the file's size.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        """Take a bare path for a source of weight 1: `[mine.txt, theirs.jsonl]`."""
        return {"source": value} if isinstance(value, str) else value

    def __str__(self) -> str:
        return f"{self.source} (weight {self.weight:g})"


def mix_prompts(sources: Sequence[WeightedSource], prompts: Mapping[str, Sequence[Prompt]]) -> list[Prompt]:
    """Repeat each source's prompts until their numbers have the ratio of the weights.

    The list is the shortest in which no prompt is missing; a run shuffles it like any other. Ids begin with the place of
    their source, so that they stay different: "0:cat".
    prompts: source → its prompts. Raises UserError for a source that is named twice, and for more than a million.
    """
    if not sources or len(prompts) < len(sources):
        names = ", ".join(map(str, sources))
        raise UserError(f"prompts.source=[{names}] is empty or names a source twice. Name each once, with its weight.")
    total = math.fsum(entry.weight for entry in sources)
    length = max(len(prompts[entry.source]) * total / entry.weight for entry in sources)
    if length > MOST:
        raise UserError(
            f"prompts.source: with these weights the sources are in balance after {length:.0f} prompts, and at most {MOST} "
            "are mixed. Raise the weight of the large source."
        )
    mixed: list[Prompt] = []
    for place, entry in enumerate(sources):
        own = [dataclasses.replace(prompt, id=f"{place}:{prompt.id}") for prompt in prompts[entry.source]]
        count = round(length * entry.weight / total)
        whole, rest = divmod(count, len(own))
        mixed += own * whole + [own[i * len(own) // rest] for i in range(rest)]  # the rest is spread evenly
    return mixed
