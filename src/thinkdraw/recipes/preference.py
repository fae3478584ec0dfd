"""Learning from pairs of one prompt's rollouts: the DPO family and REBEL, from a store or from rounds of one's own.

    thinkdraw train lab_dpo store=runs/store

A *round* has one store of judged rollouts: the first may be given, the others are sampled by the policy as it is then. What
a pair is compared with are the log-probs of the policy at the start of the round (`refresh_reference`), or of the run.
DPO arXiv 2305.18290 · REBEL 2404.16767 · on pictures: arXiv 2505.17017.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.objectives import PreferenceLoss, dpo_loss, pairs_from_rewards, rebel_loss
from thinkdraw.recipes import sample as sampling
from thinkdraw.recipes.sample import SampleConfig
from thinkdraw.runtime.checkpoint import latest_checkpoint
from thinkdraw.training.data import shuffled
from thinkdraw.training.display import Display
from thinkdraw.training.folder import RunFolder
from thinkdraw.training.judged_store import Judged, load_judged, log_probs_before
from thinkdraw.training.ledger import Ledger
from thinkdraw.training.training import Team, Trainer, TrainSettings, open_policy
from thinkdraw.types import Policy, Rollouts


class PreferenceConfig(TrainSettings):
    recipe: Literal["preference"] = "preference"
    out: Path = Field(default=Path("runs/lab_dpo"), description="The run folder.")
    store: Path | None = Field(default=None, description="Judged rollouts to begin with; null: the policy's own.")
    judge: str = Field(default="lab-detector", description="Whose scores of the store make the pairs.")
    rounds: int = Field(default=1, ge=1, description="Later rounds sample anew; max_steps is shared out evenly.")
    sample: SampleConfig = Field(
        default=SampleConfig(),
        description="How a round samples; its out, policy and seed are the round's own, rewards by default the judge.",
    )
    refresh_reference: bool = Field(
        default=True, description="Compare with the policy at the round's start, not the run's."
    )
    objective: Literal["dpo", "rebel"] = "dpo"
    loss_type: Literal["sigmoid", "hinge", "ipo", "sigmoid_norm"] = Field(default="sigmoid", description="Of dpo.")
    beta: float = Field(default=0.1, gt=0, description="Of dpo: weight of the distance to the reference.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="Of dpo.")
    sft_weight: float = Field(default=0.0, ge=0, description="Of dpo: weight of the better rollout's likelihood.")
    eta: float = Field(default=1.0, gt=0, description="Of rebel: log-ratio per unit of reward.")
    scaling: Literal["eta_on_reward", "inv_eta_on_log_ratio"] = Field(default="eta_on_reward", description="Of rebel.")
    length_normalised: bool = Field(default=False, description="Of rebel: means over tokens in place of sums.")
    pairs: Literal["best_worst", "all"] = Field(default="best_worst", description="Of each group.")
    min_margin: float = Field(default=0.0, ge=0, description="Pairs whose scores differ by less are left out.")
    text_weight: float = Field(default=1.0, ge=0)
    image_weight: float = Field(default=1.0, ge=0)
    pairs_per_step: int = Field(default=32, ge=1, description="Over all processes.")

    @model_validator(mode="after")
    def _settings_fit_the_objective(self) -> "PreferenceConfig":
        if self.objective == "rebel" and not self.refresh_reference:
            raise ValueError("rebel compares with the policy that sampled: refresh_reference must be true")
        if self.label_smoothing and self.loss_type not in ("sigmoid", "sigmoid_norm"):
            raise ValueError(f"label_smoothing is for sigmoid and sigmoid_norm, not {self.loss_type}: set it to 0")
        return self


def run(config: PreferenceConfig) -> Path:
    """Train, and return the run folder; its newest checkpoint is the result. Raises UserError."""
    team = Team(config)
    folder = RunFolder(config, team)
    policy = open_policy(config, team)
    base, trainer = policy.revision, Trainer(policy, config.optimiser, team)
    state = folder.open()
    done: dict[str, Any] = {"step": 0, "round": -1}
    ledger = Ledger.of(state)
    if state:
        trainer.load_state_dict(state)
        done |= {name: state[name] for name in done}
    saved = done["step"]
    per_round = -(-config.max_steps // config.rounds)

    with Display("preference", config.max_steps, config.log_every, team.is_main) as display:
        while folder.progress(done["step"]) < 1:
            # 1. A round: its store, the pairs in it, and what they are compared with.
            number = min(done["step"] // per_round, config.rounds - 1)
            judged = open_round(policy, config, number, folder.path, team)
            folder.started(base, judged.rollouts.prompts, judged.rollouts.sampling)
            pairs = pairs_from_rewards(
                judged.scores, judged.group_size, which=config.pairs, min_margin=config.min_margin
            )
            if len(pairs.better) < team.size:
                raise UserError(
                    f"round {number} has {len(pairs.better)} pairs: of {len(judged.scores) // judged.group_size} groups "
                    f"{pairs.num_flat_groups} have no spread of {config.judge} above min_margin={config.min_margin:g}. "
                    "Use another judge, larger groups or a smaller margin."
                )
            rows = torch.cat([pairs.better, pairs.worse]).unique()
            anchor = 0 if not config.refresh_reference else number
            cache = folder.path / "before" / f"round_{number:03d}_against_{anchor:03d}.safetensors"
            before = compared_with(policy, judged, rows, config, anchor == number, cache, team)
            if number > done["round"]:
                done["round"] = number
                ledger.add(reference_forwards=len(rows), **judged.cost())

            # 2. Its steps.
            last = config.max_steps if number == config.rounds - 1 else (number + 1) * per_round
            while done["step"] < last and folder.progress(done["step"]) < 1:
                began = time.monotonic()
                places = range(done["step"] * config.pairs_per_step, (done["step"] + 1) * config.pairs_per_step)
                chosen = torch.tensor([shuffled(i, len(pairs.better), config.seed) for i in places])
                mine = chosen[team.rank :: team.size]
                sides = pairs.better[mine], pairs.worse[mine]
                sums = trainer.gradients(partial(accumulate, policy, judged, before, *sides, len(chosen)), config)
                sums = team.add(sums)
                grad_norm, rate = trainer.step(done["step"], folder.progress(done["step"]))
                done["step"] += 1
                both = judged.rollouts.select(torch.cat([pairs.better[chosen], pairs.worse[chosen]]))
                ledger.add(sequences_trained=len(both), tokens_trained=int(both.mask.sum()))
                ledger.add(seconds_learning=time.monotonic() - began)
                row = {"step": done["step"], "round": number, **sums, "grad_norm": grad_norm, "learning_rate": rate}
                row |= {"pairs": len(pairs.better), "flat_groups": pairs.num_flat_groups}
                row |= {"no_verdict": pairs.num_no_verdict, **ledger.row(), "seconds": folder.seconds()}
                if team.is_main:
                    folder.log.append(row)
                shown = ("loss", "margin_mean", "accuracy", "chosen_nll", "grad_norm")
                display.show(done["step"], row, shown, folder.progress(done["step"]))
                if grad_norm == 0:
                    display.warn("gradient", "the gradient norm is 0: nothing is learned. Are both weights 0?")
                if done["step"] - saved >= config.save_every:
                    folder.save(policy=policy, trainer=trainer, ledger=ledger.row(), **done)
                    saved = done["step"]
            if saved != done["step"]:  # a round's store must be of weights that are saved
                folder.save(policy=policy, trainer=trainer, ledger=ledger.row(), **done)
                saved = done["step"]
    return folder.path


def open_round(policy: Policy, config: PreferenceConfig, number: int, folder: Path, team: Team) -> Judged:
    """The round's judged rollouts: those given, or sampled by the policy as it is and kept in the run's folder."""
    if number == 0 and config.store is not None:
        return load_judged(config.store, config.judge, policy, own=config.objective == "rebel" and not _begun(folder))
    path = folder / "stores" / f"round_{number:03d}"
    if team.is_main:
        newest = latest_checkpoint(folder)
        changes = {
            "out": path,
            "policy": str(newest) if number and newest else config.policy,
            "rewards": config.sample.rewards or [config.judge],
        }
        sampling.run(config.sample.model_copy(update=changes | {"seed": config.seed + 1000 * (number + 1)}))
    team.wait()
    return load_judged(path, config.judge, policy)


def _begun(folder: Path) -> bool:
    """Whether the first round has trained already, so that the policy is no longer the one that sampled."""
    return any((folder / "before").glob("round_000_*"))


def compared_with(
    policy: Policy,
    judged: Judged,
    rows: Tensor,
    config: PreferenceConfig,
    refreshed: bool,
    cache: Path,
    team: Team,
) -> Tensor:
    """(B, T) log-probs at the start of the round, or of the run where the reference is not refreshed."""
    if refreshed or cache.is_file():
        return log_probs_before(policy, judged.rollouts, rows, config.micro_rows, team, cache)
    return log_probs_before(open_policy(config, team), judged.rollouts, rows, config.micro_rows, team, cache)


def accumulate(
    policy: Policy, judged: Judged, before: Tensor, better: Tensor, worse: Tensor, num_pairs: int,
    config: PreferenceConfig,
) -> dict[str, float]:  # fmt: skip
    """Add the gradients of this process's pairs, `micro_rows` at a time; over processes the sums are means."""
    names = ("loss", "margin_mean", "accuracy", "chosen_reward", "rejected_reward", "chosen_nll")
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    size = max(1, config.micro_rows // 2)
    for b, w in zip(better.split(size), worse.split(size), strict=True):
        found = pair_loss(policy, judged, before, b, w, num_pairs, config)
        found.loss.backward()
        for name in names:
            sums[name] += getattr(found, name).detach()
    return {name: float(value) for name, value in sums.items()}


def pair_loss(
    policy: Policy, judged: Judged, before: Tensor, better: Tensor, worse: Tensor, num_pairs: int,
    config: PreferenceConfig,
) -> PreferenceLoss:  # fmt: skip
    """Both rollouts of each pair in one forward pass, rows better first."""
    both: Rollouts = judged.rollouts.select(torch.cat([better, worse])).to(policy.device)
    width, half = both.tokens.shape[1], len(better)
    lp: Any = policy.log_probs(both).log_probs
    old = before[torch.cat([better, worse]), :width].to(lp.device)
    sides = [(lp[s], old[s], both.mask[s], both.is_image[s]) for s in (slice(None, half), slice(half, None))]
    arranged: Any = [part for pair in zip(*sides, strict=True) for part in pair]
    weights: Any = {"text_weight": config.text_weight, "image_weight": config.image_weight, "num_pairs": num_pairs}
    if config.objective == "dpo":
        return dpo_loss(
            *arranged, loss_type=config.loss_type, beta=config.beta, label_smoothing=config.label_smoothing,
            sft_weight=config.sft_weight, **weights,
        )  # fmt: skip
    scores = judged.scores.to(lp.device)
    return rebel_loss(
        *arranged, rewards_1=scores[better], rewards_2=scores[worse], eta=config.eta, scaling=config.scaling,
        length_normalised=config.length_normalised, **weights,
    )  # fmt: skip
