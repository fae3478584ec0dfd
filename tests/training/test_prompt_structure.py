import json
import logging

import pytest
from tests.training.helpers import grpo_config

from thinkdraw.data.structure.structure import read_cache
from thinkdraw.errors import UserError
from thinkdraw.recipes import grpo
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.data import DataSettings, load_prompts
from thinkdraw.types import Detection

RINGS = "a red ring\ntwo rings\na ring left of a star\n"
HERE = "tests.training.test_prompt_structure"


class SeesARing:
    """A detector that finds one ring on the left of every picture, if a ring is asked for, and nothing else."""

    def detect(self, pictures, labels=None):
        ring = Detection("ring", (0.0, 0.0, 4.0, 4.0), 0.9)
        return [[ring] if "ring" in asked else [] for asked in labels]


class Scribe:
    """Writes down the last word of a description as its noun; `asked` counts over all of them."""

    asked = 0

    def __init__(self, model="small", temperature=0.0):
        self.model = model

    def write(self, requests):
        Scribe.asked += len(requests)
        return [json.dumps({"nouns": [request.text.split()[-1]]}) for request in requests]


class Mute:
    pass


@pytest.fixture
def rings(tmp_path):
    (tmp_path / "rings.txt").write_text(RINGS)
    return str(tmp_path / "rings.txt")


# What each of the three prompts is worth where one ring is found, and which of them a reward has nothing to say of:
# all nouns 1, 1, 1/2; only "two rings" counts, and one is no two; only the last has a relation, of whose things one is found.
@pytest.mark.parametrize(("name", "mean"), [("objects", 2.5 / 3), ("count", 0.0), ("relation", 0.25)])
def test_prompts_of_plain_text_are_judged_by_what_they_ask_for(tmp_path, rings, policy, name, mean):
    config = grpo_config(
        tmp_path, policy, prompts={"source": rings, "structure": "rules"}, max_steps=1, prompts_per_phase=3, group_size=2,
        reward={"name": name, "settings": {"detector": f"{HERE}:SeesARing"}},
    )  # fmt: skip
    grpo.run(config)
    (row,) = MetricsLog.read(config.out / "metrics.jsonl")
    assert row["reward_mean"] == pytest.approx(mean) and row["no_verdict_frac"] == 0
    assert {text for _, text in read_cache(config.out / "structure.jsonl")} == set(RINGS.splitlines())


def test_without_structure_such_a_reward_has_nothing_to_say(rings):
    assert not any(prompt.nouns for prompt in load_prompts(DataSettings(source=rings)))


def test_what_is_left_without_structure_is_counted_and_nothing_at_all_is_an_error(tmp_path, caplog):
    file = tmp_path / "prompts.txt"
    file.write_text("a red ring\njoy\nwhat the river said\n")
    settings = DataSettings(source=str(file), structure="rules")
    with caplog.at_level(logging.WARNING):
        assert [prompt.nouns for prompt in load_prompts(settings)] == [("ring",), (), ()]
    assert "2 of 3 prompts" in caplog.text
    file.write_text("joy\nwhat the river said\n")
    with pytest.raises(UserError, match="structure=rules finds no structure in the 2 prompts") as caught:
        load_prompts(settings)
    assert "\n" not in str(caught.value)


def test_a_writer_is_asked_once_and_what_it_found_stands_in_the_named_file(tmp_path, rings, caplog):
    settings = DataSettings(
        source=rings, structure="writer", structure_settings={"name": f"{HERE}:Scribe", "model": "large"},
        structure_cache=tmp_path / "kept.jsonl",
    )  # fmt: skip
    before = Scribe.asked
    first = load_prompts(settings, tmp_path / "run")
    assert [prompt.nouns for prompt in first] == [("ring",), ("rings",), ("star",)]
    assert load_prompts(settings, tmp_path / "other") == first and Scribe.asked == before + 3
    (parser,) = {parser for parser, _ in read_cache(tmp_path / "kept.jsonl")}
    assert parser.startswith(f"writer:{HERE}:Scribe large ")
    # Of the same model told other things nothing is known, and that is said.
    told = settings.model_copy(update={"structure_settings": settings.structure_settings | {"temperature": 0.5}})
    assert load_prompts(told) == first and Scribe.asked == before + 6
    assert "3 structures in" in caplog.text and "parsed again" in caplog.text


@pytest.mark.parametrize(
    ("by", "given", "message"),
    [
        ("rules", {"model": "x"}, "rules takes no model"),
        ("spacy", {"model": "no_such_model"}, "spacy download"),
        ("writer", {}, "needs a judge that writes"),
        ("writer", {"name": f"{HERE}:Mute"}, "does not answer in words"),
    ],
)
def test_a_parser_that_cannot_be_is_one_line(rings, by, given, message):
    with pytest.raises(UserError, match=message) as caught:
        load_prompts(DataSettings(source=rings, structure=by, structure_settings=given))
    assert "\n" not in str(caught.value)
