"""The command line: one file for each verb.

Verbs import what they need when they run, so that `--help` answers at once.
"""

import sys

import typer

from thinkdraw.cli.check import check
from thinkdraw.cli.compare import compare
from thinkdraw.cli.corpus.verbs import corpus_app
from thinkdraw.cli.evaluate.thoughts import thoughts
from thinkdraw.cli.evaluate.verb import evaluate
from thinkdraw.cli.evidence import evidence
from thinkdraw.cli.explain import explain
from thinkdraw.cli.generate import generate
from thinkdraw.cli.listing import list_
from thinkdraw.cli.plan import plan
from thinkdraw.cli.prompts.verbs import prompts_app
from thinkdraw.cli.quickstart import quickstart
from thinkdraw.cli.report import report
from thinkdraw.cli.sample import sample
from thinkdraw.cli.score import score
from thinkdraw.cli.serve import serve
from thinkdraw.cli.store.verbs import store
from thinkdraw.cli.sweep import sweep
from thinkdraw.cli.train import train
from thinkdraw.errors import UserError, printable, refuse_several_processes
from thinkdraw.runtime.endpoints import mask_secrets

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train image generators that think before they draw. Start with [bold]thinkdraw quickstart[/bold].",
)

for verb in (quickstart, evidence, train, generate):
    app.command()(verb)
app.command(name="eval")(evaluate)
for verb in (thoughts, check, report, sweep, compare, sample, score, store, plan, serve):
    app.command()(verb)
app.add_typer(prompts_app, name="prompts")
app.add_typer(corpus_app, name="corpus")
app.command(name="list")(list_)
app.command()(explain)


@app.callback()
def before_any_verb(context: typer.Context) -> None:
    """Refuse several processes for all verbs but `train`, which divides its work."""
    if context.invoked_subcommand != "train":
        refuse_several_processes(f"thinkdraw {context.invoked_subcommand}")


def main() -> None:
    """Entry point: what a user can fix is one line on standard error and exit code 2."""
    from thinkdraw.console import print_what_the_console_can

    print_what_the_console_can()
    try:
        app()
    except UserError as error:
        print(f"thinkdraw: {printable(mask_secrets(str(error)))}", file=sys.stderr)
        sys.exit(2)
