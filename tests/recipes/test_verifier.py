"""A verifier learns what its labels say, is measured on prompts it has not seen, and can be used as a judge afterwards."""

import io
import json
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.judges import helpers_vlm
from tests.training.helpers import policy_dir, rows_without_times

from thinkdraw.benchmarks.calibration import calibration
from thinkdraw.errors import UserError
from thinkdraw.judges.questioners.vlm import VlmJudge
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.opening import load_trained
from thinkdraw.recipes import verifier
from thinkdraw.recipes.verifier_learner import ChatLearner, open_learner
from thinkdraw.training.run import backward


def labels(folder, size: int, count: int = 64):
    """Bright pictures are right."""
    rng, rows = np.random.default_rng(0), []
    for i in range(count):
        picture = rng.integers(0, 80, (size, size, 3)) + 150 * (i % 2)
        file = io.BytesIO()
        Image.fromarray(picture.astype(np.uint8)).save(file, "PNG")
        row = {"image": {"bytes": file.getvalue(), "path": None}, "prompt": f"a red circle {i // 4}", "task": "orm"}
        rows.append(row | {"label": bool(i % 2)})
        rows.append(row | {"task": "clarity", "label": not i % 2})
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "train-00000-of-00001.parquet")
    return folder


def config(folder, policy, **changes) -> verifier.VerifierConfig:
    values = {
        "out": folder / "run", "policy": policy, "data": folder / "labels", "device": "cpu", "precision": "fp32",
        "num_threads": 1, "batch_rows": 16, "micro_rows": 8, "max_steps": 24, "save_every": 10,
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 0},
    }  # fmt: skip
    return verifier.VerifierConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    return policy_dir(tmp_path_factory.mktemp("policy"))


def test_the_policys_understanding_learns_what_a_bright_picture_is(tmp_path, policy):
    labels(tmp_path / "labels", load_trained(policy).picture.height)
    run = verifier.run(config(tmp_path, policy))
    found = json.loads((run / "summary.json").read_text())
    assert found["rows"] == {"train": 52, "test": 12}  # 13 of 16 prompts, 4 pictures each
    assert found["after"]["auroc"] == 1.0 and found["after"]["ece"] < 0.3 and found["before"]["auroc"] < 0.9
    assert (run / "calibration.svg").read_text(encoding="utf-8").startswith("<svg ")
    judge, rows = load_trained(run, precision="fp32"), verifier.read_labels(tmp_path / "labels", ["orm"])
    p_yes = judge.answer(rows.pictures, rows.questions)
    assert float(p_yes[1::2].min()) > float(p_yes[0::2].max())


def test_a_stopped_verifier_goes_on_to_the_same_numbers(tmp_path, policy):
    labels(tmp_path / "labels", load_trained(policy).picture.height)
    whole = verifier.run(config(tmp_path, policy, out=tmp_path / "whole", max_steps=4))
    verifier.run(config(tmp_path, policy, max_steps=2))
    parts = verifier.run(config(tmp_path, policy, max_steps=4))
    assert rows_without_times(parts) == rows_without_times(whole)
    assert (parts / "summary.json").read_text() == (whole / "summary.json").read_text()


def test_splitting_a_batch_leaves_the_gradient(tmp_path, policy):
    labels(tmp_path / "labels", load_trained(policy).picture.height)
    rows, found = verifier.read_labels(tmp_path / "labels", ["orm", "clarity"]).select(range(8)), []
    for micro_rows in (8, 3):
        learner = open_learner(policy, "cpu", "fp32", "fp32", None)
        backward(partial(verifier.verifier_loss, learner, count=8), rows, micro_rows)
        grads = [p.grad for p in learner.network.parameters() if p.grad is not None]
        found.append(torch.cat([grad.flatten() for grad in grads]))
    assert float(found[0].norm()) > 0 and torch.allclose(found[0], found[1], atol=1e-6)


def test_checkpointing_and_fewer_rows_where_memory_runs_out_leave_the_numbers(tmp_path, policy, monkeypatch):
    labels(tmp_path / "labels", load_trained(policy).picture.height)
    wanted = rows_without_times(verifier.run(config(tmp_path, policy, out=tmp_path / "plain", max_steps=2)))
    yes_logits, seen = JanusPolicy.yes_logits, []

    def runs_out(self: JanusPolicy, pictures: torch.Tensor, questions: list[str]) -> torch.Tensor:
        if torch.is_grad_enabled():
            model: Any = self.model
            assert model.is_gradient_checkpointing
            seen.append(len(questions))
            if len(questions) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return yes_logits(self, pictures, questions)

    monkeypatch.setattr(JanusPolicy, "yes_logits", runs_out)
    with pytest.warns(UserWarning, match="out of memory with 8 rows per pass: going on with 4"):
        run = verifier.run(config(tmp_path, policy, max_steps=2, gradient_checkpointing=True))
    assert seen == [8, *[4] * 8]
    for row, plain in zip(rows_without_times(run), wanted, strict=True):
        assert row == pytest.approx(plain, rel=1e-4)


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> str:
    return str(helpers_vlm.llava(tmp_path_factory.mktemp("llava")))


def test_a_chat_model_is_asked_as_the_judge_asks_it_and_its_adapters_learn(tmp_path, chat):
    pictures, questions = helpers_vlm.pictures(3), ["is it red?", "is it a red circle?", "is it blue?"]
    learner, judge = ChatLearner(chat, "cpu", None), VlmJudge(chat, device="cpu", min_yes_no_mass=0)
    with torch.no_grad():
        p_yes = torch.sigmoid(learner.yes_logits(pictures, questions))
    assert torch.allclose(p_yes, judge.answer(pictures, questions), atol=1e-5)

    labels(tmp_path / "labels", pictures.shape[1], count=32)
    lora = {"rank": 2, "alpha": 4}
    run = verifier.run(config(tmp_path, chat, max_steps=2, batch_rows=4, lora=lora))
    tuned = VlmJudge(str(verifier.policy_path(str(run))), device="cpu", min_yes_no_mass=0)
    assert not torch.allclose(tuned.answer(pictures, questions), p_yes, atol=1e-6)


@pytest.mark.parametrize(
    ("tasks", "count", "says"),
    [(["potential"], 8, "no row of the tasks potential"), (["orm"], 8, "lower batch_rows=16")],
)
def test_too_few_labels_are_named(tmp_path, policy, tasks, count, says):
    labels(tmp_path / "labels", 8, count)
    with pytest.raises(UserError, match=says):
        verifier.run(config(tmp_path, policy, tasks=tasks))
    with pytest.raises(UserError, match="thinkdraw corpus write"):
        verifier.run(config(tmp_path, policy, data=tmp_path / "nothing"))


def test_calibration_by_hand():
    # bins: 0.1 (rows 0.05, 0.15 → two bins), 0.9: means 0.05, 0.15, 0.9; shares 0, 1, 0.5
    found = calibration(np.array([0.05, 0.15, 0.9, 0.9, np.nan]), np.array([0, 1, 1, 0, 1], bool), list("abcde"))
    assert found.ece == pytest.approx((0.05 * 1 + 0.85 * 1 + 0.4 * 2) / 4)
    # pairs (yes, no): (0.15, 0.05) right, (0.15, 0.9) wrong, (0.9, 0.05) right, (0.9, 0.9) half: 2.5 of 4
    assert found.auroc == pytest.approx(2.5 / 4) and found.rows == 4 and found.no_verdict == 1
    assert found.accuracy == 0.5  # rows 1 (no), 3 (yes) are right at 0.5
    assert calibration(np.array([0.2]), np.array([True]), ["a"]).auroc is None
