"""`thinkdraw generate`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson, Checkpoint
from thinkdraw.cli.grammar.printing import print_rows
from thinkdraw.errors import printable


def generate(
    ckpt: Checkpoint,
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="What to draw; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    samples: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 4,
    thought: Annotated[str, typer.Option(help="inline, rewrite or off.")] = "inline",
    guidance_scale: Annotated[float, typer.Option(min=0.0)] = 1.0,
    temperature: Annotated[float, typer.Option(min=1e-3)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=1 << 62)] = 0,
    device: Annotated[str, typer.Option()] = "auto",
    json_: AsJson = False,
) -> None:
    """Draw prompts: PNG files, a contact sheet, and the thoughts.

    Example: thinkdraw generate lab -p "a photo of a red circle left of a blue star"
    """
    from thinkdraw.api import load_policy, rollout
    from thinkdraw.images import contact_sheet, to_png
    from thinkdraw.runtime.device import pick_device
    from thinkdraw.runtime.files import atomic_write_bytes, only_writer

    prompt = [_argument_text(text) for text in prompt]
    policy = load_policy(ckpt, device=str(pick_device(device)))
    rollouts = rollout(
        policy, prompt, group_size=samples, seed=seed, thought=thought, guidance_scale=guidance_scale, temperature=temperature
    )  # fmt: skip
    assert rollouts.pictures is not None
    pictures = rollouts.pictures.cpu().numpy()
    rows = []
    with only_writer(out):
        for index, picture in enumerate(pictures):
            path = out / f"{index // samples:05d}_{index % samples}.png"
            atomic_write_bytes(path, to_png(picture))
            rows.append(
                {"prompt": rollouts.prompts[index].text, "thought": rollouts.thoughts[index], "file": str(path)}
            )
        atomic_write_bytes(out / "sheet.png", to_png(contact_sheet(pictures, samples)))
    print_rows(rows, json_)


def _argument_text(text: str) -> str:
    """What was typed, which is UTF-8, also under a locale in which Python did not read it as such."""
    from thinkdraw.data.text_files import check_text

    return check_text(os.fsencode(text).decode("utf-8", "surrogateescape"), f"prompt {printable(text)[:80]!r}")
