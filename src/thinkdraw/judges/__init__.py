"""Frozen models that look at pictures, behind the protocols `Detector`, `Questioner` and `Scorer` of `thinkdraw.types`.

A judge reports what it sees, raw; what that is worth is for `thinkdraw.rewards` to say. A judge that fails answers NaN.
"""

# Name → class; a string, so that a judge's libraries are imported when it is used and not before.
JUDGES = {
    "clip": "thinkdraw.judges.clip:ClipScorer",
    "lab-clip": "thinkdraw.judges.clip:LabClipScorer",
    "lab-detector": "thinkdraw.judges.lab:LabDetector",
    "policy": "thinkdraw.judges.lab:PolicyQuestioner",
}
