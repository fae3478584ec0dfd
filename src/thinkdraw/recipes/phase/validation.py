"""Validation on fixed prompts and seeds, by the optimised reward and by monitors."""

from collections.abc import Mapping, Sequence

import numpy as np

from thinkdraw.data.leak_guard import text_key
from thinkdraw.data.tables import print_counts
from thinkdraw.policies.sampling.noise import derive_seeds
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.monitor import OPTIMISED, OveroptimisationMonitor, Scores
from thinkdraw.runtime.checkpoint import State
from thinkdraw.training.data import load_prompts, prompts_input, prompts_that_fit
from thinkdraw.training.run import Run
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Prompt, Reward, Sampling


class Validation:
    """Fixed prompts, drawn every few phases with the same seeds and judged.

    All rewards of the run judge them.
    """

    def __init__(self, config: GrpoConfig) -> None:
        """Read the prompts. Raises UserError for prompts that cannot be read."""
        self.config, self.settings = config, config.validation
        self.prompts = load_prompts(self.settings.prompts, config.out) if self.settings.every else []
        source, count, read = self.settings.prompts.named, self.settings.prompts.count, len(self.prompts)
        if source != "lab" and read > count:
            self.prompts = [self.prompts[i * read // count] for i in range(count)]
            print_counts(f"validation prompts of {source}", {"read": read, "used, spread evenly": count})
        self.monitor = OveroptimisationMonitor(self.settings)

    def warn_of_shared_prompts(self, training: Sequence[Prompt]) -> None:
        """Warn of validation prompts that are also trained on.

        They favour the checkpoint that has memorised them, and validation chooses the best checkpoint.
        """
        if self.settings.prompts.source == "lab":  # its splits share no prompt
            return
        trained = {text_key(prompt.text) for prompt in training}
        if shared := sum(text_key(prompt.text) in trained for prompt in self.prompts):
            source = f"validation prompts of {self.settings.prompts.named}"
            print_counts(
                source,
                {"read": len(self.prompts), "of them trained on: the best checkpoint is chosen by these too": shared},
            )

    def fit_to_policy(self, run: Run[Policy]) -> None:
        """Drop or cut prompts that are too long for the policy; note the rest as inputs."""
        if self.prompts:
            key, settings = "validation.prompts", self.settings.prompts
            self.prompts = prompts_that_fit(run.policy, self.prompts, settings, self.config.sampling, key)
            run.note(f"{key}.source", prompts_input(self.prompts, settings.named))

    @property
    def should_stop(self) -> bool:
        """Whether reward and monitor have diverged often enough to end the run."""
        return self.monitor.should_stop

    def validate(self, run: Run[Policy], rewards: Mapping[str, Reward], phase: int) -> dict[str, float | None]:
        """Validate if due after this phase; warn if reward and monitor have diverged.

        Validation is due every few phases and after the last one, so that the last checkpoint can be chosen as the best.
        Returns columns of metrics.jsonl.
        """
        if not self.settings.every or (run.goes_on and phase % self.settings.every):
            return {}
        with run.full_weights():
            scores = mean_rewards(run.policy, rewards, self.prompts, self.config.sampling, self.config.seed, run.world)
        run.ledger.add(pictures_validated=len(self.prompts))
        if warning := self.monitor.update(scores, run.step):
            run.display.warn("parted", warning)
        return scores | ({"parted": self.monitor.num_diverged} if self.settings.monitors else {})

    def score(self, row: Mapping[str, float | None]) -> float | None:
        """Return the score that chooses the best checkpoint; None without a validation."""
        return row.get(f"monitor/{self.settings.best_by}" if self.settings.best_by else OPTIMISED)

    def state_dict(self) -> State:
        return self.monitor.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.monitor.load_state_dict(state)


def mean_rewards(
    policy: Policy,
    rewards: Mapping[str, Reward],
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    world: World,
) -> Scores:
    """Average each reward over one rollout per prompt, always with the same seeds.

    None for a reward without any verdict.
    """
    mine = world.share(len(prompts))
    sums = {f"{name}/{what}": 0.0 for name in rewards for what in ("total", "count")}
    if len(mine):
        # Three words, where training phases have two, [seed, phase]: validation never draws a training rollout.
        base = np.random.SeedSequence([seed, 0, 1]).generate_state(1)[0]
        seeds = derive_seeds(int(base), len(prompts), 1)[mine.start : mine.stop]
        rollouts = policy.sample([prompts[i] for i in mine], sampling, seeds=seeds)
        for name, reward in rewards.items():
            values = reward(rollouts).rewards.double()
            sums[f"{name}/total"], sums[f"{name}/count"] = float(values.nansum()), int((~values.isnan()).sum())
    sums = world.sum(sums)
    return {name: sums[f"{name}/total"] / n if (n := sums[f"{name}/count"]) else None for name in rewards}
