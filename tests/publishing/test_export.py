"""A run's model leaves in each layout, whole and with a card that says what is known."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus import tiny
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.publishing.export import ExportConfig, export
from thinkdraw.runtime.checkpoint import write_checkpoint
from thinkdraw.runtime.formats.sealed import seal_line, write_sealed

CONFIG = {
    "recipe": "grpo", "policy": "deepseek-ai/Janus-Pro-1B", "out": "/home/somebody/runs/mine",
    "sampling": {"thought": "inline", "guidance_scale": 5.0, "temperature": 1.0, "max_thought_tokens": 96},
    "reward": {"name": "http", "settings": {"url": "https://user:hunter2@judge.example/v1"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder of two checkpoints of a policy with adapters; the first is the best."""
    root = tmp_path_factory.mktemp("export")
    policy = load_policy(tiny.random_janus(root / "base"), lora=LoraSettings(rank=2))
    run = root / "mine"
    for step in (1, 2):
        with torch.no_grad():
            for name, weight in policy.network.named_parameters():
                if ".lora_B." in name:
                    weight.fill_(0.01 * step)
        with write_checkpoint(run, step) as folder:
            policy.save(folder)
            save_file({"moment": torch.zeros(1)}, folder / "trainer_state.safetensors")
            (folder / "trainer_state.json").write_text("{}")
    (run / "checkpoints" / "best").write_text("step_000001\n")
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    rows = [{"step": s, "validation_score": s / 4, "pictures_sampled": 1000 * s, "seconds": 60.0 * s} for s in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(f"{seal_line(row)}\n" for row in rows))
    return run


@pytest.mark.parametrize("layout", ["hf", "deepseek"])
@pytest.mark.parametrize(("select", "step"), [("best", 1), ("last", 2)])
def test_the_exported_model_is_the_chosen_checkpoint(run: Path, tmp_path: Path, layout, select, step):
    out = export(ExportConfig(run=run, to=layout, out=tmp_path / "out", select=select))
    checkpoint = run / "checkpoints" / f"step_{step:06d}"
    assert load_policy(out).revision == load_policy(checkpoint).revision
    # Nothing that only training needs leaves.
    assert not [file.name for file in out.iterdir() if file.name.startswith(("trainer_state", "complete"))]


def test_adapters_leave_alone(run: Path, tmp_path: Path):
    out = export(ExportConfig(run=run, to="peft", out=tmp_path / "out"))
    assert sorted(f.name for f in out.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "drawing.json",
    ]  # fmt: skip
    base = run.parent / "base"
    assert load_policy(f"{base}+{out}").revision == load_policy(run / "checkpoints" / "step_000001").revision


