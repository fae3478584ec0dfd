"""`thinkdraw prompts …`: prompt sets made, and checked against test sets."""

import json
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson
from thinkdraw.cli.grammar.printing import print_rows
from thinkdraw.errors import UserError

prompts_app = typer.Typer(no_args_is_help=True, help="Make prompt sets, and keep test prompts out of training.")


@prompts_app.command(name="make")
def make_prompts(
    out: Annotated[Path, typer.Option(help="Folder for the set; an older set there is replaced.")],
    style: Annotated[
        str, typer.Option(help="geneval, compbench, lab-geneval, lab-compbench or lab-dense.")
    ] = "geneval",
    count: Annotated[int, typer.Option(min=1, help="Prompts of the set at scale 1.")] = 2000,
    scales: Annotated[str, typer.Option(help="Nested sets in units of count, as 0.25,0.5,1,2,4.")] = "1",
    against: Annotated[
        list[Path] | None, typer.Option(help="A test set to keep out; may be given several times.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible URL of a model that finds other words; with --model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Its name there.")] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable with its key; OPENAI_API_KEY goes to OpenAI alone.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Write prompts with clauses and questions from templates, nested in size, and a card of what is in them.

    Example: thinkdraw prompts make --out prompts/mine --style compbench --count 500 --scales 0.5,1,2
    """
    from thinkdraw.config import load_config
    from thinkdraw.data import prompt_sets

    if (endpoint is None) != (model is None):
        raise UserError("--endpoint and --model belong together: give both, or neither.")
    given = {"out": str(out), "style": style, "count": count, "against": [str(path) for path in against or []]}
    given |= {"seed": seed} | (
        {"paraphrase": {"base_url": endpoint, "model": model, "key_env": key_env}} if endpoint else {}
    )
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    config = load_config(prompt_sets.PromptSetConfig, None, [*overrides, f"scales=[{scales}]"])
    report = prompt_sets.make_prompt_set(config)
    if json_:
        print((report.folder / prompt_sets.CARD).read_text(encoding="utf-8"), end="")
        return
    print_rows(
        [
            {"file": f.file, "prompts": f.count, "nouns": f.diversity.nouns, "attributes": f.diversity.attributes,
             "distinct 2-grams": f"{f.diversity.distinct_2:.3f}", "distance": f"{f.diversity.jaccard_distance:.3f}"}
            for f in report.files
        ],
        False,
    )  # fmt: skip
    for path, dropped in report.dropped.items():
        print(f"{dropped} prompts left out that are in {path}")
    if report.paraphrases:
        print(f"paraphrases: {json.dumps(report.paraphrases)}")
    print(f"prompt set: {report.folder}")


@prompts_app.command(name="check")
def check_leaks(
    train: Annotated[Path, typer.Argument(help="A prompt file, or a folder with one.")],
    against: Annotated[list[Path], typer.Option(help="A test set; may be given several times.")],
    json_: AsJson = False,
) -> None:
    """Which training prompts are test prompts? Exit code 1 if any is.

    Example: thinkdraw prompts check prompts/mine --against geneval/evaluation_metadata.jsonl
    """
    from thinkdraw.data.leak_guard import find_leaks
    from thinkdraw.data.prompt_files import read_prompts

    prompts, rows, leaking = read_prompts(train), [], set()
    for path in against:
        test = read_prompts(path)
        for leak in find_leaks(prompts, test):
            ours, theirs = prompts[leak.train], test[leak.test]
            leaking.add(leak.train)
            rows.append(
                {"train": ours.id, "prompt": ours.text, "test": theirs.id, "test prompt": theirs.text,
                 "file": str(path), "reason": leak.reason}
            )  # fmt: skip
    if json_:
        print(json.dumps(rows, indent=2))
    else:
        if rows:
            print_rows(rows, False)
        print(f"{len(leaking)} of {len(prompts)} prompts of {train} are test prompts")
    if rows:
        raise typer.Exit(1)
