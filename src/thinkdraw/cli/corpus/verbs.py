"""`thinkdraw corpus …`: rationales, written, shown, counted and tokenised."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import configs, paths
from thinkdraw.cli.grammar.options import AsJson, Count, DryRun, Out
from thinkdraw.cli.grammar.printing import print_rows
from thinkdraw.cli.grammar.verb_group import LongVerb, Verb
from thinkdraw.errors import UserError

corpus_app = typer.Typer(no_args_is_help=True, help="Have a teacher write rationales, and look at what it wrote.")

_FOLDER = "A corpus folder, or a .parquet file of one"
_QUANTILES = {"words: median": "median", "5 %": "p5", "95 %": "p95"}
WRITES = ("corpus", "verifier_data")


@corpus_app.command(cls=LongVerb)
def write(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG KEY=VALUE…",
            help="Name of a shipped configuration, or a YAML file; then settings: source.count=200, limits.max_money=20.",
            autocompletion=configs,
        ),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Ask a teacher about every picture or prompt.

    A stopped run goes on and pays for nothing twice.

    Example: thinkdraw corpus write lab_corpus -o runs/mine source.count=200
    """
    from thinkdraw.cli.grammar.reading import named_config, print_config
    from thinkdraw.recipes.catalog import run_config

    config = named_config(words, out, "thinkdraw corpus write lab_corpus")
    recipe = getattr(config, "recipe", "")
    if recipe not in WRITES:
        raise UserError(
            f"this configuration is of recipe {recipe}, which writes no corpus. Choose one of {', '.join(WRITES)}."
        )
    if dry_run:
        return print_config(config)
    print(f"corpus: {run_config(config)}")


@corpus_app.command(cls=Verb)
def show(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="FOLDER KEY=VALUE…", help=f"{_FOLDER}; then settings: seed=1.", autocompletion=paths),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The page; sample.html in the folder if not given."),
    ] = None,
    count: Count = None,
    dry_run: DryRun = False,
) -> None:
    """Write a browsable sample: one HTML page with pictures, prompts and rationales.

    Example: thinkdraw corpus show runs/lab_corpus -n 20
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.corpus.show import ShowConfig, write_page

    config = read(ShowConfig, words, ("folder",), {"out": out, "count": count})
    if dry_run:
        return print_config(config)
    folder = config.folder if config.folder.is_dir() else config.folder.parent
    print(write_page(config.folder, config.out or folder / "sample.html", config.count, config.seed))


@corpus_app.command(cls=Verb)
def stats(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help=f"{_FOLDER}.", autocompletion=paths)],
    json_: AsJson = False,
) -> None:
    """Count rows and words, say how varied the words are, and what was left out.

    Example: thinkdraw corpus stats runs/lab_corpus
    """
    from thinkdraw.corpus.stats import corpus_stats

    summary = corpus_stats(folder)
    if json_:
        print(json.dumps(summary, indent=2))
        return
    rows = []
    for name, row in summary["fields"].items():
        quantiles = {title: f"{row['words'][key]:.0f}" for title, key in _QUANTILES.items()}
        rows.append({"field": name, **quantiles, "values": f"{row['values']:.1f}"})
    if rows:
        print_rows(rows, False)
    for name, row in summary["diversity"].items():
        print(f"{name}: distinct 2-grams {row['distinct_2']:.3f}, distance {row['jaccard_distance']:.3f}")
    megabytes = summary["bytes"] / 1e6
    print(f"{summary['rows']} rows, {summary['pictures']} pictures, {summary['shards']} shards, {megabytes:.1f} MB")
    for name in ("filtered", "rejected"):
        if summary[name]:
            print(f"{name}: " + ", ".join(f"{count} {reason}" for reason, count in sorted(summary[name].items())))


@corpus_app.command(cls=LongVerb)
def tokenise(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER KEY=VALUE…",
            help="A corpus folder; then settings: policy=runs/mine, device=cuda, pictures.ground=black.",
            autocompletion=paths,
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Turn pictures into image tokens, once: SFT then reads no pixels.

    A stopped run goes on.

    Example: thinkdraw corpus tokenise runs/lab_corpus policy=lab
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.data.corpus_tokens import TokeniseConfig, tokens_folder
    from thinkdraw.data.corpus_tokens import tokenise as tokens_of
    from thinkdraw.picture_reader import format_counts
    from thinkdraw.policies.opening import load_trained
    from thinkdraw.runtime.device import pick_device
    from thinkdraw.training.corpus_examples import encoder_of

    config = read(TokeniseConfig, words, ("folder",))
    if dry_run:
        return print_config(config)
    if not config.folder.is_dir():
        raise UserError(f"{config.folder} is not a folder: tokens are kept beside the shards. Give the corpus folder.")
    policy = load_trained(config.policy, device=str(pick_device(config.device)), precision="fp32")
    encoder = encoder_of(policy, config.pictures)
    folder = tokens_folder(config.folder, encoder)
    rows, missing, notes = 0, 0, Counter[str]()
    for _, tokens in tokens_of(config.folder, folder, encoder):
        rows += len(tokens.crop)
        missing += int((tokens.crop[:, 2] == 0).sum())
        notes += tokens.notes
    print(f"{rows} rows, {missing} without a readable picture: {folder}")
    if notes:
        print(f"pictures: {format_counts(notes)}")
