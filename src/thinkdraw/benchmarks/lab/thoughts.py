"""Do thoughts and pictures belong together?

A thought's claims are checked in its picture, and thoughts are swapped between prompts. `lab/claims.py` says what a
claim is.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from thinkdraw.benchmarks.drawing import picture_seed
from thinkdraw.benchmarks.statistics import PromptVerdicts, Score, mean_interval, paired_difference, task_mean_score
from thinkdraw.lab.claims import CLAIM_KINDS, claim_holds, claims
from thinkdraw.lab.detector import DetectorOutput, detect_objects
from thinkdraw.rewards.lab_detector import judge
from thinkdraw.types import Policy, Prompt, Rollouts, Sampling

CONDITIONS = ("own", "other", "empty", "off")


def thought_precision(
    thoughts: Sequence[str], contents: Sequence[DetectorOutput], *, seed: int = 0
) -> dict[str, Score]:
    """Compute the share of claims that hold: "all", and each kind that occurs.

    contents: what the detector sees in each thought's picture. A Score's `prompts` counts thoughts, its `pictures`
    claims.
    """
    held: dict[str, list[list[float]]] = {}
    for thought, picture in zip(thoughts, contents, strict=True):
        claims_made = list(claims(thought))
        for kind in ("all", *CLAIM_KINDS):
            verdicts = [float(claim_holds(claim, picture)) for claim in claims_made if kind in ("all", claim.kind)]
            if verdicts:
                held.setdefault(kind, []).append(verdicts)
    return {kind: task_mean_score([("", v) for v in rows], seed=seed) for kind, rows in held.items()}


@dataclass(frozen=True)
class SwapReport:
    """Pictures of the same prompts and seeds, drawn from four different thoughts.

    The conditions are `own`: the prompt's thought, `other`: another prompt's, `empty`: an empty one, `off`: no
    thinking.
    correct, facts: condition → share of correct pictures, mean share of facts.
    differences: "own-other" … → the paired difference of `correct`.
    followed: condition → share of the claims that hold, of the thought that the picture was drawn from.
    """

    correct: dict[str, Score]
    facts: dict[str, Score]
    differences: dict[str, Score]
    followed: dict[str, Score]

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        return {
            measure: {name: {"value": s.value, "low": s.low, "high": s.high} for name, s in scores.items()}
            for measure, scores in vars(self).items()
        }


def draw_from_thoughts(
    policy: Policy, prompts: Sequence[Prompt], thoughts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
) -> Rollouts:
    """Sample pictures after given thoughts.

    policy: a `Policy`, with `teacher_forced` and `sample(prefix=…)`.
    """
    blank = torch.zeros(len(prompts), policy.picture.num_tokens, dtype=torch.long)
    prefix = policy.teacher_forced(prompts, thoughts, blank, sampling)
    lengths = ((prefix.segment >= 0) & ~prefix.is_image).sum(1)
    return policy.sample(prompts, sampling, seeds=seeds, prefix=prefix, prefix_lengths=lengths)


def swap_study(
    policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, *, samples: int = 1, seed: int = 0, chunk: int = 128,
    progress: Callable[[int], None] = lambda done: None,
) -> SwapReport:  # fmt: skip
    """Draw each prompt under the four `CONDITIONS`, and judge by the lab's detector.

    samples: pictures per prompt and condition. chunk: pictures drawn at once; the other thought is that of the
    chunk's next prompt. progress: called with the number of prompts that are done.
    Raises ValueError for `off` and for fewer than two prompts.
    """
    if sampling.thought == "off" or len(prompts) < 2:
        raise ValueError(
            f"thought={sampling.thought} and {len(prompts)} prompts: a swap needs thoughts and at least two prompts. "
            "Choose thought=inline or rewrite, and give more prompts."
        )
    correct: dict[str, list[PromptVerdicts]] = {name: [] for name in CONDITIONS}
    facts: dict[str, list[float]] = {name: [] for name in CONDITIONS}
    held: dict[str, tuple[list[str], list[DetectorOutput]]] = {name: ([], []) for name in ("own", "other")}
    num_chunks = max(1, len(prompts) * samples // max(chunk, 2 * samples))
    for batch in _even_parts(prompts, num_chunks):
        rows = [(prompt, k) for prompt in batch for k in range(samples)]
        seeds = [picture_seed("swap", p, k, seed) for p, k in rows]
        by_condition = _draw_under_conditions(policy, [p for p, _ in rows], seeds, samples, sampling)
        for name, (thoughts, pictures) in by_condition.items():
            contents = [detect_objects(picture) for picture in pictures.cpu().numpy()]
            verdicts = [judge(picture, p, is_correct) for picture, (p, _), is_correct in zip(pictures, rows, contents)]
            for first in range(0, len(rows), samples):
                of_prompt = verdicts[first : first + samples]
                prompt = rows[first][0]
                is_correct = [float(v.correct) for v in of_prompt]
                correct[name].append(PromptVerdicts(prompt.tag, is_correct, prompt.id or prompt.text))
                facts[name].append(sum(v.share for v in of_prompt) / samples)
            if name in held:
                held[name][0].extend(thoughts)
                held[name][1].extend(contents)
        progress(len(facts["own"]))
    followed = {name: thought_precision(*both, seed=seed).get("all") for name, both in held.items()}
    return SwapReport(
        correct={name: task_mean_score(rows, seed=seed) for name, rows in correct.items()},
        facts={name: mean_interval(shares, seed=seed) for name, shares in facts.items()},
        differences={f"own-{n}": paired_difference(correct["own"], correct[n], seed=seed) for n in CONDITIONS[1:]},
        followed={name: score for name, score in followed.items() if score is not None},
    )


def _even_parts(prompts: Sequence[Prompt], count: int) -> Iterator[Sequence[Prompt]]:
    """Split prompts into parts of nearly equal length.

    So no part is a single prompt, which would have none to swap with.
    """
    bounds = [round(i * len(prompts) / count) for i in range(count + 1)]
    return (prompts[a:b] for a, b in itertools.pairwise(bounds))


def _draw_under_conditions(
    policy: Policy, prompts: list[Prompt], seeds: list[int], samples: int, sampling: Sampling
) -> dict[str, tuple[Sequence[str], torch.Tensor]]:
    """Map condition → (the thoughts that were drawn from, the pictures)."""
    own = policy.sample(prompts, sampling, seeds=seeds)
    off = policy.sample(prompts, sampling.model_copy(update={"thought": "off"}), seeds=seeds)
    empty = [""] * len(prompts)
    others = [*own.thoughts[samples:], *own.thoughts[:samples]]  # each prompt's samples take those of the next prompt
    rollouts = {
        "own": (own.thoughts, own),
        "other": (others, draw_from_thoughts(policy, prompts, others, sampling, seeds)),
        "empty": (empty, draw_from_thoughts(policy, prompts, empty, sampling, seeds)),
        "off": (empty, off),
    }
    return {
        name: (thoughts, rollouts_of_condition.pictures) for name, (thoughts, rollouts_of_condition) in rollouts.items()
    }
