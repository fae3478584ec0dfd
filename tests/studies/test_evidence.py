"""The controls at their smallest: every part runs, is judged in and out of domain, and a second call finds all done."""

import json

import pytest

from thinkdraw.lab import checkpoint_path
from thinkdraw.studies import evidence
from thinkdraw.studies.evidence import PAIRS, EvidenceConfig
from thinkdraw.studies.quickstart import EvaluationSettings
from thinkdraw.types import SamplingOverrides


@pytest.mark.slow
@pytest.mark.skipif(not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is not in this tree")
def test_every_control_is_trained_and_compared(tmp_path):
    config = EvidenceConfig(
        out=tmp_path / "evidence",
        evaluation=EvaluationSettings(
            prompts=6, samples=1, questions_per_type=0, sampling=SamplingOverrides(max_thought_tokens=8)
        ),
        out_of_domain_prompts=6,
        agreement_prompts=4,
        sft=["data.count=8", "batch_rows=4", "max_steps=1", "max_thought_tokens=8"],
        grpo=[
            "prompts.count=8",
            "prompts_per_phase=2",
            "group_size=2",
            "max_steps=1",
            "validation.every=0",
            "sampling.max_thought_tokens=8",
        ],
    )
    said: list[str] = []
    folder = evidence.run(config, said.append)
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["stages"]) == [
        "base",
        "sft",
        "rl",
        "sft, seed 1",
        "rl, seed 1",
        "sft-longer",
        "rl-judge",
        "rl-off",
    ]
    assert set(summary["difference"]) == set(summary["difference_ood"]) == set(PAIRS)
    assert all(0 <= stage["score"] <= 1 and stage["ood"]["pictures"] == 6 for stage in summary["stages"].values())
    table = (folder / "table.md").read_text()
    assert "| rl − sft-longer |" in table and "| rl-judge |" in table

    before = {file: file.stat().st_mtime_ns for file in folder.rglob("results.jsonl")}
    evidence.run(config, said.append)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("results.jsonl")}.keys() == before.keys()
    assert json.loads((folder / "summary.json").read_text())["stages"] == summary["stages"]
