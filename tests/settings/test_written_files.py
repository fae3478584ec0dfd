"""The schemas and the page of settings are what the code says: `python -m thinkdraw.settings` writes them."""

from pathlib import Path

import pytest

from thinkdraw.recipes.catalog import RECIPES, shipped_configs
from thinkdraw.settings.catalog import TARGETS
from thinkdraw.settings.explain import recipe_of
from thinkdraw.settings.page import page
from thinkdraw.settings.schema import FOLDER, as_text, made_schema

PAGE = Path(__file__).parent.parent.parent / "docs" / "config.md"
WAY_OUT = "a setting has changed: run `python -m thinkdraw.settings` and commit what it writes"


def test_every_recipe_has_settings_to_explain():
    assert RECIPES.keys() <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_a_schema_is_what_its_class_says(name: str):
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == as_text(made_schema(name)), WAY_OUT


def test_there_is_no_schema_of_anything_else():
    assert {path.stem for path in FOLDER.iterdir()} == TARGETS.keys()


def test_the_page_of_settings_is_what_the_schemas_say():
    assert PAGE.read_text(encoding="utf-8") == page(), WAY_OUT


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_configuration_names_its_schema_for_editors(name: str):
    file = shipped_configs()[name]
    schema = f"schema/{recipe_of(file)}.json"
    assert f"\n# yaml-language-server: $schema={schema}\nrecipe:" in file.read_text(encoding="utf-8")
    assert (file.parent / schema).is_file()
