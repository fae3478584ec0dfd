"""What a detector finds of a prompt's things: whether they are there, how many, and where they stand.

They read `nouns`, `counts` and `relation` of a `Prompt`, which T2I-R1's training prompts bring along and `data/structure/`
fills for others.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import detected, held_to, pictures_of
from thinkdraw.rewards.objects.relations import Rule, relation_of, relation_score
from thinkdraw.rewards.rules import keep_detections
from thinkdraw.types import Detection, Detector, Prompt, Relation, Rollouts, Verdicts

THRESHOLD = 0.3
SAME_THING = 0.5  # two boxes of one noun with this IoU are one thing
Kept = Mapping[str, Sequence[Detection]]


def things(found: Sequence[Detection], nouns: Sequence[str], threshold: float = THRESHOLD) -> Kept:
    """Noun → what was found of it, best first: scores above the threshold, one detection per thing. Others are absent."""
    of = {noun: [d for d in found if d.label.casefold() == noun.casefold()] for noun in nouns}
    return keep_detections(of, tag="", threshold=threshold, max_per_class=len(found), max_overlap=SAME_THING)


def objects_share(nouns: Sequence[str], kept: Kept) -> float:
    """Fraction of the nouns that were found, 0..1."""
    return sum(noun in kept for noun in nouns) / len(nouns)


def counts_share(counts: Sequence[tuple[str, int]], kept: Kept, wrong_number: float = 0.0) -> float:
    """Mean over the counted nouns of 1 for the right number, `wrong_number` for another one, 0 for none at all."""
    found = [(len(kept.get(noun, ())), number) for noun, number in counts]
    return sum(1.0 if n == number else wrong_number if n else 0.0 for n, number in found) / len(counts)


def relation_share(
    relation: Relation, kept: Kept, side: float, rule: Rule = "t2i-compbench", each: float = 0.25, place: float = 0.5
) -> float:
    """`each` for the subject, `each` for the object, and if both were found `place` times how well they stand.

    The most confident of each is looked at; where both have one name, the two most confident in the better order.
    """
    subjects, objects = kept.get(relation.subject, ()), kept.get(relation.object, ())
    if relation.subject == relation.object:
        pairs = [(subjects[0].box, subjects[1].box), (subjects[1].box, subjects[0].box)] if len(subjects) > 1 else []
        num_found = min(2, len(subjects))
    else:
        pairs = [(subjects[0].box, objects[0].box)] if subjects and objects else []
        num_found = bool(subjects) + bool(objects)
    placed = [relation_score(relation.word, a, b, side, rule) or 0.0 for a, b in pairs]
    return each * num_found + place * max(placed, default=0.0)


def verdicts_of(
    detector: Detector, rollouts: Rollouts, labels: Sequence[Sequence[str]],
    value: Callable[[Prompt, Sequence[Detection]], float],
) -> Verdicts:  # fmt: skip
    """Of `value`, which applies where there are labels; NaN elsewhere, and where the detector has no verdict."""
    detections = detected(detector, rollouts, labels)
    rows = zip(rollouts.prompts, labels, detections, strict=True)
    values = [value(p, found) if names and found is not None else math.nan for p, names, found in rows]
    return Verdicts.of(torch.tensor(values), torch.tensor([bool(names) for names in labels]))


class _DetectorReward(BaseReward):
    """What the three rewards share. threshold: detections with a lower or equal score are not looked at."""

    asks = ("detector",)

    def __init__(self, detector: Detector, threshold: float = THRESHOLD):
        if not 0 <= threshold < 1:
            raise UserError(f"threshold={threshold}: detections have scores in 0..1. Choose a lower one.")
        self.detector, self.threshold = held_to(Detector, detector), threshold


class ObjectsReward(_DetectorReward):
    """Fraction of the prompt's nouns that the detector finds, in 0..1, higher is better.

    It does not apply to a prompt without nouns: NaN there, and no failure. Elsewhere NaN = the detector has no verdict.
    T2I-R1 (arXiv 2505.00703), threshold 0.3 over Grounding DINO.
    """

    name = "objects"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        return verdicts_of(
            self.detector, rollouts, [prompt.nouns for prompt in rollouts.prompts],
            lambda prompt, found: objects_share(prompt.nouns, things(found, prompt.nouns, self.threshold)),
        )  # fmt: skip


class CountReward(_DetectorReward):
    """Fraction of the counted nouns of which there are exactly as many as asked, in 0..1, higher is better.

    It does not apply to a prompt without counts: NaN there, and no failure. Elsewhere NaN = the detector has no verdict.
    wrong_number: what a noun counts of which there are some, but not as many. GenEval's counting is exact, too (arXiv
    2310.11513); T2I-R1's code has wrong_number 0.2.
    """

    name = "count"

    def __init__(self, detector: Detector, threshold: float = THRESHOLD, wrong_number: float = 0.0):
        super().__init__(detector, threshold)
        self.wrong_number = wrong_number

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        def value(prompt: Prompt, found: Sequence[Detection]) -> float:
            nouns = [noun for noun, _ in prompt.counts]
            return counts_share(prompt.counts, things(found, nouns, self.threshold), self.wrong_number)

        labels = [list(dict.fromkeys(noun for noun, _ in prompt.counts)) for prompt in rollouts.prompts]
        return verdicts_of(self.detector, rollouts, labels, value)


class RelationReward(_DetectorReward):
    """A quarter for each of the relation's two things, and a half for how they stand, in 0..1, higher is better.

    It does not apply to a prompt without a relation, nor to one whose word cannot be told from boxes (see
    `relations.relation_of`): NaN there, and no failure. Elsewhere NaN = the detector has no verdict.
    rule: `t2i-compbench`, graded, or `geneval`, 1 or 0 and directions only. Weights as T2I-CompBench's (arXiv 2307.06350),
    whose quarters are the detector's confidences.
    """

    name = "relation"

    def __init__(self, detector: Detector, threshold: float = THRESHOLD, rule: Rule = "t2i-compbench"):
        super().__init__(detector, threshold)
        if rule not in ("t2i-compbench", "geneval"):
            raise UserError(f"relation: rule={rule!r}: choose t2i-compbench or geneval.")
        self.rule: Rule = rule

    def _things(self, prompt: Prompt) -> list[str]:
        relation = prompt.relation
        if relation is None or relation_of(relation.word, self.rule) is None:
            return []
        return list(dict.fromkeys((relation.subject, relation.object)))

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        side = min(pictures_of(rollouts).shape[1:3])

        def value(prompt: Prompt, found: Sequence[Detection]) -> float:
            assert prompt.relation is not None
            kept = things(found, self._things(prompt), self.threshold)
            return relation_share(prompt.relation, kept, side, self.rule)

        return verdicts_of(self.detector, rollouts, [self._things(prompt) for prompt in rollouts.prompts], value)
