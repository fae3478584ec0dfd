"""Pictures of prompts: PNG files, a contact sheet, and the thoughts.

    thinkdraw generate lab -p "a photo of a red circle" samples=4 thought=off

The settings are beside the pictures, in generate.yaml. The same call draws the same pictures again; a different call never
writes into the folder.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from thinkdraw.config import StrictModel, load_config, save_config
from thinkdraw.console import tell
from thinkdraw.errors import HeldError, UserError
from thinkdraw.images import contact_sheet, to_png
from thinkdraw.lab import checkpoint_path
from thinkdraw.policies import load_policy
from thinkdraw.policies.drawing import DRAWING, OVERRIDES, choose_drawing
from thinkdraw.policies.opening import policy_path
from thinkdraw.runtime.device import pick_device
from thinkdraw.runtime.files import atomic_write_bytes, only_writer
from thinkdraw.types import Prompt, SamplingOverrides

SETTINGS = "generate.yaml"
USUAL_FOLDER = "pictures"


class GenerateConfig(StrictModel):
    """What to draw, and how."""

    policy: str = Field(
        description="The policy that draws: checkpoint folder, run folder (its best checkpoint), model id, or `lab`."
    )
    prompts: list[str] = Field(min_length=1, description="What to draw, one text for each prompt; -p adds one.")
    out: Path | None = Field(
        default=None,
        description="Folder of the pictures. null is `pictures`, or `pictures-2`, `pictures-3` … where that is taken.",
    )
    samples: int = Field(default=4, ge=1, description="Pictures drawn for each prompt.")
    drawing: str | None = Field(default=None, description=DRAWING)
    sampling: SamplingOverrides = Field(default=SamplingOverrides(), description=OVERRIDES)
    seed: int = Field(
        default=0,
        ge=0,
        le=1 << 62,
        description="Seed of the pictures: the same seed, prompts and checkpoint give the same ones.",
    )
    device: str = Field(
        default="auto",
        description="Where the network runs: auto, cpu, cuda or mps. auto takes an accelerator where there is one.",
    )


def run(config: GenerateConfig, say: Callable[[str], None] = tell) -> list[dict[str, str]]:
    """Draw all prompts and return prompt, thought and file of each picture.

    say: prints how they are drawn, and how many thoughts were cut.
    Raises HeldError where `out` holds pictures of another call, and UserError.
    """
    out = _folder(config)
    policy = load_policy(policy_path(config.policy), device=str(pick_device(config.device)))
    prompts = [Prompt(text, id=str(i)) for i, text in enumerate(config.prompts)]
    drawing = choose_drawing(policy, config.sampling, config.drawing)
    say(f"{config.policy} {drawing.line()}")
    rollouts = policy.sample(prompts, drawing.sampling, group_size=config.samples, seed=config.seed)
    assert rollouts.pictures is not None
    pictures = rollouts.pictures.cpu().numpy()
    if num_cut := int(rollouts.text_was_cut().sum()):
        say(
            f"{num_cut} of {len(rollouts)} thoughts were cut at max_thought_tokens={drawing.sampling.max_thought_tokens}"
        )
    rows = []
    with only_writer(out):
        save_config(config.model_copy(update={"out": out}), out / SETTINGS)
        for index, picture in enumerate(pictures):
            path = out / f"{index // config.samples:05d}_{index % config.samples}.png"
            atomic_write_bytes(path, to_png(picture))
            rows.append(
                {"prompt": rollouts.prompts[index].text, "thought": rollouts.thoughts[index], "file": str(path)}
            )
        atomic_write_bytes(out / "sheet.png", to_png(contact_sheet(pictures, config.samples)))
    return rows


def unknown_words(policy: str, prompts: Sequence[str]) -> list[str]:
    """List the words of prompts that the lab's models have never read.

    Only for a checkpoint with the lab's vocabulary; of any other nothing is known.
    The lab's tokenizer has a token of its own for each word of its prompts, so an unknown word falls into several.
    """
    from tokenizers import Tokenizer

    theirs, ours = Path(policy_path(policy), "tokenizer.json"), checkpoint_path() / "tokenizer.json"
    if not theirs.is_file() or not ours.is_file():
        return []
    tokenizer = Tokenizer.from_file(str(ours))
    if Tokenizer.from_file(str(theirs)).get_vocab() != tokenizer.get_vocab():
        return []
    words = dict.fromkeys(word for text in prompts for word in re.findall(r"(?<![\w-])[^\W\d_]+(?![\w-])", text))
    return [word for word in words if len(tokenizer.encode(f" {word}", add_special_tokens=False).ids) > 1]


def _folder(config: GenerateConfig) -> Path:
    if config.out is not None:
        if not _is_free(config.out, config):
            raise HeldError(f"{config.out} holds pictures of another call. Choose another folder: -o FOLDER.")
        return config.out
    names = (Path(USUAL_FOLDER), *(Path(f"{USUAL_FOLDER}-{number}") for number in range(2, 1000)))
    for folder in names:
        if _is_free(folder, config):
            return folder
    raise UserError(f"{USUAL_FOLDER} and {names[-1]} and all between hold pictures. Choose a folder: -o FOLDER.")


def _is_free(folder: Path, config: GenerateConfig) -> bool:
    """Tell whether a folder holds no pictures, or those of this very call."""
    if not any(itertools.islice(folder.glob("*.png"), 1)):
        return True
    if not (folder / SETTINGS).is_file():
        return False
    try:
        before = load_config(GenerateConfig, folder / SETTINGS)
    except UserError:  # of another version
        return False
    return before.model_copy(update={"out": None}) == config.model_copy(update={"out": None})
