import json
import re
import shlex
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.config import load_config
from thinkdraw.data.leak_guard import clause_key, find_leaks, text_key
from thinkdraw.data.paraphrases import ParaphraseSettings
from thinkdraw.data.prompt_files import read_prompts, write_prompts
from thinkdraw.data.prompt_sets import PromptSetConfig, candidates, collect, content_hash, make_prompt_set
from thinkdraw.data.structure.words import GROUPS
from thinkdraw.data.test_sets.hashes import published_tests_among
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt

PAGE = Path(__file__).parents[2] / "docs" / "prompt_sets.md"
STYLES = ("geneval", "compbench", "lab-geneval", "lab-compbench", "lab-dense")


def config(out: Path, **changes) -> PromptSetConfig:
    return PromptSetConfig(**{"out": out, "count": 60, **changes})


def run(*arguments: str):
    return CliRunner().invoke(app, ["prompts", *arguments])


@pytest.mark.parametrize("style", STYLES)
def test_smaller_sets_are_the_beginning_of_larger_ones_and_no_prompt_comes_twice(tmp_path, style):
    report = make_prompt_set(config(tmp_path / "set", style=style, scales=(4, 0.25, 0.5, 2)))
    assert [(f.file, f.count) for f in report.files] == [
        ("prompts_x0.25.jsonl", 15), ("prompts_x0.5.jsonl", 30), ("prompts.jsonl", 60), ("prompts_x2.jsonl", 120),
        ("prompts_x4.jsonl", 240),
    ]  # fmt: skip
    sets = [read_prompts(tmp_path / "set" / f.file) for f in report.files]
    for smaller, larger in pairwise(sets):
        assert larger[: len(smaller)] == smaller
    largest = sets[-1]
    assert len({p.id for p in largest}) == len({text_key(p.text) for p in largest}) == 240
    assert len({clause_key(p) for p in largest}) == 240 and all(p.questions for p in largest)
    # Tasks come in turn: in 60 prompts of six tasks each has its ten, give or take prompts that two tasks make.
    per_task = report.files[2].per_task
    assert sum(per_task.values()) == 60 and max(per_task.values()) - min(per_task.values()) <= 2


