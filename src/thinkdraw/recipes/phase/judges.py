"""The rewards of a run: the optimised one, and monitors that are only watched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.monitor import OPTIMISED
from thinkdraw.rewards.judges_of import failure_summary
from thinkdraw.rewards.judging import refuse_unfit_prompts
from thinkdraw.rewards.opening import open_reward
from thinkdraw.rewards.revision import judges_revision, refuse_changed_judges, user_code_files
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.runtime.checkpoint import State
from thinkdraw.runtime.inputs.run_inputs import Input
from thinkdraw.training.run import Run
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Prompt, Reward, Verdicts


@dataclass(frozen=True)
class Judges:
    """The opened rewards of a run, with their judges' revisions for checkpoints.

    optimised: the reward that is learned from. watched: column of metrics.jsonl → reward to validate with, including the
    optimised one. run_folder: for the error of a run that goes on with other judges.
    """

    optimised: Reward
    watched: Mapping[str, Reward]
    run_folder: Path

    @staticmethod
    def open(config: GrpoConfig, policy: Policy, reward: Reward | None = None) -> "Judges":
        """Open the rewards that the configuration names.

        policy: the starting policy, for the judge `self`, which is a copy of it. reward: replaces the optimised one.
        Raises UserError for a reward or judge that cannot be opened.
        """
        optimised = as_reward(reward) if reward else open_reward(config.reward.name, policy, **config.reward.settings)
        monitors = {
            f"monitor/{m.column}": open_reward(m.name, policy, **m.settings) for m in config.validation.monitors
        }
        return Judges(optimised, {OPTIMISED: optimised, **monitors}, config.out)

    def note_user_code(self, run: Run[Policy]) -> None:
        """Note the user's own reward code as an input of the run.

        A run that goes on must have the same inputs.
        """
        for name, reward in self.watched.items():
            if files := user_code_files(reward):
                setting = "reward.name" if name == OPTIMISED else f"validation.monitors {reward.name}"
                named = f"{reward.name} ({', '.join(map(str, files))})"
                run.note(setting, Input.of(named, (file.read_bytes() for file in files)))

    def state_dict(self) -> State:
        """Map each reward's name to the revision of its judges.

        None for rewards that ask no judge, such as rules.
        """
        return self._revisions(former=False)

    def _revisions(self, former: bool) -> State:
        return {
            name.replace(OPTIMISED, self.optimised.name): judges_revision(reward, former=former)
            for name, reward in self.watched.items()
        }

    def load_state_dict(self, state: State) -> None:
        """Raise UserError if a reward's judges have changed since the run began.

        Its verdicts would not be comparable.
        """
        # Older versions computed revisions in another way (`former`): a revision of theirs that still fits is the same judge.
        now, former = self.state_dict(), self._revisions(former=True)
        began = {name: now.get(name) if revision == former.get(name) else revision for name, revision in state.items()}
        refuse_changed_judges(began, now, self.run_folder)

    def refuse_missing_verdicts(self, verdicts: Verdicts, config: GrpoConfig, world: World) -> None:
        """Raise UserError if too many of the phase's rollouts have no verdict.

        The limit is `max_no_verdict_frac`, counted over all processes. Such rows are left out of the loss, so a broken judge
        would otherwise go unnoticed.
        """
        rows = world.sum({"missing": float(verdicts.missing.sum()), "all": len(verdicts)})
        if (frac := rows["missing"] / rows["all"]) > config.max_no_verdict_frac:
            reasons = failure_summary(self.optimised, verdicts.notes)
            raise UserError(
                f"reward {self.optimised.name} gave no verdict (NaN) for {frac:.0%} of a phase's rollouts, more than "
                f"max_no_verdict_frac={config.max_no_verdict_frac:g}{f' ({reasons})' if reasons else ''}. Look at its "
                "judge, or raise the limit."
            )


def refuse_photographs(config: GrpoConfig, prompts: Sequence[Prompt]) -> None:
    """Raise UserError where the lab's detector would judge prompts of another world.

    It is the default reward, and has no model: so this is known before the policy is loaded.
    """
    if config.reward.name == "lab-detector":
        refuse_unfit_prompts(open_reward(config.reward.name, **config.reward.settings), prompts)
