"""Preference learning: the DPO family and REBEL, on pairs of a prompt's rollouts.

    thinkdraw train lab_dpo store=runs/store

A *round* learns from one store of judged rollouts. `store` may name the first round's; each other round samples its own
with the policy at its start. For a pair with the better rollout w and the worse one l,

    Δ     = [lp(w) − lp_ref(w)] − [lp(l) − lp_ref(l)]
    DPO   = −log σ(β·Δ)                      and its relatives, by `loss_type`
    REBEL = (Δ − η·(r_w − r_l))²

The reference is the policy at the start of the round (`refresh_reference`), or of the run.
DPO arXiv 2305.18290 · REBEL arXiv 2404.16767 · on pictures: arXiv 2505.17017.
"""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from thinkdraw.errors import HeldError, UserError
from thinkdraw.objectives import Pairs, PreferenceLoss, dpo_loss, pairs_from_rewards, rebel_loss
from thinkdraw.recipes import sample
from thinkdraw.recipes.sample import SampleConfig
from thinkdraw.runtime.checkpoint import latest_checkpoint
from thinkdraw.training.batch import Batch, split_rows
from thinkdraw.training.data import shuffled_index
from thinkdraw.training.judged_store import (
    load_judged_rollouts,
    log_probs_key,
    sampling_cost,
    store_input,
    with_cached_log_probs,
)
from thinkdraw.training.run import Loss, Run, open_policy
from thinkdraw.training.settings import TrainSettings
from thinkdraw.types import Policy


class PreferenceConfig(TrainSettings):
    """Settings of DPO and REBEL; `TrainSettings` has those that all recipes share."""

    recipe: Literal["preference"] = Field(
        default="preference", description="Names the recipe that this configuration is for; always `preference`."
    )
    out: Path = Field(
        default=Path("runs/lab_dpo"),
        description="Folder of the run: configuration, metrics, checkpoints and the stores of its rounds. A "
        "stopped run goes on there.",
    )
    store: Path | None = Field(
        default=None,
        description="Store of judged rollouts that the first round learns from; null samples one from the policy.",
    )
    judge: str = Field(
        default="lab-detector", description="Judge whose scores in the store rank the rollouts of a pair."
    )
    rounds: int = Field(
        default=1,
        ge=1,
        description="Rounds of sampling and learning; each round after the first samples anew, and max_steps is "
        "divided evenly among them.",
    )
    sample: SampleConfig = Field(
        default=SampleConfig(),
        description="How a round samples its store. Its out, policy and seed are set by the round; empty rewards "
        "means `judge`.",
    )
    refresh_reference: bool = Field(
        default=True,
        description="Compare pairs with the policy as the round began; false compares with the policy as the run "
        "began. rebel needs true.",
    )
    objective: Literal["dpo", "rebel"] = Field(
        default="dpo",
        description="Loss on pairs: dpo learns which is better (arXiv 2305.18290); rebel regresses the "
        "difference of rewards (arXiv 2404.16767).",
    )
    loss_type: Literal["sigmoid", "hinge", "ipo", "sigmoid_norm"] = Field(
        default="sigmoid",
        description="Form of dpo's loss: sigmoid 2305.18290, hinge 2305.10425, ipo 2310.12036; sigmoid_norm "
        "2411.15124 takes means over tokens (arXiv numbers).",
    )
    beta: float = Field(
        default=0.1,
        gt=0,
        description="dpo: larger keeps the policy nearer to the reference. ipo and sigmoid_norm, which use means "
        "over tokens, need a larger one than sigmoid.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="dpo: share of pairs assumed to be labelled the wrong way round, below 0.5; only sigmoid and "
        "sigmoid_norm take it.",
    )
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="dpo: weight of the better rollout's negative log-likelihood, so that it does not become "
        "less likely; 0 leaves it out.",
    )
    eta: float = Field(
        default=1.0,
        gt=0,
        description="rebel: nats of log-ratio that one unit of reward is worth. Larger moves the policy further "
        "(arXiv 2404.16767).",
    )
    scaling: Literal["eta_on_reward", "inv_eta_on_log_ratio"] = Field(
        default="eta_on_reward",
        description="rebel: eta multiplies the reward (the published code), or divides the log-ratio (the "
        "paper): the same optimum, the loss divided by eta².",
    )
    length_normalised: bool = Field(
        default=False,
        description="rebel: log-ratios are means over the tokens of each modality in place of sums, so that long "
        "rollouts do not weigh more.",
    )
    guidance_in_loss: Literal["same", "conditional"] = Field(
        default="same",
        description="same scores tokens in the distribution they were sampled from, guidance included. conditional leaves "
        "guidance out, of policy and reference alike.",
    )
    pairs: Literal["best_worst", "all"] = Field(
        default="best_worst",
        description="Pairs made of each group: the best with the worst rollout, or every two of different scores.",
    )
    min_margin: float = Field(
        default=0.0, ge=0, description="Least difference of scores within a pair; pairs closer together are left out."
    )
    text_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of thought tokens in the log-probs that are compared; 0 learns from pictures alone.",
    )
    image_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of image tokens in the log-probs that are compared; 0 learns from thoughts alone.",
    )
    pairs_per_step: int = Field(
        default=32, ge=1, description="Pairs that each optimiser step learns from, over all processes."
    )

    @model_validator(mode="after")
    def _settings_fit_the_objective(self) -> "PreferenceConfig":
        if self.objective == "rebel" and not self.refresh_reference:
            raise ValueError("objective=rebel compares with the policy that sampled: set refresh_reference=true")
        if self.label_smoothing and self.loss_type not in ("sigmoid", "sigmoid_norm"):
            raise ValueError(f"label_smoothing is for sigmoid and sigmoid_norm, not {self.loss_type}: set it to 0")
        return self


