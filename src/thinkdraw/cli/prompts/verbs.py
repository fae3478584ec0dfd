"""`thinkdraw prompts …`: prompt sets made, and checked against test sets."""

import json
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import paths
from thinkdraw.cli.grammar.options import AsJson, Count, DryRun, Out
from thinkdraw.cli.grammar.printing import print_rows
from thinkdraw.cli.grammar.verb_group import Verb

prompts_app = typer.Typer(no_args_is_help=True, help="Make prompt sets, and keep test prompts out of training.")


@prompts_app.command(name="make", cls=Verb)
def make_prompts(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE…",
            help="Settings: style=compbench (geneval, lab-geneval, lab-compbench, lab-dense), scales=[0.5,1,2], "
            "against=[geneval/evaluation_metadata.jsonl], paraphrase.base_url=URL paraphrase.model=NAME.",
        ),
    ] = None,
    out: Out = None,
    count: Count = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Write sets of prompts with clauses and questions, nested in size, and a card.

    Example: thinkdraw prompts make -o prompts/mine -n 500 style=compbench scales=[0.5,1,2]
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.data import prompt_sets

    config = read(prompt_sets.PromptSetConfig, words, (), {"out": out, "count": count})
    if dry_run:
        return print_config(config)
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


@prompts_app.command(name="check", cls=Verb)
def check_leaks(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPTS against=[FILE,…]",
            help="A prompt file, or a folder with one; then the test sets.",
            autocompletion=paths,
        ),
    ] = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Look for test prompts among training prompts; exit code 1 if there is any.

    Example: thinkdraw prompts check prompts/mine against=[geneval/evaluation_metadata.jsonl]
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.data.leak_guard import LeakConfig, find_leaks
    from thinkdraw.data.prompt_files import read_prompts, read_training_prompts
    from thinkdraw.data.test_sets.hashes import PUBLISHED, published_tests_among

    config = read(LeakConfig, words, ("train",))
    if dry_run:
        return print_config(config)
    prompts, rows, leaking = read_training_prompts(config.train), [], set()
    for index, name in published_tests_among(prompts).items():
        leaking.add(index)
        ours = prompts[index]
        # The test prompt's text is not known, only its hash.
        rows.append(
            {"train": ours.id, "prompt": ours.text, "test": "", "test prompt": "", "file": name, "reason": PUBLISHED}
        )
    for path in config.against:
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
        print(f"{len(leaking)} of {len(prompts)} prompts of {config.train} are test prompts")
    if rows:
        raise typer.Exit(1)
