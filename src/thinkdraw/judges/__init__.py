"""Frozen models that look at pictures, behind the protocols `Detector`, `Questioner` and `Scorer` of `thinkdraw.types`.

A judge reports what it sees, raw; what that is worth is for `thinkdraw.rewards` to say. A judge that fails answers NaN.
"""

from typing import Any

from thinkdraw.runtime.registry import make

# Name → class; a string, so that a judge's libraries are imported when it is used and not before.
JUDGES = {
    "aesthetic": "thinkdraw.judges.aesthetic:AestheticScorer",
    "blip-vqa": "thinkdraw.judges.blip_vqa:BlipVqaJudge",
    "clip": "thinkdraw.judges.clip:ClipScorer",
    "clip-colour": "thinkdraw.judges.colour:ClipColour",
    "depth": "thinkdraw.judges.depth:DepthEstimator",
    "git-vqa": "thinkdraw.judges.git_vqa:GitVqaJudge",
    "grounding-dino": "thinkdraw.judges.grounding_dino:GroundingDino",
    "hps": "thinkdraw.judges.hps:HpsScorer",
    "imagereward": "thinkdraw.judges.imagereward:ImageRewardScorer",
    "lab-clip": "thinkdraw.judges.clip:LabClipScorer",
    "lab-detector": "thinkdraw.judges.lab:LabDetector",
    "mask2former": "thinkdraw.judges.mask2former:Mask2Former",
    "openai": "thinkdraw.judges.openai_judge:OpenAIJudge",
    "openai-words": "thinkdraw.judges.openai_words:OpenAIWords",
    "owlv2": "thinkdraw.judges.owlv2:Owlv2",
    "pickscore": "thinkdraw.judges.clip:PickScorer",
    "policy": "thinkdraw.judges.lab:PolicyQuestioner",
    "self": "thinkdraw.judges.own:SelfQuestioner",
    "siglip": "thinkdraw.judges.siglip:SiglipScorer",
    "vlm": "thinkdraw.judges.vlm:VlmJudge",
    "vlm-words": "thinkdraw.judges.vlm_words:VlmWords",
}


def load_judge(name: str, **settings: Any) -> Any:
    """The judge called `name`, or of the class at a dotted path `pkg.mod:Class`, made with its settings.

    Raises UserError for an unknown name, a path without such a class, and settings that the class does not take.
    """
    return make("judge", JUDGES, name, settings)
