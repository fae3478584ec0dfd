"""docs/architecture.md shows the files and floors that there are."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def make_architecture():
    spec = importlib.util.spec_from_file_location("make_architecture", ROOT / "docs" / "make_architecture.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_says(make_architecture):
    text = make_architecture.PAGE.read_text(encoding="utf-8")
    assert make_architecture.page(text) == text, "run `make docs`, and commit docs/architecture.md"


def test_every_file_of_the_package_is_on_the_page(make_architecture):
    text = make_architecture.PAGE.read_text(encoding="utf-8")
    files = [path for path in make_architecture.PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    missing = [path for path in files if f"(../{path.relative_to(ROOT).as_posix()})" not in text]
    assert len(files) > 300 and not missing


def test_a_file_that_is_new_makes_the_page_out_of_date(make_architecture, monkeypatch, tmp_path):
    package = tmp_path / "src" / "thinkdraw"
    package.mkdir(parents=True)
    (package / "new.py").write_text('"""A file that nobody wrote down."""\n')
    monkeypatch.setattr(make_architecture, "PACKAGE", package)
    monkeypatch.setattr(make_architecture, "ROOT", tmp_path)
    assert "| [new.py](../src/thinkdraw/new.py) | A file that nobody wrote down. |" in make_architecture.draw_tree()
