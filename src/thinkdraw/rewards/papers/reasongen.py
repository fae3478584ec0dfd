"""ReasonGen-R1's reward: a judge describes the picture, then gives a verdict."""

import math
import re

from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_judge, check_template, picture_requests, scores_from_replies
from thinkdraw.runtime.chat.thoughts import strip_thoughts
from thinkdraw.types import Rollouts, Verdicts, Writer

INSTRUCTION = r"""You are shown an image that was generated for this text prompt: "{prompt}"

Work in this order:
1. Describe the image as it is: objects, how many of each, colours, materials, places. Do not let the prompt guide you here.
2. List what the prompt asks for: each object, number, attribute and relation.
3. Check every point of that list against your description.

Be extremely strict. Only if every point is met exactly, without any doubt, the verdict is 1; otherwise it is 0.
Write your reasoning first and end with the verdict: \boxed{1} or \boxed{0}."""

_BOX = "\\boxed{"
_VERDICT = re.compile(r"\s*(?:\\(?:text|mathbf|mathrm|textbf)\{\s*([01])(?:\.0)?\s*\}|([01])(?:\.0)?)\s*\}")


def boxed_verdict(reply: str) -> float:
    r"""Parse the verdict in the last `\boxed{…}`: 1.0 or 0.0, else NaN.

    The box must hold a 1 or a 0 (1.0, \text{1}) and nothing else. An unfinished last box is no verdict, whatever an
    earlier one says: the reply was cut.
    """
    _, box, rest = strip_thoughts(reply).rpartition(_BOX)
    verdict = _VERDICT.match(rest) if box else None
    return float(verdict[1] or verdict[2]) if verdict else math.nan


class ReasonGenReward(BaseReward):
    """1 if a strict judge that first describes the picture finds every demand met.

    It needs a writer. 1 or 0, higher is better. NaN where the writer gave no reply, or one without a verdict by
    `boxed_verdict`; ReasonGen-R1's code counts such replies as 0.
    instruction: with `{prompt}` in it; the default says the same as theirs in other words. Zhang et al. 2025
    (ReasonGen-R1, arXiv 2505.24875): judge Qwen2.5-VL-7B-Instruct, greedy, up to 1,024 new tokens.
    """

    name = "reasongen"
    asks = ("writer",)

    def __init__(self, writer: Writer, instruction: str = INSTRUCTION):
        self.writer = check_judge(Writer, writer)
        self.instruction = check_template("reasongen: instruction", instruction)

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        return Verdicts.of(
            scores_from_replies(self.writer, picture_requests(rollouts, self.instruction), boxed_verdict)
        )
