"""`thinkdraw corpus …`: a corpus of rationales, written, shown, counted and tokenised."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.errors import UserError

corpus_app = typer.Typer(no_args_is_help=True, help="Have a teacher write rationales, and look at what it wrote.")

Folder = Annotated[Path, typer.Argument(help="A corpus folder, or a .parquet file of one.")]
_QUANTILES = {"words: median": "median", "5 %": "p5", "95 %": "p95"}
WRITES = ("corpus", "verifier_data")


@corpus_app.command()
def write(
    config: Annotated[str, typer.Argument(help="Name of a shipped configuration, or a YAML file.")],
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, for instance limits.max_money=20.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Ask a teacher about every picture or prompt; a stopped run goes on and pays for nothing twice.

    Example: thinkdraw corpus write lab_corpus out=runs/mine source.count=200
    """
    from thinkdraw.config import dump_config
    from thinkdraw.recipes.catalog import read_config, run_config

    resolved = read_config(config, override or [])
    recipe = getattr(resolved, "recipe", "")
    if recipe not in WRITES:
        raise UserError(
            f"config {config} is of recipe {recipe}, which writes no corpus. Choose one of {', '.join(WRITES)}."
        )
    print(dump_config(resolved) if dry_run else f"corpus: {run_config(resolved)}")


@corpus_app.command()
def show(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="The page; sample.html in the folder if not given.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Rows, chosen at random.")] = 40,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write a browsable sample: one HTML page with pictures, prompts and rationales.

    Example: thinkdraw corpus show runs/lab_corpus --count 20
    """
    from thinkdraw.corpus.show import write_page

    print(write_page(folder, out or (folder if folder.is_dir() else folder.parent) / "sample.html", count, seed))


@corpus_app.command()
def stats(
    folder: Folder, json_: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False
) -> None:
    """Rows, words per field, how varied the words are, and what was left out.

    Example: thinkdraw corpus stats runs/lab_corpus
    """
    from thinkdraw.console import print_rows
    from thinkdraw.corpus.stats import corpus_stats

    found = corpus_stats(folder)
    if json_:
        print(json.dumps(found, indent=2))
        return
    rows = []
    for name, row in found["fields"].items():
        words = {title: f"{row['words'][key]:.0f}" for title, key in _QUANTILES.items()}
        rows.append({"field": name, **words, "values": f"{row['values']:.1f}"})
    if rows:
        print_rows(rows)
    for name, row in found["diversity"].items():
        print(f"{name}: distinct 2-grams {row['distinct_2']:.3f}, distance {row['jaccard_distance']:.3f}")
    print(
        f"{found['rows']} rows, {found['pictures']} pictures, {found['shards']} shards, {found['bytes'] / 1e6:.1f} MB"
    )
    for name in ("filtered", "rejected"):
        if found[name]:
            print(f"{name}: " + ", ".join(f"{count} {reason}" for reason, count in sorted(found[name].items())))


@corpus_app.command()
def tokenise(
    folder: Folder,
    policy: Annotated[str, typer.Option(help="Checkpoint whose tokens are wanted: a folder, an id, or `lab`.")] = "lab",
    device: Annotated[str, typer.Option()] = "auto",
    ground: Annotated[str, typer.Option(help="Behind what is transparent: a colour's name or #rrggbb.")] = "white",
    max_megapixels: Annotated[float, typer.Option(help="A larger picture is not read.")] = 89.0,
) -> None:
    """Turn pictures into image tokens, once: SFT then reads no pixels. A stopped run goes on.

    Example: thinkdraw corpus tokenise runs/lab_corpus --policy lab
    """
    from thinkdraw.config import load_config
    from thinkdraw.data.corpus_tokens import tokenise as tokens_of
    from thinkdraw.data.corpus_tokens import tokens_folder
    from thinkdraw.picture_reader import PictureReaderConfig, format_counts
    from thinkdraw.policies.opening import load_trained
    from thinkdraw.runtime.device import pick_device
    from thinkdraw.training.corpus_examples import encoder_of

    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: tokens are kept beside the shards. Give the corpus folder.")
    reading = load_config(
        PictureReaderConfig, None, [f"ground={json.dumps(ground)}", f"max_megapixels={max_megapixels}"]
    )
    encoder = encoder_of(load_trained(policy, device=str(pick_device(device)), precision="fp32"), reading)
    rows, missing, notes = 0, 0, Counter[str]()
    for _, tokens in tokens_of(folder, tokens_folder(folder, encoder), encoder):
        rows += len(tokens.crop)
        missing += int((tokens.crop[:, 2] == 0).sum())
        notes += tokens.notes
    print(f"{rows} rows, {missing} without a readable picture: {tokens_folder(folder, encoder)}")
    if notes:
        print(f"pictures: {format_counts(notes)}")