def test_the_same_configuration_gives_the_same_files_and_another_seed_others(tmp_path):
    first, second = (make_prompt_set(config(tmp_path / name)) for name in ("a", "b"))
    for name in ("prompts.jsonl", "card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = make_prompt_set(config(tmp_path / "c", seed=1))
    assert first.files[0].sha256 == second.files[0].sha256 != other.files[0].sha256
    longer = make_prompt_set(config(tmp_path / "d", count=90))  # a larger count goes on where the smaller ended
    assert read_prompts(longer.folder)[:60] == read_prompts(first.folder)


def test_the_hash_is_of_normalised_lines_in_their_order():
    a, b = Prompt("A red cat."), Prompt("two dogs")
    assert content_hash([a, b]) == content_hash([Prompt("the red  cat", "other id"), b]) != content_hash([b, a])
    # printf 'red cat\ntwo dogs\n' | sha256sum
    assert content_hash([a, b]).startswith("e3645997edf8ab9b")


def test_prompts_of_test_sets_are_left_out_replaced_and_counted(tmp_path):
    free = make_prompt_set(config(tmp_path / "free"))
    prompts = read_prompts(free.folder)
    write_prompts(tmp_path / "one.jsonl", prompts[3:8])
    write_prompts(tmp_path / "two.jsonl", [prompts[20], Prompt("a cat in a tree")])
    against = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    report = make_prompt_set(config(tmp_path / "held", against=against))
    assert [report.dropped[str(path)] for path in against] == [5, 1]
    kept = read_prompts(report.folder)
    test = read_prompts(against[0]) + read_prompts(against[1])
    assert len(kept) == 60 and find_leaks(kept, test) == []
    assert {p.text for p in prompts} - {p.text for p in kept} == {p.text for p in [*prompts[3:8], prompts[20]]}
    card = json.loads((report.folder / "card.json").read_text())
    assert [row["dropped"] for row in card["against"]] == [5, 1] and card["against"][1]["prompts"] == 2
    assert card["config"]["style"] == "geneval" and "out" not in card["config"]
    assert card["files"][0]["diversity"]["nouns"] > 40


def test_a_set_made_against_the_published_benchmarks_has_none_of_their_prompts(shared_dir, tmp_path):
    benchmarks = shared_dir / "benchmarks"
    if not (benchmarks / "geneval").is_dir() or not (benchmarks / "t2i_compbench").is_dir():
        pytest.skip(f"{benchmarks} lacks GenEval or T2I-CompBench")
    against = [benchmarks / "geneval", benchmarks / "t2i_compbench"]
    report = make_prompt_set(config(tmp_path / "set", count=600, against=against))
    assert report.dropped[str(against[0])] > 0
    for path in against:
        assert find_leaks(read_prompts(report.folder), read_prompts(path)) == []


def test_a_task_that_runs_out_leaves_the_turn_to_the_others(tmp_path):
    # 13 plants: 13 single objects and 13 · 3 counts; the other four tasks share the rest, (300 − 13 − 39) / 4 = 62 each.
    tasks = make_prompt_set(config(tmp_path, groups=("plants",), count=300)).files[0].per_task
    assert tasks["single_object"] == len(GROUPS["plants"]) == 13 and tasks["counting"] == 39
    assert {tasks[name] for name in ("two_object", "colors", "position", "color_attr")} == {62}


def test_a_source_that_ends_before_the_count_is_a_user_error():
    few = list(islice(candidates(config(Path("x"))), 150))
    with pytest.raises(UserError, match=r"only 148 different prompts .* and 600 are asked for\. Lower count"):
        collect(iter(few), 600, few[:2])


def test_paraphrases_keep_clauses_and_those_that_leak_or_repeat_are_taken_back(tmp_path):
    plain = read_prompts(make_prompt_set(config(tmp_path / "plain", count=12)).folder)
    counting = next(p for p in plain if p.tag == "counting")
    said = f"Here one sees {counting.text.removeprefix('a photo of ')}"
    (tmp_path / "test.txt").write_text(said + "\n")

    def ask(path, read, make_body):
        text = json.loads(make_body())["messages"][0]["content"].rpartition("Description: ")[2]
        reply = text.replace("a photo of", "Here one sees") if "two" not in text else "nothing of it"
        return read(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

    client = SimpleNamespace(ask=ask)
    settings = ParaphraseSettings(base_url="http://x/v1", model="m", frac=1.0, attempts=1)
    changes = {"count": 12, "paraphrase": settings, "against": [tmp_path / "test.txt"]}
    report = make_prompt_set(config(tmp_path / "said", **changes), client)
    new = read_prompts(report.folder)
    assert [(p.id, p.include, p.questions) for p in new] == [(p.id, p.include, p.questions) for p in plain]
    assert (
        sum(p.text.startswith("Here one sees") for p in new)
        == report.paraphrases["accepted"] - report.paraphrases["taken_back"]
    )
    assert report.paraphrases["accepted"] + sum(report.paraphrases["refused"].values()) == 12
    assert find_leaks(new, [Prompt(said)]) == []


def test_a_folder_that_is_no_prompt_set_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a prompt set"):
        make_prompt_set(config(tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    for _ in range(2):  # an older set is
        make_prompt_set(config(tmp_path / "set", count=6, scales=(2,)))
    make_prompt_set(config(tmp_path / "set", count=6))
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["card.json", "prompts.jsonl"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("style=genevl", "style"),
        ("scales=[0,1]", "scales.0=0"),
        ("groups=[animal]", "animal is not known; choose from animals"),
        ("paraphrase.modl=x", "paraphrase.model"),
    ],
)
def test_wrong_settings_say_what_is_right(override, says):
    with pytest.raises(UserError, match=re.escape(says)):
        load_config(PromptSetConfig, None, ["out=x", override])


def test_making_and_checking_from_the_command_line(tmp_path):
    out = str(tmp_path / "a set")
    made = run("make", "--out", out, "style=compbench", "--count", "24", "scales=[0.5,1]", "--json")
    assert made.exit_code == 0, made.output
    assert [f["count"] for f in json.loads(made.output)["files"]] == [12, 24]
    assert run("make", "--out", str(tmp_path / "b"), "--count", "12", "seed=5").exit_code == 0
    clean = run("check", str(tmp_path / "b"), f"against=[{json.dumps(out)}]")
    assert clean.exit_code == 0 and "0 of 12 prompts" in clean.output
    test = tmp_path / "test.txt"
    test.write_text(read_prompts(out)[2].text.upper() + "\nsomething else\n")
    found = run("check", out, f"against=[{test}, {tmp_path / 'b'}]", "--json")
    assert found.exit_code == 1
    (row,) = json.loads(found.output)
    assert row["train"] == "compbench-000002" and row["reason"] == "equal after normalisation"
    assert "1 of 24 prompts" in run("check", out, f"against=[{test}]").output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("make", "--out", "x", "style=poems"), "style='poems'"),
        (("make", "--out", "x", "scales=[0.5;1]"), "scales"),
        (("make", "--out", "x", "paraphrase.base_url=http://x"), "paraphrase.model is required"),
        (("make", "--out", "x", "against=[nothing.txt]"), "nothing.txt cannot be read"),
        (("check", "nothing.jsonl", "against=[x.txt]"), "nothing.jsonl cannot be read"),
    ],
)
def test_what_a_user_can_get_wrong_is_a_user_error(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, UserError) and says in str(result.exception)
    assert not (tmp_path / "x").exists()


def test_the_commands_the_python_and_the_numbers_of_the_page_hold(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    for line in "".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)).splitlines():
        assert line.startswith("thinkdraw ")
        if not line.startswith("thinkdraw prompts ") or "paraphrase.base_url" in line:
            continue  # a training, or a language model's endpoint
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output, result.exception)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})
    assert "compbench-000000 color" in capsys.readouterr().out
    assert f"{sum(map(len, GROUPS.values()))} nouns in {len(GROUPS)} groups" in page
    for verb in ("make", "check"):
        assert "Example: thinkdraw prompts" in run(verb, "--help").output


def test_a_set_holds_no_published_test_prompt_although_none_is_named(tmp_path):
    report = make_prompt_set(config(tmp_path / "set", style="geneval", count=400))
    assert published_tests_among(read_prompts(tmp_path / "set")) == {} and report.dropped["GenEval"] > 0
    card = json.loads((tmp_path / "set/card.json").read_text())
    assert card["published_tests_left_out"] == report.dropped
