"""Frozen models that look at pictures: detectors, questioners, scorers, writers.

A judge reports what it sees, raw; `thinkdraw.rewards` decides what that is worth. A judge that fails answers NaN.
The protocols `Detector`, `Questioner`, `Scorer` and `Writer` are in `thinkdraw.types`.
"""

from typing import Any

from thinkdraw.judges.user_judges import with_checked_answers
from thinkdraw.runtime.registry import make

# Name → class. The class is a string, so that a judge's libraries are imported only when the judge is used.
JUDGES = {
    "aesthetic": "thinkdraw.judges.scorers.aesthetic:AestheticScorer",
    "blip-vqa": "thinkdraw.judges.questioners.blip_vqa:BlipVqaJudge",
    "clip": "thinkdraw.judges.scorers.clip:ClipScorer",
    "clip-colour": "thinkdraw.judges.detectors.colour:ClipColour",
    "depth": "thinkdraw.judges.detectors.depth:DepthEstimator",
    "git-vqa": "thinkdraw.judges.questioners.git_vqa:GitVqaJudge",
    "grounding-dino": "thinkdraw.judges.detectors.grounding_dino:GroundingDino",
    "hps": "thinkdraw.judges.scorers.hps:HpsScorer",
    "imagereward": "thinkdraw.judges.scorers.imagereward:ImageRewardScorer",
    "lab-clip": "thinkdraw.judges.scorers.clip:LabClipScorer",
    "lab-detector": "thinkdraw.judges.lab:LabDetector",
    "mask2former": "thinkdraw.judges.detectors.mask2former:Mask2Former",
    "openai": "thinkdraw.judges.served.openai_judge:OpenAIJudge",
    "openai-words": "thinkdraw.judges.served.openai_words:OpenAIWords",
    "owlv2": "thinkdraw.judges.detectors.owlv2:Owlv2",
    "pickscore": "thinkdraw.judges.scorers.clip:PickScorer",
    "policy": "thinkdraw.judges.lab:PolicyQuestioner",
    "self": "thinkdraw.judges.questioners.frozen_policy:SelfQuestioner",
    "siglip": "thinkdraw.judges.scorers.siglip:SiglipScorer",
    "vlm": "thinkdraw.judges.questioners.vlm:VlmJudge",
    "vlm-words": "thinkdraw.judges.questioners.vlm_words:VlmWords",
}


def load_judge(name: str, **settings: Any) -> Any:
    """Make the judge called `name`, or of the class at a dotted path `pkg.mod:Class`.

    settings: arguments of its class.
    Raises UserError for an unknown name, a path without such a class, and settings that the class does not take.
    """
    judge = make("judge", JUDGES, name, settings)
    return judge if name in JUDGES else with_checked_answers(name, judge)
