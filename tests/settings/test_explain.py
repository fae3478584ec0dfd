"""`thinkdraw explain`, on settings, recipes, and what rewards, judges and benchmarks are made with."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from thinkdraw.cli import app, main
from thinkdraw.errors import UserError
from thinkdraw.settings.catalog import TARGETS
from thinkdraw.settings.explain import as_rows, explain, matching
from thinkdraw.settings.makers import REGISTRIES, maker, registry


def test_a_setting_is_told_with_its_type_its_default_and_what_it_does():
    done = CliRunner().invoke(app, ["explain", "grpo.clip_high"])
    text = " ".join(done.output.split())
    assert done.exit_code == 0 and text.startswith("grpo.clip_high = null Upper clip of the ratio")
    assert "A number > 0, or null." in text


def test_what_the_shipped_configurations_set_is_told():
    text = explain("sft.optimiser.learning_rate")
    assert "0.0001 in janus_pro_1b_sft, janus_pro_7b_sft." in text and "0.0003 in lab_sft." in text
    assert "0.0003 in lab_sft." in explain("optimiser.learning_rate")


def test_without_a_word_all_that_has_settings_is_listed():
    done = CliRunner().invoke(app, ["explain"])
    assert done.exit_code == 0 and all(name in done.output for name in TARGETS)


def test_the_default_is_the_one_in_that_place():
    assert "sft.optimiser.learning_rate = 0.0003" in explain("sft.optimiser.learning_rate")
    assert "grpo.optimiser.learning_rate = 0.0001" in explain("grpo.optimiser.learning_rate")
    assert "grpo.validation.prompts.count = 64" in explain("grpo.validation.prompts.count")


def test_a_key_alone_is_told_for_every_recipe_that_has_it_and_once_where_it_is_the_same():
    text = explain("beta")
    assert "grpo.beta = 0" in text and "preference.beta = 0.1" in text
    assert explain("patience_s").count("Seconds that a process waits") == 1
    assert "grpo.patience_s" in explain("patience_s")


def test_a_section_is_told_with_all_that_is_in_it():
    text = explain("grpo.sampling")
    assert "grpo.sampling.top_p = null" in text and "grpo.sampling.guidance_scale = 1" in text
    assert "grpo.beta" not in text


def test_a_recipe_a_verb_and_a_shipped_configuration_are_told():
    assert "grpo.group_size = 8" in explain("grpo") and "shipped: " in explain("grpo")
    assert explain("lab_grpo.clip_low") == explain("grpo.clip_low")
    assert explain("evaluate") == explain("eval")
    assert "serve.port = 8421" in explain("serve")
    assert "store-export.png = false" in CliRunner().invoke(app, ["explain", "store", "export"]).output


def test_variants_of_a_section_are_told_apart():
    assert "corpus.teacher.model (kind=endpoint) (required)" in explain("corpus.teacher.model")


def test_items_of_lists_and_mappings_are_found_with_and_without_their_place():
    for key in ("sweep.cells.config", "sweep.cells.NAME.config", "iterate.rounds.0.grpo"):
        assert len(matching(key)) == 1, key


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("grpo.clip_hihg", "grpo.clip_high"),
        ("clip_hig", "clip_high"),
        ("grop", "grpo"),
        ("reward.lab-detecter", "reward.lab-detector"),
        ("grpo.top_k", "grpo.sampling.top_k"),
    ],
)
def test_what_is_unknown_names_the_nearest_and_ends_with_2(word, near, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["thinkdraw", "explain", word])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert near in capsys.readouterr().err


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_reward_judge_and_benchmark_is_told_without_being_imported(kind: str):
    from importlib import import_module

    room, variable = REGISTRIES[kind]
    assert registry(kind) == getattr(import_module(f"thinkdraw.{room}"), variable)
    for name in registry(kind):
        assert maker(kind, name).about, f"{kind} {name} has no docstring"


def test_the_settings_of_a_reward_are_its_constructors():
    assert "  strict_weight = 0.5\n    A number." in explain("reward.lab-detector")
    assert "  questioner = policy\n    A judge of the kind Questioner." in explain("reward.lab-judge")
    assert "One of official, fixed" in explain("benchmark.dpg")
    names = {row["name"] for row in as_rows("judge.openai-words")}
    assert {"model", "base_url", "timeout_s"} <= names  # those that it passes on to its base too


def test_a_reward_of_the_users_own_is_told(tmp_path, monkeypatch):
    (tmp_path / "mine_to_explain.py").write_text(
        'class Reward:\n    "Counts reds."\n\n    def __init__(self, least: int = 3): ...\n    def __call__(self, r): ...\n'
    )
    monkeypatch.chdir(tmp_path)
    text = explain("reward.mine_to_explain:Reward")
    assert "Counts reds." in text and "least = 3" in text
    with pytest.raises(UserError, match="cannot import"):
        explain("reward.not_there_at_all:Reward")


def test_rows_for_a_program_have_defaults_of_their_own_type():
    (row,) = json.loads(CliRunner().invoke(app, ["explain", "--json", "preference.beta"]).output)
    assert row["setting"] == "preference.beta" and row["default"] == 0.1 and row["type"] == "a number > 0"


def test_explaining_a_shipped_setting_needs_no_torch():
    code = (
        "import sys; from thinkdraw.settings.explain import explain; "
        "explain('grpo.clip_high'); explain('sampling'); explain('reward.lab-judge'); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