def test_bf16_weights_leave_bit_for_bit(run: Path, tmp_path: Path):
    bf16 = tmp_path / "run"
    with write_checkpoint(bf16, 1) as folder:
        load_policy(run.parent / "base", dtype="bf16").save(folder)
    (bf16 / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    out = export(ExportConfig(run=bf16, to="deepseek", select="last"))
    weights = load_file(out / "model.safetensors")
    assert out == bf16 / "export_deepseek" and {w.dtype for w in weights.values()} == {torch.bfloat16}
    back = load_policy(out, dtype="bf16")
    assert back.revision == load_policy(bf16 / "checkpoints" / "step_000001", dtype="bf16").revision


def test_the_card_says_what_is_known_and_keeps_secrets_and_paths(run: Path, tmp_path: Path):
    evaluation = tmp_path / "eval" / "geneval"
    evaluation.mkdir(parents=True)
    summary = {"label": "GenEval", "score": 0.5, "low": 0.4, "high": 0.6, "prompts": 553, "pictures": 2212}
    write_sealed(evaluation / "summary.json", summary)
    out = export(ExportConfig(run=run, out=tmp_path / "out", evaluations=[evaluation], license="mit"))
    text = (out / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["base_model"] == "deepseek-ai/Janus-Pro-1B" and head["license"] == "mit"
    assert "| GenEval | 0.500 | [0.400, 0.600] | 553 | 2212 |" in text
    assert "`thought`: inline" in text and "thinkdraw generate out -p" in text  # as recorded with the checkpoint
    assert "pictures sampled: 1,000" in text  # those of the best checkpoint's step
    assert "(recipe `grpo`, step 1)" in text and "hunter2" not in text and "/home/somebody" not in text


def test_without_an_evaluation_the_card_does_not_take_validation_for_a_score(run: Path, tmp_path: Path):
    text = (export(ExportConfig(run=run, out=tmp_path / "out")) / "README.md").read_text()
    assert "Validation score in training: 0.250. It chose the checkpoint, so it is too high" in text


def test_push_makes_the_repository_and_uploads_once_and_a_refusal_is_one_line(run: Path, tmp_path: Path, monkeypatch):
    calls: list[tuple] = []

    class StubHub:
        def create_repo(self, name, *, private, exist_ok):
            calls.append(("create", name, private, exist_ok))

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            calls.append(("upload", repo_id, sorted(file.name for file in Path(folder_path).iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", StubHub)
    export(ExportConfig(run=run, to="peft", out=tmp_path / "out", push="me/mine"))
    assert calls[0] == ("create", "me/mine", True, True)
    assert calls[1][:2] == ("upload", "me/mine") and "README.md" in calls[1][2]

    def refuse(*args, **kwargs):
        raise OSError("401 Client Error")

    monkeypatch.setattr(StubHub, "create_repo", refuse)
    with pytest.raises(
        UserError, match=r"push=me/mine: the hub refused \(401 Client Error\)\. The export is complete in"
    ):
        export(ExportConfig(run=run, to="peft", out=tmp_path / "out", push="me/mine"))


def test_a_folder_with_files_of_others_is_never_replaced_and_an_earlier_export_is(run: Path, tmp_path: Path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    for out in (mine, run, run / "checkpoints", run.parent):
        with pytest.raises(UserError, match=r"holds files that no export wrote, and would be replaced"):
            export(ExportConfig(run=run, out=out))
    assert (mine / "thesis.txt").read_text() == "years" and (run / "config.yaml").is_file()
    out = export(ExportConfig(run=run, to="peft", out=tmp_path / "out"))
    assert export(ExportConfig(run=run, to="peft", out=out)) == out


def test_the_card_hides_keys_and_the_machines_paths(run: Path, tmp_path: Path):
    edited = tmp_path / "edited"
    edited.mkdir()
    (edited / "checkpoints").symlink_to(run / "checkpoints")
    settings = {"api_key": "sk-abcdef", "key_env": "OPENAI_API_KEY", "path": "/home/alice/judges/clip"}
    config = CONFIG | {"policy": "/home/alice/models/<b>mine", "reward": {"name": "http", "settings": settings}}
    (edited / "config.yaml").write_text(yaml.safe_dump(config))
    text = (export(ExportConfig(run=edited, to="peft", out=tmp_path / "out")) / "README.md").read_text()
    assert "alice" not in text and "sk-abcdef" not in text and "OPENAI_API_KEY" in text and "**&lt;b&gt;mine**" in text


def test_what_cannot_be_exported_is_said_in_a_line(run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no run folder, for it has no checkpoints"):
        export(ExportConfig(run=tmp_path))
    plain = tmp_path / "plain"
    with write_checkpoint(plain, 3) as folder:
        load_policy(run.parent / "base").save(folder)
    (plain / "config.yaml").write_text(json.dumps(CONFIG))
    with pytest.raises(UserError, match=r"push=me: not a repository of the hub\. Write OWNER/NAME"):
        export(ExportConfig(run=run, out=tmp_path / "out", push="me"))
    with pytest.raises(UserError, match="step_000003 has no adapters; the run trained all weights"):
        export(ExportConfig(run=plain, to="peft"))
    with pytest.raises(UserError, match=r"nowhere.*summary\.json"):
        export(ExportConfig(run=run, out=tmp_path / "out", evaluations=[tmp_path / "nowhere"]))
