"""`thinkdraw VERB TARGET… key=value…`: one grammar, and wrong words are one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import Field
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.cli.catalog import KINDS, entries
from thinkdraw.cli.grammar import completion
from thinkdraw.cli.grammar.old_flags import translate
from thinkdraw.cli.grammar.reading import overrides, read, split
from thinkdraw.config import StrictModel, load_config
from thinkdraw.errors import HeldError, UserError
from thinkdraw.objectives import POLICY_LOSSES, PREFERENCE_LOSSES
from thinkdraw.rewards.opening import RewardSettings
from thinkdraw.types import Sampling

ROOT = Path(__file__).parents[2]


class Config(StrictModel):
    policy: str = Field(description="Draws.")
    names: list[str] = ["usual"]
    sampling: Sampling = Sampling()
    reward: RewardSettings = RewardSettings(name="lab-judge", settings={"kept": True})
    monitors: list[RewardSettings] = []
    out: Path | None = None


def configured(*words: str) -> dict:
    result = CliRunner().invoke(app, [*words, "--dry-run"])
    assert result.exit_code == 0, (words, result.output, result.exception)
    return yaml.safe_load(result.stdout)


def test_a_word_with_a_key_is_a_setting_and_any_other_is_a_target():
    words = ["lab", "a.b-c=1", "runs/a=b", "my:Policy@runs/a=b", "c= 2"]
    assert split(words) == (["lab", "runs/a=b", "my:Policy@runs/a=b"], ["a.b-c=1", "c= 2"])


def test_targets_set_their_keys_in_order_and_the_last_may_take_the_rest():
    config = read(Config, ["lab", "a", "b: c"], ("policy", "names…"))
    assert (config.policy, config.names) == ("lab", ["a", "b: c"])
    assert read(Config, ["a", "policy=mine"], ("policy", "names…")).names == ["a"]
    assert read(Config, ["lab"], ("policy", "names…")).names == ["usual"]


def test_a_target_too_many_and_one_that_is_missing_are_errors():
    with pytest.raises(UserError, match=r"'b' is one word too many"):
        read(Config, ["a", "b"], ("policy",))
    with pytest.raises(UserError, match=r"policy is missing. Draws."):
        read(Config, [], ("policy",))


def test_a_form_with_braces_is_a_text_and_needs_no_second_quotes():
    for form in ("{}. In detail: ", "A photo of {}", "{}"):
        assert configured("generate", "lab", "-p", "a", f"prompt_form={form}")["sampling"]["prompt_form"] == form
        assert load_config(Config, None, ["policy=x", f"sampling.prompt_form={form}"]).sampling.prompt_form == form


def test_a_yaml_file_comes_first_and_its_settings_are_overridden(tmp_path):
    (tmp_path / "mine.yaml").write_text("policy: theirs\nsampling: {top_k: 5}\n")
    config = read(Config, [str(tmp_path / "mine.yaml"), "a", "policy=mine"], ("policy", "names…"))
    assert (config.policy, config.names, config.sampling.top_k) == ("mine", ["a"], 5)
    assert configured("sample", str(tmp_path / "mine.yaml"))["count"] is None  # no usual count beside a file
    with pytest.raises(UserError, match=r"none\.yaml"):
        read(Config, [str(tmp_path / "none.yaml")], ("policy",))


def test_options_are_settings_and_a_key_that_is_set_twice_is_refused():
    assert overrides(["x=1"], (), {"out": Path("a: b"), "count": None}) == ['out="a: b"', "x=1"]
    for words, options in ((["lab", "out=there"], {"out": "here"}), (["lab", "out=a", "out = b"], {})):
        with pytest.raises(UserError, match="out is set twice, and only one value can count"):
            read(Config, words, ("policy",), options)


def test_a_tilde_behind_the_equals_sign_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert overrides(["out=~/runs", "text=~x"]) == ["out=/home/me/runs", "text=~x"]


def test_the_value_of_a_short_option_is_never_taken_for_an_old_flag(capsys):
    assert translate("generate", ["lab", "-p", "--samples", "2"]) == ["lab", "-p", "--samples", "2"]
    assert capsys.readouterr().err == ""


def test_a_text_keeps_every_character_it_had():
    text = 'caf\u00e9 \U0001f600 "quoted": [x]'
    assert read(Config, ["lab"], ("policy",), {"names": [text]}).names == [text]


def test_a_key_of_sampling_may_be_written_alone():
    assert load_config(Config, None, ["policy=lab", "thought=off"]).sampling.thought == "off"
    with pytest.raises(UserError, match=r"sampling\.temperature=-1"):
        load_config(Config, None, ["policy=lab", "temperature=-1"])


def test_a_reward_may_be_named_alone_and_its_settings_follow():
    config = load_config(
        Config, None, ["policy=lab", "reward=orm", "reward.settings.questioner=vlm", "monitors=[lab-clip]"]
    )
    assert config.reward.model_dump() == {"name": "orm", "settings": {"questioner": "vlm"}}
    assert config.monitors == [RewardSettings(name="lab-clip")]
    assert load_config(Config, None, ["policy=lab", "reward={name: orm}"]).reward.name == "orm"


def test_every_verb_prints_its_settings_and_stops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configured("generate", "lab", "-p", "a star", "-o", "here", "thought=off")["sampling"]["thought"] == "off"
    assert configured("eval", "lab", "lab-dense", "-n", "96", "samples=2")["benchmarks"] == ["lab-dense"]
    assert configured("eval", "geneval", "images=drawn")["policy"] is None
    assert configured("sample", "lab", "-o", "s", "rewards=[lab-detector]", "sampling.thought=off")["count"] == 64
    assert configured("sample", "lab", "-n", "5000")["prompts"]["count"] == 5000
    assert configured("score", "runs/store", "lab-judge")["reward"]["name"] == "lab-judge"
    assert configured("compare", "a", "b", "best_of=2", "axes=[seconds]")["runs"] == ["a", "b"]
    assert configured("serve", "lab-judge", "port=1")["reward"]["name"] == "lab-judge"
    assert configured("train", "lab_grpo", "-o", "mine", "reward=lab-judge")["reward"]["name"] == "lab-judge"
    assert configured("sweep", "seeds=[0]")["out"] == "runs/objectives"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("generat lab", "Did you mean generate?"),
        ("train lab_grpo --group-size=8", "Settings are written key=value: group_size=8"),
        ("train lab_grpo -n 3", "No such option"),
        ("sample lab -n", "requires an argument"),
        ("sample lab -n many", "valid integer"),
        ("generate lab", "there is nothing to draw"),
        ("generate -p star", "policy is missing"),
        ("generate lab -p star thoght=off", "did you mean sampling.thought?"),
        ("generate lab -p star thought=banana", "'inline', 'rewrite' or 'off'"),
        ("eval lab thought=banana", "'inline', 'rewrite' or 'off'"),
        ("thoughts lab thought=off", "Write inline or rewrite"),
        ("check lab precision=fp8", "'fp32' or 'bf16'"),
        ("eval geneval", "in front of the benchmark: thinkdraw eval lab geneval"),
        ("serve", "the reward is missing"),
        ("train", "the name of a configuration is missing"),
        ("train lab_grpo extra", "'extra' is one word too many"),
        ("prompts check nowhere.jsonl", "nowhere.jsonl cannot be read"),
        ("list bananas", "one of configs, rewards"),
    ],
)
def test_wrong_words_are_one_line_that_says_what_to_do(words: str, says: str):
    result = CliRunner().invoke(app, words.split())
    assert isinstance(result.exception, UserError), result.output
    assert says in str(result.exception) and len(str(result.exception).splitlines()) == 1


def test_pictures_of_another_call_are_neither_mixed_nor_overwritten(tmp_path, monkeypatch):
    from thinkdraw.studies.generate import GenerateConfig, _folder, unknown_words

    monkeypatch.chdir(tmp_path)
    first, second = (GenerateConfig(policy="lab", prompts=[text]) for text in ("a star", "a moon"))
    assert _folder(first) == Path("pictures")
    for name in ("pictures", "mine"):
        Path(name).mkdir()
        Path(name, "00000_0.png").touch()
    from thinkdraw.config import save_config

    save_config(first, Path("pictures/generate.yaml"))
    assert _folder(first) == Path("pictures") and _folder(second) == Path("pictures-2")
    with pytest.raises(HeldError, match=r"mine holds pictures of another call\. Choose another folder: -o FOLDER\."):
        _folder(GenerateConfig(policy="lab", prompts=["a star"], out=Path("mine")))
    assert unknown_words("lab", ["a photo of a cat riding a red star"]) == ["cat", "riding"]
    assert unknown_words("lab", ["a photo of a Red star"]) == ["Red"]  # the tokenizer tells capitals apart
    assert unknown_words("lab", ["a large dotted blue hourglass on the left-hand side of two moons"]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_of_a_list_has_a_line(kind: str):
    for entry in entries(kind):
        assert entry.name and entry.what and "thinkdraw" not in entry.what, entry
        if kind == "configs":
            assert "core" in entry.cost or "GPU" in entry.cost, entry
            assert entry.cost.endswith(("minute", "minutes", "measured")), entry


def test_the_objectives_listed_are_those_there_are():
    assert [e.name for e in entries("objectives")] == ["sft", *POLICY_LOSSES, *PREFERENCE_LOSSES, "verifier"]


def test_names_complete():
    assert ("lab_grpo", next(e.what for e in entries("configs") if e.name == "lab_grpo")) in completion.configs("lab_g")
    assert completion.checkpoints("la")[0][0] == "lab"
    assert "geneval" in [name for name, _ in completion.checkpoint_or_benchmark("gene")]


@pytest.mark.parametrize(
    "words", [["--help"], ["list", "configs"], ["list", "rewards"], ["list", "benchmarks"], ["eval", "-h"]]
)
def test_help_and_lists_import_nothing_heavy(words: list[str]):
    code = (
        f"import sys; sys.argv = ['thinkdraw', *{words!r}]\n"
        "from thinkdraw.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'yaml', 'PIL', 'thinkdraw.config'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert reply.stderr.strip() == "[]", reply.stderr
    assert len(reply.stdout.splitlines()) > 5


def test_the_version_and_the_listing_for_a_program():
    assert CliRunner().invoke(app, ["--version"]).output.startswith("thinkdraw 0.")
    rows = json.loads(CliRunner().invoke(app, ["list", "configs", "--json"]).output)
    assert set(rows[0]) == {"name", "what", "cost"}


@pytest.mark.parametrize(
    ("verb", "says"), [("sample", "rewards=[lab-detector]"), ("compare", "axes=[pictures_sampled,seconds]")]
)
def test_a_list_in_an_example_is_shown_with_its_brackets(verb: str, says: str):
    # rich takes [name] for markup, and would leave it out
    assert says in CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output


def test_a_verb_that_is_stopped_says_that_the_same_command_goes_on(monkeypatch):
    def stop(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("thinkdraw.recipes.catalog.run_config", stop)
    result = CliRunner().invoke(app, ["train", "lab_grpo"])
    assert result.exit_code == 130 and "The same command goes on" in result.stderr


def test_a_finished_run_says_that_it_had_finished_and_what_to_do_next(monkeypatch, tmp_path):
    def step(config: object) -> Path:
        if not (tmp_path / "metrics.jsonl").exists():
            (tmp_path / "metrics.jsonl").write_text("{}\n")
        return tmp_path

    monkeypatch.setattr("thinkdraw.recipes.catalog.run_config", step)
    first, second = (CliRunner().invoke(app, ["train", "lab_grpo", "-o", str(tmp_path)]).output for _ in range(2))
    assert first == f"run folder: {tmp_path}\n"
    assert "had finished" in second and f"thinkdraw report {tmp_path}" in second
