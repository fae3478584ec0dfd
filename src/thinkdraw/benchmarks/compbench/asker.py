"""From a T2I-CompBench++ prompt to what its judges are asked, by its category."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from thinkdraw.benchmarks.compbench.complex import ComplexKind, complex_kind, needed_scores
from thinkdraw.benchmarks.compbench.numeracy import detector_name
from thinkdraw.benchmarks.compbench.words import (
    RELATIONS_2D,
    RELATIONS_3D,
    PromptParse,
    attribute_questions,
    counts_in_prompt,
    first_and_last_noun,
    nouns_around_prepositions,
    relation_in,
    without_adjectives,
)
from thinkdraw.errors import UserError
from thinkdraw.rewards.spatial import ThingPair
from thinkdraw.types import Prompt

ATTRIBUTES = ("color", "shape", "texture")
CATEGORIES = (*ATTRIBUTES, "spatial", "3d_spatial", "numeracy", "non_spatial", "complex")


@dataclass(frozen=True)
class PromptQuestions:
    """What a prompt's judges are asked, and what its rules need besides.

    An empty field asks nothing. questions: noun chunks as questions. word, things: the relation. counts: (thing,
    number).
    text: for CLIP.
    """

    category: str
    kind: ComplexKind | None = None
    questions: Sequence[str] = ()
    word: str | None = None
    things: ThingPair = None
    counts: Sequence[tuple[str, int]] = ()
    text: str = ""

    def labels(self) -> list[str]:
        """List what a detector with an open vocabulary is to look for."""
        return list(dict.fromkeys([*(self.things or ()), *(detector_name(thing) for thing, _ in self.counts)]))


@runtime_checkable
class Asker(Protocol):
    """Anything that turns a prompt into questions by the category in its `tag`.

    `WordAsker` and `LabAsker` do.
    """

    def __call__(self, prompt: Prompt) -> PromptQuestions: ...


@dataclass(frozen=True)
class WordAsker:
    """Reads a prompt's words by T2I-CompBench++'s rules.

    parse: prompt → noun chunks and tokens; not needed for non_spatial. objects: (singular, plural) of what numeracy
    counts.
    spatial, action: complex prompts (their `comparison_key`s) that are scored on attributes and relations only, or on
    attributes and actions only. The other complex prompts are scored on all three.
    """

    parse: Callable[[str], PromptParse] | None = None
    objects: Sequence[tuple[str, str]] = ()
    spatial: Collection[str] | None = None
    action: Collection[str] | None = None

    def __call__(self, prompt: Prompt) -> PromptQuestions:
        """Raise UserError for an unknown tag, and where what the category needs is absent."""
        category, text = prompt.tag, prompt.text
        if category not in CATEGORIES:
            raise UserError(
                f"compbench: prompt {text[:60]!r} has the tag {category!r}, which is none of {', '.join(CATEGORIES)}. "
                "Read prompts from T2I-CompBench's own files, whose names say the category."
            )
        if category == "non_spatial":
            return PromptQuestions(category, text=text)
        parsed = self._parse_prompt(prompt)
        if category in ATTRIBUTES:
            return PromptQuestions(category, questions=attribute_questions(parsed.chunks))
        if category == "numeracy":
            return PromptQuestions(
                category, counts=counts_in_prompt([word for word, _ in parsed.tokens], self._objects())
            )
        if category == "complex":
            return self._complex(text, parsed)
        words = RELATIONS_2D if category == "spatial" else RELATIONS_3D
        return PromptQuestions(category, word=relation_in(text, words), things=first_and_last_noun(parsed.tokens))

    def _complex(self, text: str, parsed: PromptParse) -> PromptQuestions:
        if self.spatial is None or self.action is None:
            raise UserError(
                "compbench: category complex needs T2I-CompBench's complex_val_spatial.txt and complex_val_action.txt, which "
                "say what each prompt is scored on. Put them beside the prompts."
            )
        kind = complex_kind(text, self.spatial, self.action)
        with_relation, with_action = needed_scores(kind)
        return PromptQuestions(
            "complex",
            kind,
            questions=attribute_questions(parsed.chunks),
            word=relation_in(text, RELATIONS_2D) if with_relation else None,
            things=nouns_around_prepositions(parsed.tokens) if with_relation else None,
            text=without_adjectives(parsed.tokens) if with_action else "",
        )

    def _parse_prompt(self, prompt: Prompt) -> PromptParse:
        if self.parse is None:
            raise UserError(
                f"compbench: category {prompt.tag} needs the prompts' noun chunks and tokens. Give a file of them or the "
                "name of a spaCy model."
            )
        parsed = self.parse(prompt.text)
        if prompt.tag not in ATTRIBUTES and not parsed.tokens:
            raise UserError(
                f"compbench: category {prompt.tag} needs the prompts' tokens, and {prompt.text[:60]!r} has noun chunks "
                "only. Give them in the file, or the name of a spaCy model."
            )
        return parsed

    def _objects(self) -> Sequence[tuple[str, str]]:
        if not self.objects:
            raise UserError(
                "compbench: category numeracy needs T2I-CompBench's new_objects.txt, which names what is counted. Put it "
                "beside the prompts."
            )
        return self.objects
