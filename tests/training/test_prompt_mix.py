"""Mixes of prompts: shares by weight, nothing lost, and the same order after a stop."""

from collections import Counter

import pytest

from thinkdraw.config import dump_config, load_config
from thinkdraw.errors import UserError
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.training.data import DataSettings, load_prompts
from thinkdraw.training.prompt_mix import WeightedSource, mix_prompts
from thinkdraw.types import Prompt


def prompts(name, count):
    return [Prompt(f"{name} {i}", str(i)) for i in range(count)]


def sources(**weights):
    return [WeightedSource(source=name, weight=weight) for name, weight in weights.items()]


def test_the_shares_are_the_weights_and_no_prompt_is_missing():
    mixed = mix_prompts(sources(a=3, b=1), {"a": prompts("a", 10), "b": prompts("b", 20)})
    # b's 20 prompts are a quarter, so a has 60: each of its 10 six times
    counts = Counter(prompt.text for prompt in mixed)
    assert (
        len(mixed) == 80
        and {counts[f"a {i}"] for i in range(10)} == {6}
        and {counts[f"b {i}"] for i in range(20)} == {1}
    )
    assert len({prompt.id for prompt in mixed}) == 30  # "0" of a is not "0" of b


def test_a_rest_is_spread_evenly_over_the_source():
    mixed = mix_prompts(sources(a=1, b=1), {"a": prompts("a", 4), "b": prompts("b", 6)})
    assert Counter(p.text for p in mixed if p.text[0] == "a") == {"a 0": 2, "a 1": 1, "a 2": 2, "a 3": 1}


def test_a_run_takes_a_mix_in_an_order_that_seed_and_cursor_decide():
    mixed = mix_prompts(sources(a=1, b=1), {"a": prompts("a", 8), "b": prompts("b", 8)})
    whole, stopped = PromptOrder([(None, mixed)], seed=3), PromptOrder([(None, mixed)], seed=3)
    taken = [p.text for phase in range(6) for p in whole.take(4, phase)]
    first = [p.text for phase in range(3) for p in stopped.take(4, phase)]
    resumed = PromptOrder([(None, mixed)], seed=3)
    resumed.load_state_dict(stopped.state_dict())
    assert first + [p.text for phase in range(3, 6) for p in resumed.take(4, phase)] == taken
    assert Counter(text[0] for text in taken[:16]) == {"a": 8, "b": 8}


def test_files_are_mixed_by_a_list_of_paths_or_of_paths_with_weights(tmp_path):
    (tmp_path / "a.txt").write_text("a red hat\na blue hat\n")
    (tmp_path / "b.jsonl").write_text('{"prompt": "a green hat"}\n')
    text = f"[{{source: {tmp_path / 'a.txt'}, weight: 2}}, {tmp_path / 'b.jsonl'}]"
    settings = load_config(DataSettings, None, [f"source={text}"])
    assert Counter(p.text for p in load_prompts(settings)) == {"a red hat": 1, "a blue hat": 1, "a green hat": 1}
    (tmp_path / "saved.yaml").write_text(dump_config(settings))
    assert load_config(DataSettings, tmp_path / "saved.yaml") == settings
    assert "a.txt (weight 2)" in settings.named and DataSettings(source="x.txt").named == "x.txt"


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (["a", "a"], "names a source twice"),
        ([], "is empty"),
        ([{"source": "a", "weight": 1e-6}, "b"], "at most 1000000"),
    ],
)
def test_a_mix_that_cannot_be_made_is_one_line(listed, says):
    entries = [WeightedSource.model_validate(entry) for entry in listed]
    with pytest.raises(UserError, match=says):
        mix_prompts(entries, {e.source: prompts(e.source, 2) for e in entries})


def test_sft_takes_one_source():
    with pytest.raises(UserError, match="SFT learns from one source"):
        DataSettings(source=["a", "b"]).only_source()  # type: ignore[list-item]