@dataclass
class Rounds:
    """The state of the rounds; the field is a key of checkpoints.

    round: the latest whose sampling is in the ledger; −1: none.
    """

    round: int = -1


def run(config: PreferenceConfig) -> Path:
    """Train, and return the run folder. Raises UserError.

    The newest checkpoint is the result.
    """
    per_round = -(-config.max_steps // config.rounds)
    with Run.open(config) as run:
        state = run.remember_fields(Rounds())
        run.begin()
        while run.goes_on:
            # 1. Open a round: its store, its pairs, and the reference's log-probs of their rollouts.
            number = min(run.step // per_round, config.rounds - 1)
            is_begun = number <= state.round  # the run was stopped within this round, and goes on
            judged = open_round(run, config, number, is_begun)
            run.describe(judged.rollouts.prompts, judged.rollouts.sampling)
            judged = as_scored(judged, config)
            pairs = pairs_of(judged, config, number)
            judged = with_reference_log_probs(run, judged, pairs, config, number, is_begun)
            if not is_begun:
                state.round = number
                forwards = len(torch.cat([pairs.better, pairs.worse]).unique())
                run.ledger.add(reference_forwards=forwards, **sampling_cost(judged))

            # 2. Learn from its pairs until its share of the steps is used up.
            last = config.max_steps if number == config.rounds - 1 else (number + 1) * per_round
            counts = {
                "pairs": len(pairs.better),
                "flat_groups": pairs.num_flat_groups,
                "no_verdict": pairs.num_no_verdict,
            }
            while run.step < last and run.goes_on:
                with run.clock("seconds_learning"):
                    # All processes choose the same pairs, and each takes its share. The loss divides by the number of
                    # pairs of the whole step, so that the shares add up to one mean.
                    step_pairs = PairBatch.of_step(judged, pairs, run.step, config)
                    loss = partial(pair_loss, run.policy, num_pairs=len(step_pairs.better), config=config)
                    update = run.update(loss, step_pairs.share(run.world.rank, run.world.size))
                    sequences = step_pairs.rows().rollouts
                run.ledger.add(sequences_trained=len(sequences), tokens_trained=int(sequences.mask.sum()))
                shown = ("loss", "margin_mean", "accuracy", "chosen_nll", "grad_norm")
                run.log({"round": number, **update.row(), **counts}, shown)
                run.save_when_due()
            run.save()  # the next round samples from this checkpoint
    return run.path


def as_scored(judged: Batch, config: PreferenceConfig) -> Batch:
    """Return rollouts as the loss scores them, with their guidance or without.

    Raises UserError where there is no guidance to leave out.
    """
    if config.guidance_in_loss == "same":
        return judged
    if judged.rollouts.sampling.guidance_scale == 1:
        raise UserError(
            "guidance_in_loss=conditional leaves guidance out of the loss, and the rollouts were sampled without. Leave it out."
        )
    return dataclasses.replace(judged, rollouts=judged.rollouts.without_guidance())


def open_round(run: Run[Policy], config: PreferenceConfig, number: int, is_begun: bool) -> Batch:
    """Open the round's judged rollouts.

    They are those of `store`, or sampled by the policy into the run's folder.
    is_begun: the round has trained already. Then its store is complete, and the policy is no longer the one that sampled.
    """
    if number == 0 and config.store is not None:
        judged = load_judged_rollouts(
            config.store, config.judge, run.policy, own=config.objective == "rebel" and not is_begun
        )
        run.note("store", store_input(config.store, config.judge, judged))
        return judged
    path = run.path / "stores" / f"round_{number:03d}"
    if run.world.is_main and not is_begun:
        newest = latest_checkpoint(run.path)
        changes = {
            "out": path,
            "policy": str(newest) if number and newest else config.policy,
            "rewards": config.sample.rewards or [config.judge],
        }
        sampling = config.sample.model_copy(update=changes | {"seed": config.seed + 1000 * (number + 1)})
        try:
            sample.run(sampling)
        except HeldError as error:
            # The folder holds a store of another configuration. Of a run that never took a step nothing is lost.
            if not run.is_new:
                raise
            run.display.warn("store", f"{error} The run it was sampled for took no step, so it is sampled again.")
            shutil.rmtree(path)
            sample.run(sampling)
    run.world.wait()
    return load_judged_rollouts(path, config.judge, run.policy)


def pairs_of(judged: Batch, config: PreferenceConfig, number: int) -> Pairs:
    """Pair the rollouts of each group.

    Raises UserError if there is no pair at all, or a group of several prompts.
    """
    texts = [prompt.text for prompt in judged.rollouts.prompts]
    for start in range(0, len(texts), judged.group_size):
        if len(wordings := dict.fromkeys(texts[start : start + judged.group_size])) > 1:
            first, second, *_ = wordings
            raise UserError(
                f"round {number} has groups of several prompts ({first[:60]!r} and {second[:60]!r}), as rewrites=pool makes "
                "them, but a pair needs one prompt. Sample a store with rewrites=off."
            )
    pairs = pairs_from_rewards(judged.rewards, judged.group_size, which=config.pairs, min_margin=config.min_margin)
    if not len(pairs.better):
        raise UserError(
            f"round {number} has no pairs: in {pairs.num_flat_groups} of {len(judged) // judged.group_size} groups no scores "
            f"of {config.judge} differ by more than min_margin={config.min_margin:g}. Use another judge, larger groups or a "
            "smaller margin."
        )
    return pairs


def with_reference_log_probs(
    run: Run[Policy], judged: Batch, pairs: Pairs, config: PreferenceConfig, number: int, is_begun: bool
) -> Batch:
    """Add the reference's log-probs of the paired rollouts.

    The reference is the policy at the start of the round (`refresh_reference`) or of the run.
    The reference needs no weights in memory: its log-probs are computed once per round and cached in a file.
    is_begun: the round has trained already, so that the policy is no longer the one of its start.
    """
    anchor = number if config.refresh_reference else 0  # the round whose start is the reference
    cache = run.path / "before" / f"round_{number:03d}_against_{anchor:03d}.safetensors"
    # How to get the reference if the file is missing: the starting policy can always be opened again, the policy at the
    # start of this round is at hand only before its first step; else there is none.
    open_reference: Callable[[], Policy] | None = partial(open_policy, config, run.world) if anchor == 0 else None
    if anchor == number and not is_begun:
        open_reference = lambda: run.policy  # noqa: E731
    rows = torch.cat([pairs.better, pairs.worse]).unique()
    key = log_probs_key(judged, rows, run.base)
    return with_cached_log_probs(open_reference, judged, rows, config.micro_rows, run.world, cache, key)


@dataclass(frozen=True)
class PairBatch:
    """Pairs of rows of a judged batch, on which `Run.update` takes a step.

    better, worse: (K,) row indices.
    """

    judged: Batch
    better: Tensor
    worse: Tensor

    @staticmethod
    def of_step(judged: Batch, pairs: Pairs, step: int, config: PreferenceConfig) -> "PairBatch":
        """Choose a step's pairs, for all processes; seed and step alone decide which."""
        places = range(step * config.pairs_per_step, (step + 1) * config.pairs_per_step)
        chosen = torch.tensor([shuffled_index(i, len(pairs.better), config.seed) for i in places])
        return PairBatch(judged, pairs.better[chosen], pairs.worse[chosen])

    def share(self, rank: int, size: int) -> "PairBatch":
        """Take every `size`-th pair: those of process `rank`."""
        return PairBatch(self.judged, self.better[rank::size], self.worse[rank::size])

    def rows(self) -> Batch:
        """Select both rollouts of each pair: all better ones first, then all worse ones."""
        return self.judged.select(torch.cat([self.better, self.worse]))

    def micro(self, rows: int) -> Iterator[Batch]:
        """Split into micro-batches of whole pairs, of up to `rows` rollouts."""
        size = max(1, rows // 2)
        for pairs in split_rows(torch.arange(len(self.better)), size):
            yield PairBatch(self.judged, self.better[pairs], self.worse[pairs]).rows()

    def num_micro(self, rows: int) -> int:
        """Count the micro-batches of `micro`."""
        return math.ceil(len(self.better) / max(1, rows // 2))


def pair_loss(policy: Policy, micro: Batch, *, num_pairs: int, config: PreferenceConfig) -> Loss:
    """Compute a micro-batch's share of the step's DPO or REBEL loss.

    micro: better rollouts in the first half, worse ones in the second. num_pairs: of the whole step, the denominator.
    """
    rollouts, half = micro.rollouts.to(policy.device), len(micro) // 2
    log_probs = policy.log_probs(rollouts).log_probs
    assert micro.old_log_probs is not None, "pairs need the reference's log-probs"
    reference = micro.old_log_probs.to(log_probs.device)
    better, worse = slice(None, half), slice(half, None)
    mask, is_image = rollouts.mask, rollouts.is_image
    sides = (
        log_probs[better], log_probs[worse], reference[better], reference[worse],
        mask[better], mask[worse], is_image[better], is_image[worse],
    )  # fmt: skip
    loss: PreferenceLoss
    if config.objective == "dpo":
        loss = dpo_loss(
            *sides, loss_type=config.loss_type, beta=config.beta, label_smoothing=config.label_smoothing,
            sft_weight=config.sft_weight, text_weight=config.text_weight, image_weight=config.image_weight,
            num_pairs=num_pairs,
        )  # fmt: skip
    else:
        rewards = micro.rewards.to(log_probs.device)
        loss = rebel_loss(
            *sides, rewards_1=rewards[better], rewards_2=rewards[worse], eta=config.eta, scaling=config.scaling,
            length_normalised=config.length_normalised, text_weight=config.text_weight, image_weight=config.image_weight,
            num_pairs=num_pairs,
        )  # fmt: skip
    names = ("loss", "margin_mean", "accuracy", "chosen_reward", "rejected_reward", "chosen_nll")
    return Loss(loss.loss, {name: getattr(loss, name) for name in names})
