"""OpenVLThinker's loop: RL, keep the best rollouts, SFT on them, RL again.

    thinkdraw train lab_iterate policy=runs/quickstart/sft

Each round trains by RL and samples from the result. SFT teaches the best rollouts to a fresh copy of the *original* policy,
from which the next round's RL starts, usually on harder prompts. The last round ends with RL.
Deng et al. 2025 (arXiv 2503.17352). A loop that was stopped goes on; finished stages are not run again.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from thinkdraw.config import StrictModel, save_config
from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes import sample as sampling
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.recipes.sample import SampleConfig
from thinkdraw.runtime.files import only_writer_of_out


class RoundSettings(StrictModel):
    """Overrides of one round's configurations, as on the command line."""

    grpo: list[str] = Field(
        default=[], description="Settings of this round's RL as key.sub=value, in place of those of its configuration."
    )
    rejection: list[str] = Field(
        default=[], description="Settings of the SFT that follows this round's RL, as key.sub=value."
    )


class IterateConfig(StrictModel):
    """Settings of the loop: its stages' configurations, and each round's overrides."""

    recipe: Literal["iterate"] = Field(
        default="iterate", description="Names the recipe that this configuration is for; always `iterate`."
    )
    out: Path = Field(
        default=Path("runs/lab_iterate"),
        description="Folder of the loop; each round has folders for RL, store and SFT in it, and what is "
        "finished is not run again.",
    )
    policy: str = Field(
        default="lab",
        description="The original policy, which every round's SFT starts from again: checkpoint folder, run "
        "folder (its best checkpoint), model id, or `lab`.",
    )
    rounds: list[RoundSettings] = Field(
        default=[RoundSettings(), RoundSettings()],
        min_length=1,
        description="One entry for each round of RL, with the settings that it changes (OpenVLThinker, arXiv "
        "2503.17352).",
    )
    grpo: str = Field(default="lab_grpo", description="Configuration of the RL: a shipped name or a YAML file.")
    rejection: str = Field(
        default="lab_rejection", description="Configuration of the SFT on good rollouts: a shipped name or a YAML file."
    )
    sample: SampleConfig = Field(
        default=SampleConfig(rewards=["lab-detector"]),
        description="How the reinforced policy samples the rollouts that SFT chooses from. Its out, policy and "
        "seed are set by the loop.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the first round; each later round adds to it.")


@only_writer_of_out
def run(config: IterateConfig) -> Path:
    """Run the rounds; return the run folder of the last RL stage. Raises UserError."""
    save_config(config, config.out / "config.yaml")
    start = config.policy  # what the round's RL starts from
    reinforced = Path(start)  # the run folder of the latest RL
    for number, settings in enumerate(config.rounds):
        folder = config.out / f"round_{number:03d}"
        if number:
            previous = config.out / f"round_{number - 1:03d}"
            store = sampling.run(
                config.sample.model_copy(
                    update={
                        "out": previous / "store",
                        "policy": policy_path(str(reinforced)),
                        "seed": config.seed + 1000 * number,
                    }
                )
            )
            # SFT of the original policy, not of the reinforced one, as in the paper.
            sft = [f"out={previous / 'sft'}", f"policy={config.policy}", f"store={store}", f"seed={config.seed}"]
            start = str(run_config(read_config(config.rejection, [*sft, *config.rounds[number - 1].rejection])))
        rl = [f"out={folder / 'rl'}", f"policy={start}", f"seed={config.seed + number}"]
        reinforced = run_config(read_config(config.grpo, [*rl, *settings.grpo]))
    return reinforced
