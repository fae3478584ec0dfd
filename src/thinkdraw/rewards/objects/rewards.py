"""Rewards for what a detector sees of a prompt's things: presence, number, place.

They read `nouns`, `counts` and `relation` of a `Prompt`. T2I-R1's training prompts bring these along, and
`data/structure/` fills them in for others.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_judge, detect_labels, pictures_of
from thinkdraw.rewards.objects.relations import Rule, relation_of, relation_score
from thinkdraw.rewards.rules import keep_detections
from thinkdraw.types import Detection, Detector, Prompt, Relation, Rollouts, Verdicts

THRESHOLD = 0.3
SAME_THING = 0.5  # two boxes of one noun with at least this IoU are one thing
DetectionsByNoun = Mapping[str, Sequence[Detection]]


def detections_by_noun(
    detections: Sequence[Detection], nouns: Sequence[str], threshold: float = THRESHOLD
) -> DetectionsByNoun:
    """Sort the detections above the threshold by noun, best first, one for each thing.

    Nouns without any are absent.
    """
    of_noun = {noun: [d for d in detections if d.label.casefold() == noun.casefold()] for noun in nouns}
    return keep_detections(of_noun, tag="", threshold=threshold, max_per_class=len(detections), max_overlap=SAME_THING)


def objects_share(nouns: Sequence[str], by_noun: DetectionsByNoun) -> float:
    """Compute the fraction of the nouns that were detected, 0..1."""
    return sum(noun in by_noun for noun in nouns) / len(nouns)


def counts_share(counts: Sequence[tuple[str, int]], by_noun: DetectionsByNoun, wrong_number: float = 0.0) -> float:
    """Average over the counted nouns: 1 for the right number, 0 for none at all.

    Another number scores `wrong_number`.
    """
    counted = [(len(by_noun.get(noun, ())), number) for noun, number in counts]
    return sum(1.0 if n == number else wrong_number if n else 0.0 for n, number in counted) / len(counts)


def relation_share(
    relation: Relation,
    by_noun: DetectionsByNoun,
    side: float,
    rule: Rule = "t2i-compbench",
    thing_weight: float = 0.25,
    relation_weight: float = 0.5,
) -> float:
    """Score a relation's two things and how they stand to each other.

    `thing_weight` for each thing that was detected, and for two `relation_weight` times how well they stand. The most
    confident detection of each counts; where both have one name, the two most confident in the better order.
    """
    subjects, objects = by_noun.get(relation.subject, ()), by_noun.get(relation.object, ())
    if relation.subject == relation.object:
        pairs = [(subjects[0].box, subjects[1].box), (subjects[1].box, subjects[0].box)] if len(subjects) > 1 else []
        num_found = min(2, len(subjects))
    else:
        pairs = [(subjects[0].box, objects[0].box)] if subjects and objects else []
        num_found = bool(subjects) + bool(objects)
    scores = [relation_score(relation.word, a, b, side, rule) or 0.0 for a, b in pairs]
    return thing_weight * num_found + relation_weight * max(scores, default=0.0)


def verdicts_from_detector(
    detector: Detector, rollouts: Rollouts, labels: Sequence[Sequence[str]],
    value: Callable[[Prompt, Sequence[Detection]], float],
) -> Verdicts:  # fmt: skip
    """Apply `value` to the detections of each picture with labels.

    It does not apply to pictures without labels. NaN there, and where the detector has no verdict.
    """
    detections = detect_labels(detector, rollouts, labels)
    rows = zip(rollouts.prompts, labels, detections, strict=True)
    values = [
        value(p, detections_of_row) if names and detections_of_row is not None else math.nan
        for p, names, detections_of_row in rows
    ]
    return Verdicts.of(torch.tensor(values), torch.tensor([bool(names) for names in labels]))


class _DetectorReward(BaseReward):
    """Base of the rewards that ask a detector.

    threshold: detections with this score or a lower one are ignored.
    """

    asks = ("detector",)

    def __init__(self, detector: Detector, threshold: float = THRESHOLD):
        if not 0 <= threshold < 1:
            raise UserError(
                f"threshold={threshold} must lie in 0..1, below 1: detections have such scores. Choose a lower one."
            )
        self.detector, self.threshold = check_judge(Detector, detector), threshold


class ObjectsReward(_DetectorReward):
    """Share of the prompt's nouns that a detector sees in the picture.

    It needs a detector, and prompts with nouns; it does not apply to others. 0..1, higher is better. NaN where it
    does not apply, and where the detector has no verdict.
    threshold: detections with this score or a lower one are ignored. T2I-R1 (arXiv 2505.00703) has 0.3 over Grounding
    DINO.
    """

    name = "objects"

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if prompt.nouns else "nouns"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        return verdicts_from_detector(
            self.detector, rollouts, [prompt.nouns for prompt in rollouts.prompts],
            lambda prompt, detections: objects_share(
                prompt.nouns, detections_by_noun(detections, prompt.nouns, self.threshold)
            ),
        )  # fmt: skip


class CountReward(_DetectorReward):
    """Share of the prompt's counted nouns that the picture shows in the exact number.

    It needs a detector, and prompts with counts; it does not apply to others. 0..1, higher is better. NaN where it
    does not apply, and where the detector has no verdict.
    threshold: detections with this score or a lower one are ignored.
    wrong_number: the score of a noun that is there in another number. GenEval's counting is exact, too (arXiv
    2310.11513); T2I-R1's code scores 0.2.
    """

    name = "count"

    def __init__(self, detector: Detector, threshold: float = THRESHOLD, wrong_number: float = 0.0):
        super().__init__(detector, threshold)
        self.wrong_number = wrong_number

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if prompt.counts else "counts"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        def value(prompt: Prompt, detections: Sequence[Detection]) -> float:
            nouns = [noun for noun, _ in prompt.counts]
            return counts_share(prompt.counts, detections_by_noun(detections, nouns, self.threshold), self.wrong_number)

        labels = [list(dict.fromkeys(noun for noun, _ in prompt.counts)) for prompt in rollouts.prompts]
        return verdicts_from_detector(self.detector, rollouts, labels, value)


class RelationReward(_DetectorReward):
    """Whether a detector sees the prompt's two things, and sees them stand as it says.

    It needs a detector, and prompts with a relation that boxes can tell (`relations.relation_of`); it does not apply
    to others. 0..1, higher is better: a quarter for each thing, a half for how they stand. NaN where it does not
    apply, and where the detector has no verdict.
    threshold: detections with this score or a lower one are ignored.
    rule: `t2i-compbench`, graded, or `geneval`, 1 or 0 and directions only. The weights are T2I-CompBench's (arXiv
    2307.06350), whose quarters are multiplied by the detector's confidence.
    """

    name = "relation"

    def __init__(self, detector: Detector, threshold: float = THRESHOLD, rule: Rule = "t2i-compbench"):
        super().__init__(detector, threshold)
        if rule not in ("t2i-compbench", "geneval"):
            raise UserError(f"relation: rule={rule!r} is unknown: choose t2i-compbench or geneval.")
        self.rule: Rule = rule

    def _things(self, prompt: Prompt) -> list[str]:
        """Name the relation's two things; none where the reward does not apply."""
        relation = prompt.relation
        if relation is None or relation_of(relation.word, self.rule) is None:
            return []
        return list(dict.fromkeys((relation.subject, relation.object)))

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if self._things(prompt) else "relation that boxes can tell"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        side = min(pictures_of(rollouts).shape[1:3])

        def value(prompt: Prompt, detections: Sequence[Detection]) -> float:
            assert prompt.relation is not None
            by_noun = detections_by_noun(detections, self._things(prompt), self.threshold)
            return relation_share(prompt.relation, by_noun, side, self.rule)

        return verdicts_from_detector(
            self.detector, rollouts, [self._things(prompt) for prompt in rollouts.prompts], value
        )
