"""A sweep at its smallest: a store, cells of several recipes and seeds, best-of-N, one table."""

import json

import pytest

from thinkdraw.errors import UserError
from thinkdraw.lab import checkpoint_path
from thinkdraw.studies import sweep
from thinkdraw.studies.sweep import SweepConfig

SMALL = ["max_steps=1", "save_every=1", "num_threads=1", "precision=fp32"]
STORE = {"precision": "fp32", "rewards": ["lab-detector"]}
ROWS = ["batch_rows=2", *SMALL]


@pytest.mark.slow
@pytest.mark.skipif(not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is not in this tree")
def test_every_cell_is_trained_judged_and_costed_once(tmp_path):
    config = SweepConfig.model_validate(
        {
            "out": tmp_path / "sweep",
            "policy": "lab",
            "store": {"prompts": {"count": 6}, "group_size": 4, "sampling": {"max_thought_tokens": 8}, **STORE},
            "cells": {
                "dpo": {"config": "lab_dpo", "settings": ["store={store}", "pairs_per_step=2", *SMALL]},
                "best ones": {"config": "lab_rejection", "settings": ["store={store}", "best_of_group=true", "threshold=null", *ROWS]},
            },
            "seeds": [0, 1],
            "best_of": 2,
            "evaluation": {"prompts": 6, "samples": 1, "questions_per_type": 0, "sampling": {"max_thought_tokens": 8}},
            "out_of_domain_prompts": 6,
        }
    )  # fmt: skip
    folder = sweep.run(config, lambda _: None)
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["rows"]) == ["untrained", "best of 2", "dpo", "best ones"]
    assert [store["rollouts"] for store in summary["stores"]] == [24, 24]
    assert summary["stores"][0]["content_hash"] != summary["stores"][1]["content_hash"]  # each seed samples its own
    assert [(pair["row"], pair["minus"]) for pair in summary["differences"]][-1] == ("dpo", "best ones")
    dpo = summary["rows"]["dpo"]
    assert dpo["pictures_sampled"] == 24 and dpo["sequences_trained"] == 4 and dpo["reference_forwards"] > 0
    assert len(dpo["test"]["per_seed"]) == len(dpo["ood"]["per_seed"]) == 2
    table = (folder / "table.md").read_text()
    assert "| best ones |" in table and "Not above the untrained policy" in table
    assert (folder / "comparison.svg").read_text(encoding="utf-8").startswith("<svg ")

    metrics = {file: file.read_bytes() for file in folder.rglob("metrics.jsonl")}
    sweep.run(config, lambda _: None)
    assert {file: file.read_bytes() for file in folder.rglob("metrics.jsonl")} == metrics
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_a_cell_that_needs_a_store_says_so(tmp_path):
    config = SweepConfig.model_validate(
        {
            "out": tmp_path / "sweep",
            "cells": {"dpo": {"config": "lab_dpo", "settings": ["store={store}"]}},
            "evaluation": {"prompts": 6, "samples": 1, "sampling": {"max_thought_tokens": 8}},
            "out_of_domain_prompts": 0,
        }
    )
    with pytest.raises(UserError, match="cell dpo names"):
        sweep.run(config, lambda _: None)
