"""GRPO: sample groups of thoughts and pictures, judge them, and make the better ones of each group likelier.

    thinkdraw train lab_grpo

A *phase* samples one batch of groups and learns from it in one or several optimiser *steps*; `metrics.jsonl` has a row
per phase. To read on from here: what every run needs is in `training/run.py`, sampling and judging a phase in
`phase/rollout.py`, rewards → advantages in `phase/advantages.py`, the formula of the loss in `objectives/policy_gradient.py`.
Shao et al. 2024 (arXiv 2402.03300) on two modalities, with ReasonGen-R1's entropy control (arXiv 2505.24875).
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from thinkdraw.objectives import SegmentCounts, clipped_loss, count_segments, kl_k2, kl_k3, masked_modality_mean
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.entropy import EntropyControl
from thinkdraw.recipes.phase.judges import Judges
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
from thinkdraw.types import Policy, Reward

# The KL terms of the loss. k1 is not among them, for its gradient there is zero in expectation: it goes into the reward.
KL = {"k2": kl_k2, "k3": kl_k3}
# Columns of metrics.jsonl that are printed beside the progress bar.
SHOWN = ("reward_mean", "entropy_text", "entropy_image", "thought_tokens_mean", "ratio_max_deviation")


def run(config: GrpoConfig, reward: Reward | None = None) -> Path:
    """Train, and return the run folder. reward: in place of the one that the config names. Raises UserError."""
    prompts = PromptOrder.of(config.prompts, config.stages, config.seed, config.history, config.out)
    validation = Validation(config)
    validation.say_shared(prompts.all_prompts())
    with Run.open(config, reference=config.beta > 0) as run:
        prompts.keep_what_fits(run, config.sampling)
        validation.keep_what_fits(run)
        # What is remembered is in the run's checkpoints, and comes back here when a stopped run goes on.
        judges = run.remember("judges", Judges.open(config, run.policy, reward))
        judges.note(run)
        prompts, entropy = run.remember("order", prompts), run.remember("entropy", EntropyControl(config.entropy))
        validation, counters = run.remember("watch", validation), run.remember_fields(Counters())
        # A reference that is never refreshed is the starting policy, which is loaded anew and needs no checkpoint.
        reference = run.remember("reference", Reference(run.policy)) if config.refreshes_reference else None
        run.begin(prompts.all_prompts(), config.sampling)
        store = RunStore.of(run, judges.optimised, config, counters.shards) if config.store else None

        while run.goes_on and not validation.stops:
            # 1. Sample, judge, and make advantages of the rewards. Every process has whole groups of its own.
            with run.full_weights():
                sampled = sample_phase(run.policy, judges.optimised, prompts, config, counters.phase, run.world)
                run.ledger.add(pictures_sampled=sampled.num_sampled, judge_calls=sampled.num_sampled, **sampled.spent)
                judges.refuse_missing_verdicts(sampled.verdicts, config, run.world)
                batch = with_old_log_probs(run, sampled.batch, config)

            # 2. Learn, in one optimiser step per minibatch and pass.
            learned = learn(run, batch, entropy, config)
            counters.phase += 1
            # `or 1` is for the type checker: with a reference to refresh the setting is a number.
            if reference and counters.phase % (config.refresh_reference_every or 1) == 0:
                with run.full_weights():
                    run.policy.make_reference()

            # 3. Validate, and write down what happened.
            row = phase_stats(sampled, config, run.world) | learned
            row |= validation.validate(run, judges.watched, counters.phase) | prompts.progress()
            row = run.log({"phase": counters.phase, **row}, SHOWN)
            counters.shards = store.append(batch) if store else 0
            is_logged = config.log_rollouts_every and (counters.phase - 1) % config.log_rollouts_every == 0
            if run.world.is_main and is_logged:
                log_groups(run, batch, config.log_groups)
            counters.flat_phases = 0 if row["advantage_std"] else counters.flat_phases + 1
            warn_of_trouble(run.display, row, counters.flat_phases, config)
            run.save_when_due(validation.score(row))
    return run.path


def with_old_log_probs(run: Run[Policy], batch: Batch, config: GrpoConfig) -> Batch:
    """Score the batch before the first step, if `old_log_probs=recomputed` needs a pass of its own for that.

    With a single step per phase it does not: the step's own forward pass gives them, see `grpo_loss`.
    """
    if config.old_log_probs == "sampled" or config.minibatches * config.passes == 1:
        return batch
    with run.clock("seconds_learning"):
        return dataclasses.replace(
            batch, old_log_probs=batched_log_probs(run.policy, batch.rollouts, config.micro_rows).log_probs
        )


def learn(run: Run[Policy], batch: Batch, entropy: EntropyControl, config: GrpoConfig) -> dict[str, float]:
    """Make the optimiser steps of a phase; returns its columns of metrics.jsonl, most of them means over the steps."""
    steps: list[dict[str, float]] = []  # what each step logs
    no_means: dict[str, float] = {}  # columns that are one step's
    with run.clock("seconds_learning"):
        for minibatch in batch.minibatches(config.minibatches, config.passes):
            # Over all processes: the loss divides by these, so that micro-batches and processes add up to one mean.
            counts = SegmentCounts(**run.world.add(dataclasses.asdict(minibatch.counts())))
            if counts.text + counts.image == 0:
                run.skip("a minibatch has no group with two verdicts")
                continue
            loss = partial(grpo_loss, run.policy, counts=counts, entropy_coefs=entropy.coefficients, config=config)
            update = run.update(loss, minibatch, config.sampling, may_be_flat=True)
            steps.append(update.sums | {"grad_norm": update.grad_norm} | entropy.update(update.sums, counts))
            # The first step's ratio_max_deviation and the last one's learning rate: only before the first step is the
            # policy the one that sampled, so that a ratio other than 1 tells sampler and trainer apart.
            no_means = {**update.highest, **no_means, "learning_rate": update.learning_rate}
            forwards = counts.sequences if config.beta > 0 and config.kl in KL else 0
            run.ledger.add(
                sequences_trained=counts.sequences,
                tokens_trained=counts.text + counts.image,
                reference_forwards=forwards,
            )
    return no_means | {name: sum(step[name] for step in steps) / len(steps) for name in (steps[0] if steps else ())}


def grpo_loss(
    policy: Policy, micro: Batch, *, counts: SegmentCounts, entropy_coefs: tuple[float, float], config: GrpoConfig
) -> Loss:
    """Compute a micro-batch's share of the step's loss: the clipped policy gradient, entropy and KL terms.

    micro: of rows that are in the loss; those that are not have been left out by `Batch.micro`.
    counts: trained tokens of the whole step, over all processes, which every micro-batch divides by.
    entropy_coefs: of text and of image tokens.
    """
    rollouts, scores = micro.rollouts, policy.log_probs(micro.rollouts)
    log_probs, mask, is_image = scores.log_probs, rollouts.mask, rollouts.is_image
    advantages, weights, old = micro.advantages, micro.token_weights, micro.old_log_probs
    if old is None:
        # `recomputed`, one step per phase: this pass is the recomputation, and all ratios are 1. `sampled`: the sampler's.
        old = log_probs.detach() if config.old_log_probs == "recomputed" else rollouts.log_probs
    assert advantages is not None, "GRPO learns from advantages"
    token_advantages = advantages.values if weights is None else advantages.values[:, None] * weights.advantage
    policy_loss = clipped_loss(
        log_probs, old, token_advantages, mask, is_image,
        variant=config.variant, clip_low=config.clip_low, clip_high=config.clip_high, cispo_max=config.cispo_max,
        text_weight=config.text_weight,
        image_weight=config.image_weight, counts=counts,
        text_budget=config.sampling.max_thought_tokens + 1,  # and begin-of-image, which ends a thought
        image_budget=policy.picture.num_tokens,
    )  # fmt: skip
    loss, entropy = policy_loss.loss, masked_modality_mean(scores.entropy, mask, is_image, counts)
    sums = {"entropy_text": entropy.text, "entropy_image": entropy.image}
    if any(entropy_coefs):  # a term of 0 would still cost its backward pass through all logits
        loss = loss + entropy_coefs[0] * entropy.text + entropy_coefs[1] * entropy.image
    if config.beta > 0 and config.kl in KL:
        with torch.no_grad(), policy.reference():
            reference = policy.log_probs(rollouts).log_probs
        # Importance-weighted, so that the gradient is that of the KL also when the policy has moved since it sampled.
        distance = (log_probs - old).exp().detach() * KL[config.kl](log_probs, reference)
        kl = masked_modality_mean(distance if weights is None else distance * weights.kl, mask, is_image, counts)
        loss = loss + config.beta * (kl.text + kl.image)
        sums |= {"kl_text": kl.text, "kl_image": kl.image}

    # Means of this micro-batch, each times its share of the step's tokens: these add up to the step's means.
    here = count_segments(mask, is_image)
    sums |= {
        "loss": loss,
        "ratio_mean": policy_loss.ratio_mean * ((here.text + here.image) / (counts.text + counts.image)),
        "clip_frac_text": policy_loss.text_clip_frac.nan_to_num() * (here.text / max(counts.text, 1)),
        "clip_frac_image": policy_loss.image_clip_frac.nan_to_num() * (here.image / max(counts.image, 1)),
    }
    # From the sampler's log-probs whatever `old` is: PolicyLoss has a ratio_max_deviation too, 0 where old is this pass.
    drift = (log_probs.detach() - rollouts.log_probs)[mask].exp() - 1
    return Loss(loss, sums, {"ratio_max_deviation": float(drift.abs().max()) if len(drift) else 0.0})


@dataclass
class Counters:
    """What a GRPO run counts from phase to phase; the fields are keys of its checkpoints.

    phase: phases done. shards: of the run's store. flat_phases: how many phases in a row, up to the last one, had no
    reward variance in any group.
    """

    phase: int = 0
    shards: int = 0
    flat_phases: int = 0


@dataclass(frozen=True)
class Reference:
    """The part of a checkpoint that holds the reference's weights, where it is no longer the starting policy."""

    policy: Policy

    def state_dict(self) -> State:
        return self.policy.reference_weights()

    def load_state_dict(self, state: State) -> None:
        self.policy.load_reference(state)
