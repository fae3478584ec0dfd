"""GRPO: sample groups of thoughts and pictures, judge them, and make the better ones of each group likelier.

    thinkdraw train lab_grpo

A *phase* samples one batch of groups and learns from it in one or several optimiser *steps*; `metrics.jsonl` has a row
per phase.
Shao et al. 2024 (arXiv 2402.03300) on two modalities, with ReasonGen-R1's entropy control (arXiv 2505.24875).
"""

import dataclasses
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from thinkdraw.errors import UserError
from thinkdraw.objectives import SegmentCounts, clipped_loss, count_segments, kl_k2, kl_k3, masked_modality_mean
from thinkdraw.policies.check import fp32_limit
from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes.phase.advantages import Part, masked_rows
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.entropy import EntropyControl
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.recipes.phase.rollout import minibatches, sample_phase
from thinkdraw.recipes.phase.rollout_log import write_rollouts
from thinkdraw.recipes.phase.run_store import RunStore
from thinkdraw.recipes.phase.stats import phase_stats
from thinkdraw.recipes.phase.validation import OPTIMISED, Watch, validate
from thinkdraw.rewards.judges_behind import complaints
from thinkdraw.rewards.opening import open_reward
from thinkdraw.rewards.own import as_reward
from thinkdraw.rewards.revision import judges_revision, refuse_other_judges
from thinkdraw.rollouts.scores import Judge
from thinkdraw.training.data import check_prompts, load_prompts
from thinkdraw.training.display import Display
from thinkdraw.training.folder import RunFolder
from thinkdraw.training.ledger import Ledger
from thinkdraw.training.training import Team, Trainer, open_policy
from thinkdraw.types import Policy, Reward

KL = {"k2": kl_k2, "k3": kl_k3}  # in the loss; k1 has no gradient there that points anywhere
BF16_RATIO_LIMIT = 1e-2  # at the first update of a phase; fp32 has `fp32_limit`


