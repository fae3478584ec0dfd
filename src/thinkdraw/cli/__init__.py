"""The command line: one file for each verb.

Verbs import what they need when they run, so that `--help` answers at once.
"""

import sys
from typing import Annotated

import typer

from thinkdraw.cli.check import check
from thinkdraw.cli.compare import compare
from thinkdraw.cli.corpus.verbs import corpus_app
from thinkdraw.cli.evaluate.thoughts import thoughts
from thinkdraw.cli.evaluate.verb import evaluate
from thinkdraw.cli.evidence import evidence
from thinkdraw.cli.explain import explain
from thinkdraw.cli.export import export
from thinkdraw.cli.generate import generate
from thinkdraw.cli.grammar.verb_group import LongVerb, Verb, VerbGroup
from thinkdraw.cli.listing import list_
from thinkdraw.cli.plan import plan
from thinkdraw.cli.prompts.verbs import prompts_app
from thinkdraw.cli.quickstart import quickstart
from thinkdraw.cli.report import report
from thinkdraw.cli.serve import serve
from thinkdraw.cli.store.sample import sample
from thinkdraw.cli.store.score import score
from thinkdraw.cli.store.verbs import store_app
from thinkdraw.cli.sweep import sweep
from thinkdraw.cli.train import train
from thinkdraw.errors import UserError, printable, refuse_several_processes

app = typer.Typer(
    cls=VerbGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train image generators that think before they draw. Start with: thinkdraw quickstart. "
    "Settings are key=value everywhere: thinkdraw VERB TARGET… key=value….",
)

# Panel of the help page → its verbs, in the order of a project.
VERBS = {
    "Start": {"quickstart": quickstart, "generate": generate, "list": list_, "explain": explain, "check": check},
    "Train": {"train": train, "sweep": sweep, "plan": plan, "evidence": evidence},
    "Sample and judge": {"sample": sample, "score": score, "store": store_app, "serve": serve},
    "Evaluate": {"eval": evaluate, "compare": compare, "thoughts": thoughts, "report": report, "export": export},
    "Data": {"prompts": prompts_app, "corpus": corpus_app},
}
LONG = (quickstart, evidence, train, sweep, sample, score, evaluate, compare)
for panel, verbs in VERBS.items():
    for name, verb in verbs.items():
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, rich_help_panel=panel)
        else:
            app.command(name=name, cls=LongVerb if verb in LONG else Verb, rich_help_panel=panel)(verb)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from thinkdraw import __version__

        print(f"thinkdraw {__version__}")
        raise typer.Exit


@app.callback()
def before_any_verb(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Refuse several processes for all verbs but `train`, which divides its work."""
    if context.invoked_subcommand != "train":
        refuse_several_processes(f"thinkdraw {context.invoked_subcommand}")


def main() -> None:
    """Entry point: what a user can fix is one line on standard error and exit code 2."""
    from thinkdraw.console import escape_unprintable_output

    escape_unprintable_output()
    try:
        app()
    except UserError as error:
        from thinkdraw.runtime.endpoints import mask_secrets

        print(f"thinkdraw: {printable(mask_secrets(str(error)))}", file=sys.stderr)
        sys.exit(2)
