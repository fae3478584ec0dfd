"""The root of the command line and its verbs, with wrong usage in one line."""

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from thinkdraw.cli.grammar.old_flags import translate
from thinkdraw.errors import UserError, printable

# The error of all wrong usage. Typer brings its own copy of click, and exports this subclass alone.
_UsageError: Any = typer.BadParameter.__mro__[1]


class Verb(TyperCommand):
    """A verb, whose usage line and help show its words as they are written."""

    def get_help(self, ctx: typer.Context) -> str:
        """Print the help page.

        Brackets are escaped: to rich, `rewards=[clip]` would be markup, and be shown as `rewards=`.
        """
        for shown in (self, *self.params):
            if text := getattr(shown, "help", None):
                vars(shown)["help"] = text.replace(r"\[", "[").replace("[", r"\[")
        return super().get_help(ctx)

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:
        """Return what stands behind the verb's name in its usage line."""
        words = [param.metavar for param in self.params if param.param_type_name == "argument" and param.metavar]
        return [*words, "[OPTIONS]"]

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Raise UserError for an option that the verb does not have, or that has no value."""
        if not ctx.resilient_parsing:
            options = [param for param in self.params if isinstance(param, TyperOption)]
            _refuse_unknown_options(ctx.command_path, options, args)
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            message = str(error.format_message()).rstrip(".")
            raise UserError(f"{message}. `{ctx.command_path} --help` shows the form.") from error


class LongVerb(Verb):
    """A verb that goes on where it was stopped."""

    def invoke(self, ctx: typer.Context) -> object:
        """Say, when Ctrl-C ends the verb, that the same command goes on."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if os.environ.get("RANK", "0") == "0":
                print("\nthinkdraw: stopped. The same command goes on from what is saved.", file=sys.stderr)
            raise


class VerbGroup(TyperGroup):
    """All verbs."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Rewrite old flags before anything reads them. Raises UserError for no verb."""
        if args and not args[0].startswith("-") and not ctx.resilient_parsing:
            if args[0] not in self.commands:
                near = difflib.get_close_matches(args[0], self.commands, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise UserError(f"there is no verb {printable(args[0])[:80]!r}.{hint} `thinkdraw --help` lists them.")
            depth = 2 if hasattr(self.commands[args[0]], "commands") else 1
            args = [*args[:depth], *translate(" ".join(args[:depth]), args[depth:])]
        return super().parse_args(ctx, args)


def _refuse_unknown_options(verb: str, options: Sequence[TyperOption], words: list[str]) -> None:
    """Raise UserError, with the setting that was meant, for an unknown option."""
    known = {"--help"}.union(*(param.opts for param in options))
    with_value = {name for param in options if not param.is_flag for name in param.opts}
    value_follows = False
    for word in words:
        if word == "--" and not value_follows:
            return
        name, _, value = word.partition("=")
        if not value_follows and name.startswith("--") and name not in known:
            key = printable(name.strip("-").replace("-", "_"))[:80]
            raise UserError(
                f"{verb} has no option {printable(name)[:80]}. Settings are written key=value: {key}={printable(value) or '…'}. "
                f"`{verb} --help` shows the form."
            )
        value_follows = not value_follows and word in with_value