def run(config: GrpoConfig, reward: Reward | None = None) -> Path:
    """Train, and return the run folder. reward: in place of the one that the config names. Raises UserError."""
    team = Team(config)
    folder = RunFolder(config, team)
    if min(config.prompts_per_phase, config.prompts_per_phase // config.minibatches) < team.size:
        raise UserError(
            f"prompts_per_phase={config.prompts_per_phase} in {config.minibatches} minibatches over {team.size} "
            "processes leaves one without a group. Raise prompts_per_phase."
        )
    order = PromptOrder.of(config.prompts, config.stages, config.seed, config.history, config.out)
    asked = config.validation
    held_back = load_prompts(asked.prompts, config.out) if asked.every else []
    policy = open_policy(config, team)
    check_prompts(policy, [*order.all_prompts(), *held_back], config.sampling)
    # Judge `self` copies the policy here: the one that the run starts from, also where it goes on from a checkpoint.
    reward = as_reward(reward) if reward else open_reward(config.reward.name, policy, **config.reward.settings)
    watched = {OPTIMISED: reward} | {
        f"monitor/{m.name}": open_reward(m.name, policy, **m.settings) for m in asked.monitors
    }
    judges = {name.replace(OPTIMISED, reward.name): judges_revision(judge) for name, judge in watched.items()}
    if config.beta > 0:
        if config.refresh_reference_every and config.lora:
            raise UserError(
                "refresh_reference_every with lora: the reference is the policy without its adapters, which does not "
                "change. Set refresh_reference_every=null, or train all weights."
            )
        policy.make_reference()
    base, trainer = policy.revision, Trainer(policy, config.optimiser, team)
    entropy, watch = EntropyControl(config.entropy), Watch(asked)

    state = folder.open()
    folder.started(base, order.all_prompts(), config.sampling)
    done: dict[str, Any] = {"step": 0, "phase": 0, "shards": 0, "flat_phases": 0, "best": "", "best_score": -math.inf}
    ledger = Ledger.of(state)
    if state:
        refuse_other_judges(state.get("judges", judges), judges, folder.path)
        trainer.load_state_dict(state)
        entropy.load_state_dict(state["entropy"])
        order.load_state_dict(state["order"])
        watch.load_state_dict(state["watch"])
        if "reference" in state:
            policy.load_reference(state["reference"])
        done |= {name: state[name] for name in done}
    done["judges"], saved = judges, done["step"]
    store = open_store(folder.path / "store", policy, reward, config, done["shards"], team) if config.store else None

    with Display("grpo", config.max_steps, config.log_every, team.is_main) as display:
        while folder.progress(done["step"]) < 1 and not watch.stops:
            # 1. Sample and judge. Every process has whole groups of its own; the statistics are global.
            with trainer.resident():
                phase = sample_phase(policy, reward, order, config, done["phase"], team)
                parts = phase.parts
                ledger.add(pictures_sampled=phase.num_sampled, judge_calls=phase.num_sampled, **phase.spent)
                row = phase_stats(phase, config, team)
                refuse_missing_verdicts(row["no_verdict_frac"] or 0.0, reward, config)
                began = time.monotonic()
                if store:
                    store.append(parts)
                    done["shards"] = store.num_shards
                recompute_log_probs(policy, parts, config)

            # 2. Learn, in one optimiser step per minibatch and pass.
            updates = []
            for number, batch in enumerate(minibatches(parts, config)):
                counts = global_counts(batch, team)
                if counts.text + counts.image == 0:
                    display.warn("empty", "a minibatch has no group with two verdicts: skipped.")
                    done["step"] += 1
                    continue
                sums, deviation = trainer.gradients(
                    partial(accumulate, policy, batch, counts, entropy.coefficients),
                    config,
                    partial(num_passes, batch),
                    config.sampling,
                )
                sums = team.add(sums)
                if number == 0:
                    row["ratio_max_deviation"] = team.highest(deviation)
                grad_norm, row["learning_rate"] = trainer.step(done["step"], folder.progress(done["step"]))
                updates.append(sums | {"grad_norm": grad_norm} | entropy.update(sums, counts))
                ledger.add(sequences_trained=counts.sequences, tokens_trained=counts.text + counts.image)
                ledger.add(reference_forwards=counts.sequences if config.beta > 0 and config.kl in KL else 0)
                done["step"] += 1
            row |= {name: sum(u[name] for u in updates) / len(updates) for name in (updates[0] if updates else ())}
            done["phase"] += 1
            if config.history:
                row |= {"prompts_solved": order.num_solved, "prompts_skipped": order.skipped}
            ledger.add(seconds_learning=time.monotonic() - began)

            if (
                config.beta > 0
                and config.refresh_reference_every
                and done["phase"] % config.refresh_reference_every == 0
            ):
                with trainer.resident():
                    policy.make_reference()

            # 3. Evaluate, and write down what happened.
            if asked.every and done["phase"] % asked.every == 0:
                with trainer.resident():
                    scores = validate(policy, watched, held_back, config.sampling, config.seed, team)
                if parting := watch.look(scores, done["step"]):
                    display.warn("parted", parting)
                row |= scores | ({"parted": watch.parted} if asked.monitors else {})
            row = {"step": done["step"], "phase": done["phase"], **row, **ledger.row(), "seconds": folder.seconds()}
            if team.is_main:
                folder.log.append(row)
                if config.log_rollouts_every and (done["phase"] - 1) % config.log_rollouts_every == 0:
                    file = folder.path / "rollouts" / f"step_{done['step']:06d}.parquet"
                    p = parts[0]
                    write_rollouts(
                        file, done["step"], p.rollouts, p.rewards, p.advantages.values, p.components, config.log_groups
                    )
            display.show(
                done["step"],
                row,
                ("reward_mean", "entropy_text", "entropy_image", "thought_tokens_mean", "ratio_max_deviation"),
                folder.progress(done["step"]),
            )
            warn_of_trouble(display, row, done, config)

            score = row.get(f"monitor/{asked.best_by}" if asked.best_by else OPTIMISED)
            if is_best := score is not None and score > done["best_score"]:
                done |= {"best": f"step_{done['step']:06d}", "best_score": score}
            if is_best or done["step"] - saved >= config.save_every:
                folder.save(
                    policy=policy, trainer=trainer, **states(policy, entropy, order, watch, ledger, config), **done
                )
                saved = done["step"]
        if saved != done["step"]:
            folder.save(policy=policy, trainer=trainer, **states(policy, entropy, order, watch, ledger, config), **done)
        folder.finish()
    return folder.path


def open_store(path: Path, policy: Policy, reward: Reward, config: GrpoConfig, num_shards: int, team: Team) -> RunStore:
    judge = Judge(reward=reward.name, settings=config.reward.settings, revision=reward.revision)
    return RunStore(path, policy, config.sampling.thought, judge, policy_path(config.policy), num_shards, team)


def states(
    policy: Policy, entropy: EntropyControl, order: PromptOrder, watch: Watch, ledger: Ledger, config: GrpoConfig
) -> dict[str, Any]:
    """What a checkpoint holds beside the trainer's state; the reference only where it is no longer the starting policy."""
    found: dict[str, Any] = {"entropy": entropy.state_dict(), "order": order.state_dict(), "watch": watch.state_dict()}
    found["ledger"] = ledger.row()
    if config.beta > 0 and config.refresh_reference_every:
        found["reference"] = policy.reference_weights()
    return found


def num_passes(batch: list[Part], config: GrpoConfig) -> int:
    """Micro-batches that `accumulate` makes of this process's rows."""
    return sum(math.ceil(int(part.advantages.valid.sum()) / config.micro_rows) for part in batch)


def accumulate(
    policy: Policy, batch: list[Part], counts: SegmentCounts, coefficients: tuple[float, float], config: GrpoConfig
) -> tuple[dict[str, float], float]:
    """Add the gradients of this process's rows, `micro_rows` at a time.

    Returns sums that add up over processes to means of the step's tokens, and max |ratio − 1| against the sampler's
    log-probs.
    """
    sums: dict[str, Any] = {}
    deviation = 0.0
    in_loss = config.beta > 0 and config.kl in KL
    for part in batch:
        rows = part.advantages.valid.nonzero().flatten()
        lengths = (part.rollouts.segment[rows] >= 0).sum(1) + part.rollouts.prompt_mask[rows].sum(1)
        for chosen in rows[torch.argsort(lengths, stable=True)].split(config.micro_rows):
            micro = part.rollouts.select(chosen)
            scored = policy.log_probs(micro)
            lp, where = scored.log_probs, (micro.mask, micro.is_image, counts)
            old = micro.log_probs if part.old_log_probs is None else part.old_log_probs[chosen, : micro.tokens.shape[1]]
            if config.old_log_probs == "recomputed" and part.old_log_probs is None:
                old = lp.detach()
            advantages, credit = part.advantages.values[chosen], None
            if part.credit is not None:
                credit = part.credit.rows(chosen, lp.shape[1])
                advantages = advantages[:, None] * credit.advantage
            policy_loss = clipped_loss(
                lp,
                old,
                advantages,
                micro.mask,
                micro.is_image,
                variant=config.variant,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                text_weight=config.text_weight,
                image_weight=config.image_weight,
                counts=counts,
                text_budget=config.sampling.max_thought_tokens + 1,
                image_budget=policy.picture.num_tokens,
            )
            entropies = masked_modality_mean(scored.entropy, *where)
            loss = policy_loss.loss
            if any(coefficients):  # the gradient of nothing would still be carried through all logits
                loss = loss + coefficients[0] * entropies.text + coefficients[1] * entropies.image
            new = {"entropy_text": entropies.text, "entropy_image": entropies.image}
            if in_loss:
                with torch.no_grad(), policy.reference():
                    reference = policy.log_probs(micro).log_probs
                ratio = (lp - old).exp().detach()
                distance = ratio * KL[config.kl](lp, reference)
                kl = masked_modality_mean(distance if credit is None else distance * credit.kl, *where)
                loss = loss + config.beta * (kl.text + kl.image)
                new |= {"kl_text": kl.text, "kl_image": kl.image}
            loss.backward()

            tokens = count_segments(micro.mask, micro.is_image)
            new |= {
                "loss": loss,
                "ratio_mean": policy_loss.ratio_mean * ((tokens.text + tokens.image) / (counts.text + counts.image)),
                "clip_frac_text": policy_loss.text_clip_frac.nan_to_num() * (tokens.text / max(counts.text, 1)),
                "clip_frac_image": policy_loss.image_clip_frac.nan_to_num() * (tokens.image / max(counts.image, 1)),
            }
            for name, value in new.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
            drift = (lp.detach() - micro.log_probs)[micro.mask].exp() - 1
            deviation = max(deviation, float(drift.abs().max()))
    names = ["entropy_text", "entropy_image", *(["kl_text", "kl_image"] if in_loss else [])]
    names += ["loss", "ratio_mean", "clip_frac_text", "clip_frac_image"]
    return {name: float(sums.get(name, 0.0)) for name in names}, deviation


def recompute_log_probs(policy: Policy, parts: list[Part], config: GrpoConfig) -> None:
    """`old_log_probs: recomputed` with several updates per phase; with one, the update's own forward gives them."""
    if config.old_log_probs == "sampled" or config.minibatches * config.passes == 1:
        return
    for part in parts:
        part.old_log_probs = torch.zeros_like(part.rollouts.log_probs)
        for rows in torch.arange(len(part.rollouts)).split(config.micro_rows):
            with torch.no_grad():
                micro = part.rollouts.select(rows)
                part.old_log_probs[rows, : micro.tokens.shape[1]] = policy.log_probs(micro).log_probs


def global_counts(batch: list[Part], team: Team) -> SegmentCounts:
    """Trained tokens and rows of the whole step, over all processes: what every micro-batch divides by."""
    mine = sum((count_segments(masked_rows(p), p.rollouts.is_image) for p in batch), SegmentCounts(0, 0, 0, 0, 0))
    return SegmentCounts(**team.add(dataclasses.asdict(mine)))


def refuse_missing_verdicts(frac: float, reward: Reward, config: GrpoConfig) -> None:
    if frac > config.max_no_verdict_frac:
        said = complaints(reward)
        raise UserError(
            f"reward {reward.name} gave no verdict (NaN) for {frac:.0%} of a phase's rollouts, more than "
            f"max_no_verdict_frac={config.max_no_verdict_frac:g}{f' ({said})' if said else ''}. Look at its judge, or "
            "raise the limit."
        )


def warn_of_trouble(display: Display, row: dict[str, Any], done: dict[str, Any], config: GrpoConfig) -> None:
    """Counts phases without reward variance in `done`; every warning is said once."""
    done["flat_phases"] = done["flat_phases"] + 1 if row["zero_variance_frac"] == 1 else 0
    if done["flat_phases"] >= 3:
        display.warn(
            "variance",
            "three phases without reward variance in any group: nothing can be learned. Is the reward constant, "
            "too hard or too easy?",
        )
    if row.get("grad_norm") == 0 and done["flat_phases"] == 0:
        display.warn(
            "gradient", "the gradient norm is 0 although rewards differ. Are all weights frozen, or both weights 0?"
        )
    deviation = row.get("ratio_max_deviation", 0.0)
    is_fp32 = config.precision == config.dtype == "fp32"
    limit = fp32_limit(config.sampling) if is_fp32 else BF16_RATIO_LIMIT
    if deviation > limit and config.old_log_probs == "sampled":
        display.warn(
            "ratio",
            f"max |ratio − 1| is {deviation:.2g} at the first update of a phase (limit {limit:.2g} in "
            f"{config.precision}): sampler and trainer disagree. With bf16 set old_log_probs=recomputed; in fp32 "
            "this is an error of the policy.",
        )
