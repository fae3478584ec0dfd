"""Whatever grows in a folder has one writer: a second one is refused in a line, and what is there stays as it is."""

import pytest
from tests.benchmarks.stub import StubPolicy

from thinkdraw.benchmarks import load_benchmark
from thinkdraw.benchmarks.drawn_folder import draw_into_folder
from thinkdraw.benchmarks.flow import score_pictures
from thinkdraw.benchmarks.lab.benchmark import evaluate_lab
from thinkdraw.benchmarks.picture_files import Inventory
from thinkdraw.errors import UserError
from thinkdraw.policies.opening import load_trained
from thinkdraw.recipes import sample, score
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.files import only_writer
from thinkdraw.studies import compare, evidence, quickstart
from thinkdraw.types import Prompt, Sampling

CONFIGS = ["lab_tokenizer", "lab_pretrain", "lab_clip", "lab_sft", "lab_grpo", "lab_iterate", "lab_corpus",
           "lab_verifier_data", "lab_objectives"]  # fmt: skip


def refused(folder):
    return pytest.raises(UserError, match=f"{folder} is being written to by process")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_recipe_does_not_begin_where_another_writes(tmp_path, name):
    (tmp_path / ".theirs").write_text("as it is")
    with only_writer(tmp_path), refused(tmp_path):
        run_config(read_config(name, [f"out={tmp_path}"]))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(".theirs", "as it is")]


def test_neither_does_a_study_nor_sampling(tmp_path):
    for run, config in [
        (quickstart.run, quickstart.QuickstartConfig(out=tmp_path)),
        (evidence.run, evidence.EvidenceConfig(out=tmp_path)),
        (compare.run, compare.CompareConfig(out=tmp_path, runs=[tmp_path])),
        (sample.run, sample.SampleConfig(out=tmp_path)),
    ]:
        with only_writer(tmp_path), refused(tmp_path):
            run(config)
    assert not list(tmp_path.iterdir())


def test_neither_does_an_evaluation(tmp_path):
    prompts = {0: Prompt("a red ring")}
    with only_writer(tmp_path):
        with refused(tmp_path):
            draw_into_folder(
                tmp_path, StubPolicy([]), prompts, {}, Sampling.model_validate({}), samples=1, seed=0, chunk=1
            )
        with refused(tmp_path):
            score_pictures(load_benchmark("geneval"), prompts, Inventory({}, (), (), {}), tmp_path, samples=1)
        with refused(tmp_path):
            evaluate_lab(StubPolicy([]), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_judges_may_score_one_store_but_each_only_once_at_a_time(tmp_path):
    policy = load_trained("lab")
    store = RolloutStore.create(tmp_path, policy, "inline")
    config = score.ScoreConfig.model_validate({"store": tmp_path, "reward": {"name": "thought-length"}})
    with only_writer(store.column("lab-detector").folder):
        with only_writer(store.column("thought-length").folder), refused(store.column("thought-length").folder):
            score.run(config)
        score.run(config)
