"""Every command and code block in the documents runs, on the shipped checkpoint."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.lab import checkpoint_path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {c.name or c.callback.__name__.rstrip("_") for c in app.registered_commands if c.callback}

GROUPS = {group.name for group in app.registered_groups}

needs_checkpoint = pytest.mark.skipif(
    not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is not in this tree"
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_in_the_documents_is_a_verb_with_a_help_page_that_shows_an_example(page: Path):
    for block in blocks(page, "text"):
        for line in block.splitlines():
            if line.startswith("thinkdraw "):
                verb, *rest = line.split()[1:]
                assert verb in COMMANDS | GROUPS, f"{page.name}: {line}"
                shown = CliRunner().invoke(app, [verb, *(rest[:1] if verb in GROUPS else []), "--help"]).output
                assert "Example:" in shown, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_inside_the_project_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
@needs_checkpoint
def test_the_fifteen_lines_of_the_readme_run(tmp_path: Path):
    (code,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs/short/report.html").is_file()
