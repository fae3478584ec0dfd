"""Configurations as commented YAML are the same configurations."""

import pytest

from thinkdraw.config import dump_config, load_config
from thinkdraw.recipes.catalog import read_config, shipped_configs
from thinkdraw.runtime.formats import parse_yaml
from thinkdraw.settings.commented import WIDEST, commented_yaml
from thinkdraw.studies.quickstart import QuickstartConfig


@pytest.mark.parametrize("name", shipped_configs())
def test_comments_change_no_value_and_fit_a_line(name: str, tmp_path):
    config = read_config(name)
    text = commented_yaml(config)
    assert max(map(len, text.splitlines())) <= WIDEST
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    assert load_config(type(config), tmp_path / "again.yaml") == config


def test_odd_values_survive():
    odd = ["a: b # c", "x\ny", "off", "", "1e3", "Ünïcode “quotes”", "l" * 300]
    config = QuickstartConfig(sft=odd, grpo=["x" * 200], policy="a # b: c", precision="two\nlines\n\nof text")
    assert parse_yaml(commented_yaml(config)) == parse_yaml(dump_config(config))


def test_descriptions_stand_above_and_what_is_not_the_default_is_marked():
    lines = commented_yaml(read_config("lab_grpo", ["group_size=16"])).splitlines()
    place = lines.index("group_size: 16  # default: 8")
    assert any("Rollouts per prompt" in line for line in lines[place - 3 : place])
    assert "  max_grad_norm: 1.0" in lines


def test_the_default_of_a_section_is_the_recipes_own():
    lines = commented_yaml(read_config("lab_sft", ["optimiser.learning_rate=3e-4"])).splitlines()
    assert "  learning_rate: 0.0003" in lines


def test_a_section_that_comes_again_points_to_the_first():
    text = commented_yaml(read_config("lab_grpo"))
    assert text.count("Share of each family of the lab's prompts") == 1
    assert "# What these settings do is said above, at prompts." in text
