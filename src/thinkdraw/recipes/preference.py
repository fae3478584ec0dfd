"""Learning from pairs of one prompt's rollouts: the DPO family and REBEL, from a store or from rounds of one's own.

    thinkdraw train lab_dpo store=runs/store

A *round* has one store of judged rollouts: the first may be given, the others are sampled by the policy as it is then. What
a pair is compared with are the log-probs of the policy at the start of the round (`refresh_reference`), or of the run.
DPO arXiv 2305.18290 · REBEL 2404.16767 · on pictures: arXiv 2505.17017.
"""

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
            raise ValueError("rebel compares with the policy that sampled: refresh_reference must be true")
        if self.label_smoothing and self.loss_type not in ("sigmoid", "sigmoid_norm"):
            raise ValueError(f"label_smoothing is for sigmoid and sigmoid_norm, not {self.loss_type}: set it to 0")
        return self


@dataclass
class Rounds:
    """round: the last one that was begun and paid for."""

    round: int = -1


def run(config: PreferenceConfig) -> Path:
    """Train, and return the run folder; its newest checkpoint is the result. Raises UserError."""
    per_round = -(-config.max_steps // config.rounds)
    with Run.open(config) as run:
        state = run.remember_fields(Rounds())
        run.begin()
        while run.goes_on:
            # 1. A round: its store, the pairs in it, and what they are compared with.
            number = min(run.step // per_round, config.rounds - 1)
            is_begun = number <= state.round
            judged = open_round(run, config, number, is_begun)
            run.describe(judged.rollouts.prompts, judged.rollouts.sampling)
            pairs = pairs_of(judged, config, number)
            judged = with_reference_log_probs(run, judged, pairs, config, number, is_begun)
            if not is_begun:
                state.round = number
                forwards = len(torch.cat([pairs.better, pairs.worse]).unique())
                run.ledger.add(reference_forwards=forwards, **sampling_cost(judged))

            # 2. Its steps.
            last = config.max_steps if number == config.rounds - 1 else (number + 1) * per_round
            counts = {
                "pairs": len(pairs.better),
                "flat_groups": pairs.num_flat_groups,
                "no_verdict": pairs.num_no_verdict,
            }
            while run.step < last and run.goes_on:
                with run.clock("seconds_learning"):
                    whole = PairBatch.of_step(judged, pairs, run.step, config)
                    loss = partial(pair_loss, run.policy, num_pairs=len(whole.better), config=config)
                    update = run.update(loss, whole.share(run.world.rank, run.world.size))
                    both = whole.rows().rollouts
                run.ledger.add(sequences_trained=len(both), tokens_trained=int(both.mask.sum()))
                shown = ("loss", "margin_mean", "accuracy", "chosen_nll", "grad_norm")
                run.log({"round": number, **update.row(), **counts}, shown)
                run.save_when_due()
            run.save()  # a round's store must be of weights that are saved
    return run.path


def open_round(run: Run[Policy], config: PreferenceConfig, number: int, is_begun: bool) -> Batch:
    """The round's judged rollouts: those given, or sampled by the policy as it is and kept in the run's folder.

    is_begun: the round has trained, so that its store is whole, and the policy no longer the one that sampled.
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
            if not run.is_new:
                raise
            run.display.warn("store", f"{error} The run it was for took no step: sampled anew.")
            shutil.rmtree(path)
            sample.run(sampling)
    run.world.wait()
    return load_judged_rollouts(path, config.judge, run.policy)


def pairs_of(judged: Batch, config: PreferenceConfig, number: int) -> Pairs:
    """The round's pairs. Raises UserError if there are none, and for groups that span several prompts."""
    texts = [prompt.text for prompt in judged.rollouts.prompts]
    for start in range(0, len(texts), judged.group_size):
        if len(others := dict.fromkeys(texts[start : start + judged.group_size])) > 1:
            first, second, *_ = others
            raise UserError(
                f"round {number} has groups of several prompts ({first[:60]!r} and {second[:60]!r}), as rewrites=pool makes "
                "them, and a pair is of one prompt. Sample a store with rewrites=off."
            )
    pairs = pairs_from_rewards(judged.rewards, judged.group_size, which=config.pairs, min_margin=config.min_margin)
    if not len(pairs.better):
        raise UserError(
            f"round {number} has no pairs: of {len(judged) // judged.group_size} groups "
            f"{pairs.num_flat_groups} have no spread of {config.judge} above min_margin={config.min_margin:g}. "
            "Use another judge, larger groups or a smaller margin."
        )
    return pairs


def with_reference_log_probs(
    run: Run[Policy], judged: Batch, pairs: Pairs, config: PreferenceConfig, number: int, is_begun: bool
) -> Batch:
    """The batch with the log-probs that pairs are compared with: at the start of the round, or of the run.

    is_begun: the round has trained, and the policy is no longer the one of its start.
    """
    anchor = number if config.refresh_reference else 0
    cache = run.path / "before" / f"round_{number:03d}_against_{anchor:03d}.safetensors"
    open_before: Callable[[], Policy] | None = partial(open_policy, config, run.world) if anchor == 0 else None
    if anchor == number and not is_begun:
        open_before = lambda: run.policy  # noqa: E731
    rows = torch.cat([pairs.better, pairs.worse]).unique()
    key = log_probs_key(judged, rows, run.base)
    return with_cached_log_probs(open_before, judged, rows, config.micro_rows, run.world, cache, key)


@dataclass(frozen=True)
class PairBatch:
    """Pairs of rows of a judged batch. better, worse: (K,) row numbers."""

    judged: Batch
    better: Tensor
    worse: Tensor

    @staticmethod
    def of_step(judged: Batch, pairs: Pairs, step: int, config: PreferenceConfig) -> "PairBatch":
        """A step's pairs over all processes; which they are follows from seed and step alone."""
        places = range(step * config.pairs_per_step, (step + 1) * config.pairs_per_step)
        chosen = torch.tensor([shuffled_index(i, len(pairs.better), config.seed) for i in places])
        return PairBatch(judged, pairs.better[chosen], pairs.worse[chosen])

    def share(self, rank: int, size: int) -> "PairBatch":
        return PairBatch(self.judged, self.better[rank::size], self.worse[rank::size])

    def rows(self) -> Batch:
        """Both rollouts of each pair, the better ones first."""
        return self.judged.select(torch.cat([self.better, self.worse]))

    def micro(self, rows: int) -> Iterator[Batch]:
        size = max(1, rows // 2)
        for pairs in split_rows(torch.arange(len(self.better)), size):
            yield PairBatch(self.judged, self.better[pairs], self.worse[pairs]).rows()

    def num_micro(self, rows: int) -> int:
        return math.ceil(len(self.better) / max(1, rows // 2))


def pair_loss(policy: Policy, micro: Batch, *, num_pairs: int, config: PreferenceConfig) -> Loss:
    """DPO's or REBEL's loss of pairs, whose better rollouts come first. num_pairs: of the whole step."""
    rollouts, half = micro.rollouts.to(policy.device), len(micro) // 2
    log_probs = policy.log_probs(rollouts).log_probs
    assert micro.old_log_probs is not None, "pairs are compared with log-probs from before"
    before = micro.old_log_probs.to(log_probs.device)
    better, worse = slice(None, half), slice(half, None)
    mask, is_image = rollouts.mask, rollouts.is_image
    sides = (
        log_probs[better], log_probs[worse], before[better], before[worse],
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
