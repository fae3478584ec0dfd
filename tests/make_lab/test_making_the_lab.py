"""The lab's checkpoint is made by two recipes; a micro version of both, from nothing to a policy that samples."""

from pathlib import Path

import pytest

from thinkdraw.make_lab import pretrain, tokenizer
from thinkdraw.policies import load_policy
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.types import Prompt, Sampling


@pytest.mark.slow
def test_tokenizer_and_pretrain_make_a_checkpoint_that_draws_thinks_and_answers(tmp_path: Path):
    codes = tokenizer.run(
        tokenizer.TokenizerConfig(
            out=tmp_path / "vq", codes=64, batch_size=2, max_steps=6, warmup_steps=3, exact_frac=1.0
        )
    )
    settings = pretrain.PretrainConfig(
        out=tmp_path / "pretrain",
        tokenizer=codes,
        max_steps=10,
        num_scenes=40,
        draw_rows=4,
        write_rows=2,
        ask_rows=2,
        drawn_rows=2,
        drawings=4,
        redraw_steps=5,
        questions_per_picture=2,
        hidden=64,
        layers=1,
        vision_hidden=32,
        vision_layers=1,
    )
    pretrain.run(settings.model_copy(update={"max_steps": 6}))  # saved after five, then stopped
    made = pretrain.run(settings)
    rows = MetricsLog.read(tmp_path / "pretrain" / "metrics.jsonl")
    assert {"image_nats", "thought_nats", "answer_nats", "describe_nats", "patch_nats", "drawing_answer_nats"} <= set(
        rows[-1]
    )
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    policy = load_policy(made)
    rollouts = policy.sample([Prompt("a photo of a red circle")], Sampling(max_thought_tokens=8), group_size=2)
    assert rollouts.pictures is not None and rollouts.pictures.shape == (2, 64, 64, 3)
    assert 0 <= float(policy.answer(rollouts.pictures[:1], ["is there a circle?"])) <= 1
