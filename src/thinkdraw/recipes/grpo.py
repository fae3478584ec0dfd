"""GRPO: draw groups of pictures, judge them, make the better ones likelier.

    thinkdraw train lab_grpo

A *phase* samples a group of G rollouts (thought and picture) for each of its prompts and learns from them in one or
several optimiser *steps*. `metrics.jsonl` has one row per phase. For each rollout i with reward r_i:

    A_i  = (r_i − mean of its group) / (std of its group + 1e-4)      advantage
    ρ    = exp(lp − lp_old), per token                                 1 until the policy has moved
    loss = −mean(w·min(ρA, clip(ρ, 1 − clip_low, 1 + clip_high)·A)) + α·mean(entropy) + β·mean(KL to the reference)

w is 1, or with `importance_cap` the truncated weight min(π_old/π_behaviour, cap) of each token, without gradient.

Text and image tokens have means and weights of their own: 576 image tokens would drown a thought of 60.
Where to read on: `training/run.py` has what every run needs, `phase/rollout.py` samples and judges, `phase/advantages.py`
makes the advantages, `objectives/policy_gradient.py` has the loss and its variants.
Shao et al. 2024 (arXiv 2402.03300), with the entropy control of ReasonGen-R1 (arXiv 2505.24875).
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from thinkdraw.objectives import SegmentCounts, clipped_loss, count_segments, kl_k2, kl_k3, masked_modality_mean
from thinkdraw.recipes.phase.advantages import finish_advantages
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.entropy import EntropyControl
from thinkdraw.recipes.phase.hacking.alarms import Alarms
from thinkdraw.recipes.phase.hacking.pictures import picture_stats
from thinkdraw.recipes.phase.judges import Judges, refuse_photographs
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.recipes.phase.report import log_groups, warn_of_trouble
from thinkdraw.recipes.phase.rollout import sample_phase
from thinkdraw.recipes.phase.run_store import RunStore
from thinkdraw.recipes.phase.stats import phase_stats
from thinkdraw.recipes.phase.token_credit import batched_log_probs
from thinkdraw.recipes.phase.validation import Validation
from thinkdraw.runtime.checkpoint import State
from thinkdraw.training.batch import Batch
from thinkdraw.training.run import Loss, Run
from thinkdraw.types import Policy, Reward, Rollouts

# Estimators of the KL in the loss. k1 is not one of them: as a loss its expected gradient is zero. It lowers the reward
# instead, see `phase/advantages.py`.
KL = {"k2": kl_k2, "k3": kl_k3}
# Columns of metrics.jsonl that are printed beside the progress bar.
SHOWN = ("reward_mean", "entropy_text", "entropy_image", "thought_tokens_mean", "ratio_max_deviation")


def run(config: GrpoConfig, reward: Reward | None = None) -> Path:
    """Train, and return the run folder.

    reward: replaces the one that the config names.
    Raises UserError.
    """
    prompts = PromptOrder.of(config.prompts, config.stages, config.seed, config.history, config.out)
    validation = Validation(config)
    validation.warn_of_shared_prompts(prompts.all_prompts())
    if reward is None:
        refuse_photographs(config, [*prompts.all_prompts(), *validation.prompts])
    with Run.open(config, reference=config.beta > 0) as run:
        prompts.fit_to_policy(run, config.sampling)
        validation.fit_to_policy(run)
        # `remember` saves a part's state in every checkpoint, and restores it here when a stopped run goes on.
        judges = run.remember("judges", Judges.open(config, run.policy, reward))
        judges.note_user_code(run)
        prompts, entropy = run.remember("order", prompts), run.remember("entropy", EntropyControl(config.entropy))
        validation, counters = run.remember("watch", validation), run.remember_fields(Counters())
        # Only a refreshed reference is saved: one that never changes is the starting policy, which is loaded anyway.
        reference = run.remember("reference", Reference(run.policy)) if config.refreshes_reference else None
        # Until here `run.policy` was the starting policy, which judges and reference copy. Now a run that goes on loads
        # the weights of its checkpoint.
        run.begin(prompts.all_prompts(), config.sampling)
        store = RunStore.of(run, judges.optimised, config, counters.shards) if config.store else None
        alarms = Alarms.of(run.path)

        while run.goes_on and not validation.should_stop:
            # 1. Sample groups of rollouts, judge them, and turn rewards into advantages. Each process has whole groups,
            #    since an advantage compares the rollouts of one group.
            with run.full_weights():
                sampled = sample_phase(run.policy, judges.optimised, prompts, config, counters.phase, run.world)
                run.ledger.add(pictures_sampled=sampled.num_sampled, judge_calls=sampled.num_sampled, **sampled.spent)
                judges.refuse_missing_verdicts(sampled.verdicts, config, run.world)
                batch = finish_advantages(run.policy, sampled.batch, config, run.world)
                batch = with_old_log_probs(run, batch, config)

            # 2. Learn: one optimiser step per minibatch, and `passes` times (GRPO's μ) through all of them.
            learned = learn(run, batch, entropy, config)
            counters.phase += 1
            if reference and config.refresh_reference_every and counters.phase % config.refresh_reference_every == 0:
                with run.full_weights():
                    run.policy.make_reference()

            # 3. Validate, log, store the rollouts, and save.
            row = phase_stats(batch, sampled.verdicts, config, run.world) | learned | picture_stats(batch, run.world)
            row |= validation.validate(run, judges.watched, counters.phase) | prompts.progress()
            row |= alarms.update(run.display, {"step": run.step, **row})
            row = run.log({"phase": counters.phase, **row}, SHOWN, batch)
            counters.shards = store.append(batch) if store else 0
            logs_rollouts = config.log_rollouts_every and (counters.phase - 1) % config.log_rollouts_every == 0
            if run.world.is_main and logs_rollouts:
                log_groups(run, batch, config.log_groups)
            counters.flat_phases = 0 if row["advantage_std"] else counters.flat_phases + 1
            warn_of_trouble(run.display, row, counters.flat_phases, config)
            run.save_when_due(validation.score(row))
    return run.path


def with_old_log_probs(run: Run[Policy], batch: Batch, config: GrpoConfig) -> Batch:
    """Recompute lp_old by a pass of the trainer, if `old_log_probs=recomputed`.

    The sampler decodes token by token from a KV cache. In bf16 that rounds differently from the trainer's pass over all
    tokens at once, and ρ would not be 1 before the first step.
    With a single step per phase no extra pass is needed: the step's own forward pass gives lp_old, see `grpo_loss`.
    """
    if config.old_log_probs == "sampled" or config.minibatches * config.passes == 1:
        return batch
    with run.clock("seconds_learning"):
        scores = batched_log_probs(run.policy, as_scored(batch.rollouts, config.guidance_in_loss), config.micro_rows)
    return dataclasses.replace(batch, old_log_probs=scores.log_probs)


def as_scored(rollouts: Rollouts, guidance_in_loss: str) -> Rollouts:
    """Return rollouts as the loss scores them, with their guidance or without."""
    return rollouts if guidance_in_loss == "same" else rollouts.without_guidance()


def learn(run: Run[Policy], batch: Batch, entropy: EntropyControl, config: GrpoConfig) -> dict[str, float]:
    """Make the optimiser steps of a phase.

    Returns columns of metrics.jsonl: means over the steps; ratio_max_deviation is the first step's, learning_rate the last's.
    """
    steps: list[dict[str, float]] = []  # a row per optimiser step
    single_step: dict[str, float] = {}  # columns taken from one step
    with run.clock("seconds_learning"):
        for minibatch in batch.minibatches(config.minibatches, config.passes):
            # Counts of the whole step, over all processes. Every micro-batch divides by them, so that the losses and
            # gradients of micro-batches and processes add up to one mean, however the step is split.
            counts = SegmentCounts(**run.world.sum(dataclasses.asdict(minibatch.counts())))
            if counts.text + counts.image == 0:
                run.skip("a minibatch has no group with two verdicts")
                continue
            loss = partial(grpo_loss, run.policy, counts=counts, entropy_coefs=entropy.coefficients, config=config)
            update = run.update(loss, minibatch, config.sampling, may_be_flat=True)
            steps.append(update.sums | {"grad_norm": update.grad_norm} | entropy.update(update.sums, counts))
            # ratio_max_deviation of the *first* step: only then is the policy the one that sampled, and a ratio other
            # than 1 means that sampler and trainer disagree. The learning rate is the last step's.
            single_step = update.maxima | single_step | {"learning_rate": update.learning_rate}  # the right side wins
            forwards = counts.sequences if config.beta > 0 and config.kl in KL else 0
            run.ledger.add(
                sequences_trained=counts.sequences,
                tokens_trained=counts.text + counts.image,
                reference_forwards=forwards,
            )
    return single_step | {name: sum(step[name] for step in steps) / len(steps) for name in (steps[0] if steps else ())}


def grpo_loss(
    policy: Policy, micro: Batch, *, counts: SegmentCounts, entropy_coefs: tuple[float, float], config: GrpoConfig
) -> Loss:
    """Compute a micro-batch's share of the step's loss, see the formula at the top.

    micro: rows that are in the loss; `Batch.micro` has left the others out.
    counts: trained tokens and rows of the whole step, over all processes: the denominators.
    entropy_coefs: α of text and of image tokens.
    """
    rollouts = as_scored(micro.rollouts, config.guidance_in_loss)
    scores = policy.log_probs(rollouts)
    log_probs, mask, is_image = scores.log_probs, rollouts.mask, rollouts.is_image
    advantages, weights, old = micro.advantages, micro.token_weights, micro.old_log_probs
    assert advantages is not None, "GRPO learns from advantages"

    # lp_old: the sampler's; or recomputed by `with_old_log_probs`; or, recomputed with one step per phase, of this very
    # pass. Then ρ is 1 everywhere, but its gradient is that of lp: the loss is REINFORCE.
    if old is None:
        old = log_probs.detach() if config.old_log_probs == "recomputed" else rollouts.log_probs

    # A: one number per rollout, (B,), or (B, T) where token weights spread it over the tokens.
    token_advantages = advantages.values if weights is None else advantages.values[:, None] * weights.advantage
    # w = min(π_old/π_behaviour, cap), if asked for: a truncated importance weight without gradient. As w > 0, the clipped
    # term of w·A is w times that of A.
    importance = importance_weights(old, micro.rollouts, config.importance_cap) if config.importance_cap else None
    if importance is not None:
        token_advantages = (token_advantages[:, None] if token_advantages.ndim == 1 else token_advantages) * importance
    policy_loss = clipped_loss(
        log_probs, old, token_advantages, mask, is_image,
        variant=config.variant, clip_low=config.clip_low, clip_high=config.clip_high, cispo_max=config.cispo_max,
        text_weight=config.text_weight, image_weight=config.image_weight, counts=counts,
        denominator="all" if config.reduction == "token" else None,
        text_budget=config.sampling.max_thought_tokens + 1,  # + 1: begin-of-image, which ends a thought
        image_budget=policy.picture.num_tokens,
    )  # fmt: skip
    loss = policy_loss.loss

    # + α·entropy: a positive α lowers the entropy, a negative one raises it.
    entropy = masked_modality_mean(scores.entropy, mask, is_image, counts)
    sums = {"entropy_text": entropy.text, "entropy_image": entropy.image}
    if any(entropy_coefs):  # a term of 0 would still cost its backward pass through all logits
        loss = loss + entropy_coefs[0] * entropy.text + entropy_coefs[1] * entropy.image

    # + β·KL(policy ‖ reference).
    if config.beta > 0 and config.kl in KL:
        with torch.no_grad(), policy.reference():
            reference = policy.log_probs(rollouts).log_probs
        # k2 and k3 are estimates over samples of the policy as it is now. These tokens are the old policy's, so ρ
        # reweights them; it is 1 at the first step.
        token_kl = (log_probs - old).exp().detach() * KL[config.kl](log_probs, reference)
        kl = masked_modality_mean(token_kl if weights is None else token_kl * weights.kl, mask, is_image, counts)
        shares = (1.0, 1.0)
        if config.reduction == "token":  # the two means become one
            shares = tuple(n / (counts.text + counts.image) for n in (counts.text, counts.image))
        loss = loss + config.beta * (shares[0] * kl.text + shares[1] * kl.image)
        sums |= {"kl_text": kl.text, "kl_image": kl.image}

    # For the log: `clipped_loss` gives means of this micro-batch. Times its share of the step's tokens, they add up over
    # micro-batches and processes to the means of the step.
    own = count_segments(mask, is_image)
    sums |= {
        "loss": loss,
        "ratio_mean": policy_loss.ratio_mean * ((own.text + own.image) / (counts.text + counts.image)),
        "clip_frac_text": policy_loss.text_clip_frac.nan_to_num() * (own.text / max(counts.text, 1)),
        "clip_frac_image": policy_loss.image_clip_frac.nan_to_num() * (own.image / max(counts.image, 1)),
    }
    if importance is not None and config.importance_cap:
        share = 1 / (counts.text + counts.image)
        sums |= {
            "importance_mean": importance[mask].sum() * share,
            "importance_capped_frac": (importance[mask] >= config.importance_cap).sum() * share,
        }
    # Against the sampler's log-probs, whatever `old` is: against a recomputed `old` (as in `PolicyLoss`) it would be 0,
    # and hide that sampler and trainer disagree. Without guidance in the loss the two are not of one distribution.
    behaviour = rollouts.log_probs if config.guidance_in_loss == "same" else old
    drift = (log_probs.detach() - behaviour)[mask].exp() - 1
    return Loss(loss, sums, {"ratio_max_deviation": float(drift.abs().max()) if len(drift) else 0.0})


def importance_weights(old_log_probs: Tensor, rollouts: Rollouts, cap: float) -> Tensor:
    """Compute min(π_old/π_behaviour, cap) per token, (B, T); 1 where masked out.

    π_behaviour sampled the tokens: the sampler's own rounding, guidance and weights. Truncation bounds the variance
    (Ionides 2008, Truncated importance sampling).
    """
    log_ratio = (old_log_probs.detach() - rollouts.log_probs).masked_fill(~rollouts.mask, 0.0)
    return log_ratio.exp().clamp(max=cap)


@dataclass
class Counters:
    """Counters of a GRPO run; the fields are keys of its checkpoints.

    phase: phases done. shards: shards of the run's store. flat_phases: latest phases in a row without reward variance in
    any group, from which nothing can be learned.
    """

    phase: int = 0
    shards: int = 0
    flat_phases: int = 0


@dataclass(frozen=True)
class Reference:
    """The reference's weights as a part of the checkpoint, once it was refreshed."""

    policy: Policy

    def state_dict(self) -> State:
        return self.policy.reference_weights()

    def load_state_dict(self, state: State) -> None:
        self.policy.load_reference(state)
