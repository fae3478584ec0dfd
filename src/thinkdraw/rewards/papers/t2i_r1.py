"""T2I-R1's ensemble of judges (Jiang et al. 2025, arXiv 2505.00703, section 3.3)."""

from collections.abc import Sequence

import torch

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.clip_score import ScoreReward
from thinkdraw.rewards.combined import CombinedReward
from thinkdraw.rewards.judging import check_judge, p_yes, pictures_of
from thinkdraw.rewards.objects.relations import relation_of
from thinkdraw.rewards.objects.rewards import (
    counts_share,
    detections_by_noun,
    objects_share,
    relation_share,
    verdicts_from_detector,
)
from thinkdraw.rewards.vqa_yes import OrmReward
from thinkdraw.types import Detection, Detector, Prompt, Questioner, Reward, Rollouts, Scorer, Verdicts

# The `task_type`s of its training file. A prompt without one is told by its structure.
TASKS = ("spatial", "numeracy", "object", "color", "shape", "texture", "complex", "non")


def task_of(prompt: Prompt) -> str:
    """Tell by which rule the detector judges the prompt: spatial, numeracy or object."""
    task = prompt.tag if prompt.tag in TASKS else "spatial" if prompt.relation else "numeracy" if prompt.counts else ""
    if task == "spatial" and prompt.relation and relation_of(prompt.relation.word):
        return "spatial"
    return "numeracy" if task == "numeracy" and prompt.counts else "object"


class AttributesReward(BaseReward):
    """Mean P(yes) to "red dog?" over the prompt's attribute phrases.

    A prompt without such phrases is asked about its nouns. 0..1, higher is better.
    It does not apply to prompts about places or numbers, nor to those without nouns: NaN there, and no failure. The
    published code gives all of a group the same 0 or 1 there, which changes no advantage. Elsewhere NaN = no verdict
    on one of the phrases. The paper's questioner is GIT-large, tuned on VQAv2.
    """

    name = "attributes"
    asks = ("questioner",)

    def __init__(self, questioner: Questioner):
        self.questioner = check_judge(Questioner, questioner)

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if _phrases(prompt) else "nouns"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        questions = [[f"{phrase}?" for phrase in _phrases(prompt)] for prompt in rollouts.prompts]
        answers = p_yes(self.questioner, pictures_of(rollouts), questions)
        # The mean of no answers is NaN.
        means = torch.stack([p_yes_of_row.mean() for p_yes_of_row in answers])
        return Verdicts.of(means, torch.tensor([bool(texts) for texts in questions]))


def _phrases(prompt: Prompt) -> Sequence[str]:
    return prompt.attributed or prompt.nouns if task_of(prompt) == "object" else ()


class GroundingReward(BaseReward):
    """How far a detector sees the prompt's things, by the rule of the prompt's task.

    spatial: 0.2 for each of two things and 0.5 for how they stand (0..0.9).
    numeracy: mean over the counted nouns of 1 for the right number, 0.2 for a wrong one and 0 for none.
    object: the fraction of nouns that were detected. Higher is better.
    It does not apply to prompts without nouns: NaN there, and no failure. Elsewhere NaN = the detector has no
    verdict. The paper's detector is Grounding DINO-T, threshold 0.3. Where the paper's code slips, this does what was
    meant: "above" and "on top of" have a rule; "next to" compares pixels with pixels, so that it can fail; overlaps
    of counted boxes are taken from corners, where the code takes centres and sizes for corners.
    """

    name = "grounding"
    asks = ("detector",)

    def __init__(self, detector: Detector):
        self.detector = check_judge(Detector, detector)

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if _labels(prompt) else "nouns"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        side = min(pictures_of(rollouts).shape[1:3])

        def value(prompt: Prompt, detections: Sequence[Detection]) -> float:
            by_noun, task = detections_by_noun(detections, _labels(prompt)), task_of(prompt)
            if task == "spatial" and prompt.relation:
                return relation_share(prompt.relation, by_noun, side, thing_weight=0.2, relation_weight=0.5)
            if task == "numeracy":
                return counts_share(prompt.counts, by_noun, wrong_number=0.2)
            return objects_share(prompt.nouns, by_noun)

        return verdicts_from_detector(self.detector, rollouts, [_labels(prompt) for prompt in rollouts.prompts], value)


def _labels(prompt: Prompt) -> list[str]:
    """List the labels that the detector is to look for."""
    task = task_of(prompt)
    if task == "spatial" and prompt.relation:
        return list(dict.fromkeys((prompt.relation.subject, prompt.relation.object)))
    return list(dict.fromkeys(noun for noun, _ in prompt.counts) if task == "numeracy" else dict.fromkeys(prompt.nouns))


def t2i_r1(
    preference: Scorer | None = None,
    attributes: Questioner | None = None,
    grounding: Detector | None = None,
    orm: Questioner | None = None,
) -> CombinedReward:
    """Add up the scores of T2I-R1's judges: preference, attributes, grounding, ORM.

    It needs at least one of the four; their scores have equal weight. NaN where a judge that applies has no verdict.
    Higher is better.
    preference: HPS v2.1, raw, about 0.2..0.35. attributes: GIT-VQA, see `AttributesReward`.
    grounding: Grounding DINO, see `GroundingReward`. orm: a tuned LLaVA-OneVision-7B, see `OrmReward`.
    The paper's best run has the first three; its published script has all four. Raises UserError without any.
    """
    rewards: dict[str, Reward] = {}
    if preference is not None:
        rewards["preference"] = ScoreReward(preference)
    if attributes is not None:
        rewards["attributes"] = AttributesReward(attributes)
    if grounding is not None:
        rewards["grounding"] = GroundingReward(grounding)
    if orm is not None:
        rewards["orm"] = OrmReward(orm)
    if not rewards:
        raise UserError("t2i-r1 has no judge. Give at least one of preference, attributes, grounding and orm.")
    return CombinedReward(rewards, name="t2i-r1")
