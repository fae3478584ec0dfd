"""A run is drawn as it was trained, by every verb, unless the user says otherwise."""

import json
from pathlib import Path

import pytest
from tests.training.helpers import LowCodes, grpo_config
from typer.testing import CliRunner

from thinkdraw.api import evaluate, load_policy, rollout
from thinkdraw.cli import app
from thinkdraw.policies.drawing import RECORD, read_record
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.opening import policy_path
from thinkdraw.publishing.export import ExportConfig, export
from thinkdraw.recipes import grpo, sft
from thinkdraw.recipes.sft import SftConfig
from thinkdraw.types import Sampling

FORM = "a drawing of {}, please"
TRAINED = Sampling(max_thought_tokens=20, guidance_scale=3.0, prompt_form=FORM)
VERBS = {
    "eval": "eval {run} lab-geneval -n 6 samples=1 questions_per_type=0 -o {out}",
    "eval of a class": "eval {run} lab-geneval -n 6 samples=1 latency_pictures=0 questions_per_type=0 "
    "max_no_verdict_frac=1 -o {out}",
    "eval of own prompts": "eval {run} prompts={prompts} reward=thought-length reward.settings.low=1 "
    "reward.settings.high=9 questions_per_type=0 latency_pictures=0 -o {out}",
    "generate": "generate {run} -p star -o {out}",
    "thoughts": "thoughts {run} -n 2 samples=1",
    "sample": "sample {run} -n 2 -o {out}",
}


class _Drawn(Exception):
    """The policy was asked to draw, which is all that is looked at."""


@pytest.fixture(scope="module")
def run(tmp_path_factory, policy) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = grpo_config(folder, policy, max_steps=1, save_every=1, sampling=TRAINED.model_dump(), reward={"name": "x"})
    return grpo.run(config, LowCodes())


@pytest.fixture
def asked(monkeypatch) -> list[Sampling]:
    """The samplings that policies are asked to draw with; the first such call ends the command."""
    samplings: list[Sampling] = []

    def sample(self, prompts, sampling, **_):
        samplings.append(sampling)
        raise _Drawn

    monkeypatch.setattr(JanusPolicy, "sample", sample)
    return samplings


def call(verb: str, run: Path, tmp_path: Path, *changes: str) -> None:
    (tmp_path / "mine.txt").write_text("a cat\na dog\n")
    words = VERBS[verb].format(run=run, out=tmp_path / "out", prompts=tmp_path / "mine.txt").split()
    result = CliRunner().invoke(app, [*words, *changes])
    assert isinstance(result.exception, _Drawn), result.output
    assert "draws with thought=" in result.output


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_draws_as_the_run_was_trained_and_as_the_user_says(verb, run, tmp_path, asked):
    call(verb, run, tmp_path)
    (tmp_path / "b").mkdir()
    call(verb, run, tmp_path / "b", "guidance_scale=2", "max_thought_tokens=7")
    assert asked == [TRAINED, TRAINED.model_copy(update={"guidance_scale": 2.0, "max_thought_tokens": 7})]


def test_a_comparison_draws_each_row_as_it_was_trained(run, policy, tmp_path, monkeypatch):
    samplings: list[tuple[str, Sampling]] = []

    monkeypatch.setattr("thinkdraw.studies.compare._evaluate", lambda d, s, *a: samplings.append((d.revision, s)) or {})
    monkeypatch.setattr("thinkdraw.studies.compare._row", lambda *a, **k: {})
    monkeypatch.setattr("thinkdraw.studies.compare._line", lambda *a: "")
    CliRunner().invoke(app, ["compare", str(run), "best_of=null", "-o", str(tmp_path)])
    assert [s for _, s in samplings] == [Sampling(), TRAINED]


def test_the_api_draws_as_the_run_was_trained(run, asked):
    trained = load_policy(str(run))
    for call_api in (lambda: rollout(trained, ["a star"], temperature=0.5), lambda: evaluate(trained, count=6)):
        with pytest.raises(_Drawn):
            call_api()
    assert asked == [TRAINED.model_copy(update={"temperature": 0.5}), TRAINED]


@pytest.mark.parametrize("layout", ["hf", "deepseek"])
def test_what_leaves_has_its_record(run, tmp_path, layout):
    out = export(ExportConfig(run=run, to=layout, out=tmp_path / "out", select="last"))
    assert read_record(str(out)) == TRAINED and load_policy(str(out)).drawing == TRAINED
    assert FORM in (out / "README.md").read_text()


def test_sft_records_its_script_with_the_starting_policys_guidance(run, tmp_path):
    rows = [{"prompt": "a star", "thought": "one star.", "image_tokens": [1] * 16}] * 2
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = SftConfig.model_validate(
        {"recipe": "sft", "out": tmp_path / "sft", "policy": str(run), "data": {"source": str(tmp_path / "rows.jsonl")},
         "batch_rows": 2, "max_steps": 1, "save_every": 1, "thought": "inline", "max_thought_tokens": 9, "device": "cpu",
         "prompt_form": "{}. In detail:"}
    )  # fmt: skip
    recorded = read_record(policy_path(str(sft.run(config))))
    expected = {"max_thought_tokens": 9, "prompt_form": "{}. In detail:"}
    assert recorded == TRAINED.model_copy(update=expected)


def test_the_lab_checkpoint_has_a_record_of_its_own():
    assert read_record(policy_path("lab")) == Sampling()
    assert (Path(policy_path("lab")) / RECORD).is_file()
