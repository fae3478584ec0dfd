import io
import sys

import pytest

from thinkdraw.console import escape_unprintable_output, print_rows
from thinkdraw.errors import UserError
from thinkdraw.training.display import Display

NASTY = [
    r"a \[/b] cat",
    "[/bold] and [bold",
    "[red]x[/red]",
    "\\",
    r"\\[",
    "[link=x]y",
    ":smile:",
    "a\x1b[31mb",
    "two\nlines",
]


@pytest.mark.parametrize("text", NASTY)
def test_a_text_of_strangers_is_printed_as_it_is_and_moves_no_cursor(capsys, monkeypatch, text):
    monkeypatch.setenv("COLUMNS", "200")
    print_rows([{text: 1, "prompt": text}], heading=text)
    Display("run", 3, 1).warn("key", text)
    said = capsys.readouterr()
    shown = text.replace("\x1b", r"\x1b").replace("\n", r"\n")
    assert said.out.count(shown) == 3 and f"warning: {shown}" in said.err
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_no_encoding_of_a_console_ends_a_program(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    escape_unprintable_output()
    print_rows([{"prompt": "a 猫, a caf\u00e9 and \udc80"}])
    print("a 猫 \udc80")
    sys.stdout.flush()
    assert b"a " in written.getvalue() and written.getvalue().decode(encoding)


def test_an_argument_is_utf_8_under_every_locale(monkeypatch):
    from thinkdraw.cli.generate import _argument_text

    typed = "a caf\u00e9".encode()
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("ascii", "surrogateescape"))  # as in the C locale
    assert _argument_text(typed.decode("ascii", "surrogateescape")) == "a caf\u00e9"
    with pytest.raises(UserError, match="holds U"):
        _argument_text(b"caf\xe9".decode("ascii", "surrogateescape"))
