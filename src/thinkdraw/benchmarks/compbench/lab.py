"""T2I-CompBench's questions about the lab's own prompts, from their structure.

A prompt's clauses say what its noun chunks, its relation and its counts are. So no parser can misread it, and
held-out words lead to the same questions as others.
"""

from thinkdraw.benchmarks.compbench.asker import ATTRIBUTES, PromptQuestions
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import COMPBENCH_TASKS
from thinkdraw.lab.wording import article
from thinkdraw.runtime.json_types import JsonMapping
from thinkdraw.types import Prompt

WORDS = {
    "left of": "on the left of", "right of": "on the right of", "above": "on the top of", "below": "on the bottom of",
}  # fmt: skip
"""The lab's relation → T2I-CompBench's word with the same rule."""


class LabAsker:
    """An `asker.Asker` for prompts of the lab's `compbench` family.

    A chunk is asked about as "is there a small red ring?", the form of question that the lab's questioner knows.
    Nobody acts in the lab's complex prompts; they are scored on attributes and relation, as T2I-CompBench's kind
    `spatial`.
    """

    def __call__(self, prompt: Prompt) -> PromptQuestions:
        """Raise UserError for a prompt that is not the lab's."""
        if prompt.tag not in COMPBENCH_TASKS or not prompt.include:
            raise UserError(
                f"compbench: prompt {prompt.text[:60]!r} is none of lab-compbench's. Read it with prompts=PATH."
            )
        questions = [f"is there {article(_phrase(clause))}?" for clause in prompt.include]
        if prompt.tag in ATTRIBUTES:
            return PromptQuestions(prompt.tag, questions=questions)
        if prompt.tag == "numeracy":
            return PromptQuestions(prompt.tag, counts=[(_shape(clause), clause["count"]) for clause in prompt.include])
        subject = next(clause for clause in prompt.include if "position" in clause)
        relation, object_index = subject["position"]
        things = _shape(subject), _shape(prompt.include[object_index])
        if prompt.tag == "spatial":
            return PromptQuestions(prompt.tag, word=WORDS[relation], things=things)
        return PromptQuestions(prompt.tag, "spatial", questions, WORDS[relation], things)


def _phrase(clause: JsonMapping) -> str:
    """Write a clause's thing as "small striped red ring"; the class lacks the colour."""
    *modifiers, shape = clause["class"].split()
    return " ".join([*modifiers, *([clause["color"]] if "color" in clause else []), shape])


def _shape(clause: JsonMapping) -> str:
    """Return what the lab's detector calls the thing."""
    return clause["class"].split()[-1]
