"""A corpus from the configuration to a trained policy; and ReasonGen-R1's published layout as it is."""

import base64
import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.corpus.helpers import LOOSE, picture_folder, rows_of
from tests.corpus.teacher_stub import GOOD
from tests.judges import helpers_vlm
from tests.training.helpers import sft_config
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.data import corpus_tokens
from thinkdraw.data.test_sets import hashes
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import read_picture
from thinkdraw.policies import load_policy
from thinkdraw.recipes import corpus, sft, verifier_data
from thinkdraw.recipes.catalog import read_config
from thinkdraw.recipes.corpus import CorpusConfig, DrawSettings, RationaleDrawer
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.data import DataSettings, load_examples
from thinkdraw.types import Prompt


def reasongen_rows(folder, count: int = 9) -> list[dict]:
    """Rows as ReasonGen-R1 publishes them: no prompt or thought column, lists as texts, pictures as data URIs."""
    rows = []
    for number, file in enumerate(sorted(picture_folder(folder, count).glob("*.png"))):
        uri = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
        prompts = {
            "short_caption": f"A red circle number {number}.", "paraphrases": "['There is a red circle.', \"It's a red circle.\"]",
            "varied_captions": '["one circle", "a circle in red"]', "tags": ["red circle", "white background"],
            "object_prompts": ["a red circle", "a blue star"],
        }  # fmt: skip
        cots = {
            "step_by_step": "First white.",
            "object_centric": ["A red circle."],
            "region_descriptions": ["Top: red."],
            "tags": ["x"],
        }
        rows.append({"image": uri, "brief_caption": "A circle.", "detailed_caption": "A red circle on white. It is small.",
                     "augmented_prompts": prompts, "augmented_cots": cots, "longIB_captions": None})  # fmt: skip
    return rows


@pytest.fixture
def published(tmp_path):
    (tmp_path / "published" / "data").mkdir(parents=True)
    rows = reasongen_rows(tmp_path / "pictures")
    rows += [rows[0] | {"image": "data:image/png;base64,AAAA"}, rows[1] | {"detailed_caption": "word " * 200 + "."}]
    for number, part in enumerate((rows[:5], rows[5:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / "published" / "data" / f"train-{number}.parquet")
    return tmp_path / "published"


def test_the_published_layout_trains_and_what_does_not_fit_is_counted(tmp_path, published, policy, caplog):
    reading = {"prompts": ["plain", "paraphrase", "objects"]}
    config = sft_config(tmp_path, policy, data={"source": str(published), "corpus": reading})
    with caplog.at_level(logging.WARNING):
        sft.run(config)
    rows = MetricsLog.read(config.out / "metrics.jsonl")
    assert len(rows) == 3 and all(np.isfinite(row["loss"]) for row in rows)
    assert (
        "1 rationale does not fit" in caplog.text
        and "1 no readable picture" in caplog.text
        and "9 examples" in caplog.text
    )


def test_prompts_come_in_all_styles_and_tokens_are_those_of_the_centre(tmp_path, published, policy):
    model = load_policy(policy)
    settings = DataSettings.model_validate({"source": str(published), "corpus": {"draws": 12}})
    examples = load_examples(settings, model, 40, tmp_path / "run" / "image_tokens.safetensors")
    texts = {prompt.text for prompt in examples.prompts}
    assert {"There is a red circle", "It's a red circle", "one circle", "red circle, white background",
            "a red circle and a blue star"} <= texts and any(text.startswith("A red circle number") for text in texts)  # fmt: skip
    cell = pq.read_table(published / "data" / "train-0.parquet")["image"][0].as_py()
    pixels = read_picture(base64.b64decode(cell.partition(",")[2]))[:, 2:18]  # 20 × 16: the middle 16 columns
    assert torch.equal(examples.image_tokens[0].long(), model.encode_pictures(torch.from_numpy(pixels.copy())[None])[0])


def test_a_tokenised_corpus_trains_without_a_pixel_being_read(tmp_path, published, policy, monkeypatch, capsys):
    def run(name):
        return sft_config(tmp_path / name, policy, data={"source": str(published)})

    sft.run(before := run("before"))
    done = CliRunner().invoke(app, ["corpus", "tokenise", str(published), f"policy={policy}", "device=cpu"])
    assert "11 rows, 1 without a readable picture" in done.output, done.output
    monkeypatch.setattr(corpus_tokens, "read_with_notes", lambda *data: pytest.fail("a picture was decoded"))
    monkeypatch.setattr(
        "thinkdraw.policies.janus.policy.JanusPolicy.encode_pictures", lambda *a: pytest.fail("encoded again")
    )
    sft.run(after := run("after"))
    losses = [[row["loss"] for row in MetricsLog.read(c.out / "metrics.jsonl")] for c in (before, after)]
    assert losses[0] == losses[1]
    capsys.readouterr()
    sft.run(sft_config(tmp_path / "bf16", policy, data={"source": str(published)}, dtype="bf16"))
    assert f"image tokens of {published}: those of `corpus tokenise`" in capsys.readouterr().err


def test_test_prompts_are_kept_out_of_a_corpus_too(tmp_path, published, policy):
    (tmp_path / "test.txt").write_text("a red circle number 3\n")
    given = {
        "source": str(published),
        "against": [str(tmp_path / "test.txt")],
        "corpus": {"prompts": ["plain"]},
    }
    model = load_policy(policy)
    with pytest.raises(UserError, match="test prompts"):
        load_examples(DataSettings.model_validate(given), model, 24, tmp_path / "a" / "c.safetensors")
    kept = load_examples(
        DataSettings.model_validate(given | {"leaks": "drop"}), model, 24, tmp_path / "a" / "c.safetensors"
    )
    assert len(kept) == 8 and "A red circle number 3" not in {p.text for p in kept.prompts}


def test_a_corpus_without_a_usable_row_is_one_line(tmp_path, policy):
    rows = [row | {"image": None} for row in reasongen_rows(tmp_path / "pictures", 2)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="2 no readable picture"):
        settings = DataSettings(source=str(tmp_path / "rows.parquet"))
        load_examples(settings, load_policy(policy), 24, tmp_path / "c.safetensors")


def lab_config(tmp_path, **changes) -> CorpusConfig:
    values = {
        "out": tmp_path / "corpus", "source": {"kind": "lab", "count": 4, "families": {"geneval": 1.0}}, "device": "cpu",
        "teacher": {"kind": "grammar"}, "filters": LOOSE, "num_threads": 1,
    }  # fmt: skip
    return CorpusConfig.model_validate(values | changes)


def test_prompts_without_pictures_get_the_best_of_several_that_the_policy_draws(tmp_path, policy):
    draw = {"policy": policy, "reward": {"name": "tests.training.helpers:LowCodes"}, "candidates": 3, "batch": 3,
            "sampling": {"max_thought_tokens": 40}}  # fmt: skip
    config = lab_config(
        tmp_path, source={"kind": "lab", "count": 4, "families": {"geneval": 1.0}, "pictures": False}, draw=draw
    )
    rows = rows_of(corpus.run(config))
    model = load_policy(policy)

    def low(png: bytes) -> float:
        return float((model.encode_pictures(torch.from_numpy(read_picture(png))[None]) < 16).float().mean())

    assert all(read_picture(row["image"]["bytes"]).shape == (16, 16, 3) for row in rows) and len(rows) == 4
    assert all(0 <= low(row["image"]["bytes"]) <= 1 for row in rows)

    class Asked:
        """LowCodes, and what it was asked about."""

        name = "asked"
        thoughts: list[str] = []

        def __call__(self, rollouts):
            self.thoughts += rollouts.thoughts
            return (rollouts.image_tokens() < 16).float().mean(1)

    drawer = RationaleDrawer(DrawSettings.model_validate(draw), "cpu", reward := Asked())
    answers = [(item, GOOD) for item in list(config.source.items())[:2]]
    assert len(drawer._draw(answers)) == 2
    # three candidates of two rows, each drawn from the teacher's rationale as far as the budget goes
    assert len(reward.thoughts) == 6 and all(GOOD["detailed_caption"].startswith(t[:20]) for t in reward.thoughts)


def test_a_contradicting_questioner_is_named_by_the_configuration(tmp_path):
    filters = LOOSE | {"contradiction": {"questioner": "tests.recipes.test_corpus:SaysNo", "claims": "objects"}}
    config = lab_config(tmp_path, filters=filters)
    with pytest.raises(UserError, match="has no rows: contradiction"):
        corpus.run(config)
    assert rows_of(config.out) == [] and "contradiction" in (config.out / "filtered.jsonl").read_text()
    with pytest.raises(UserError, match="answers no questions"):
        filters["contradiction"]["questioner"] = "lab-detector"
        corpus.run(lab_config(tmp_path, filters=filters))


class SaysNo:
    def answer(self, pictures, questions):
        return torch.zeros(len(questions))


def test_a_teacher_that_does_not_write_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not answer in words"):
        corpus.run(lab_config(tmp_path, teacher={"kind": "writer", "name": "lab-detector"}))


def test_a_local_vision_language_model_is_a_teacher(tmp_path):
    # a random one, which babbles: what counts is that it is asked, twice about each picture, and nothing is lost
    settings = {"path": str(helpers_vlm.llava(tmp_path / "llava")), "device": "cpu", "max_new_tokens": 8}
    source = {"kind": "folder", "path": str(picture_folder(tmp_path / "pictures", 2, (28, 28)))}
    teacher = {"kind": "writer", "name": "vlm", "settings": settings}
    config = lab_config(tmp_path, source=source, teacher=teacher, limits={"attempts": 2})
    with pytest.raises(UserError, match=r"has no rows: not JSON \(2\)"):
        corpus.run(config)
    aside = [json.loads(line) for line in (config.out / "rejected.jsonl").read_text().splitlines()]
    assert rows_of(config.out) == [] and [len(row["attempts"]) for row in aside] == [2, 2]
    assert all(row["attempts"][0]["reply"] for row in aside)


def test_the_command_line_writes_shows_and_counts(tmp_path):
    out = str(tmp_path / "c")
    given = ["corpus", "write", "lab_corpus", f"out={out}", "source.count=4", "device=cpu"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0 and f"corpus: {out}" in done.output, done.output
    assert "page.html" in CliRunner().invoke(app, ["corpus", "show", out, "--out", str(tmp_path / "page.html")]).output
    assert json.loads(CliRunner().invoke(app, ["corpus", "stats", out, "--json"]).output)["rows"] > 0
    refused = CliRunner().invoke(app, ["corpus", "write", "lab_sft"])
    assert isinstance(refused.exception, UserError)


@pytest.mark.parametrize("name", ["lab_corpus", "lab_verifier_data"])
def test_the_shipped_configurations_load(name):
    assert read_config(name).out.name == name  # type: ignore[attr-defined]


@pytest.fixture
def verifier_config(tmp_path, policy):
    return verifier_data.VerifierDataConfig.model_validate(
        {
            "out": tmp_path / "v", "judge": "low-codes", "balance": "overall", "min_yes": 0.26, "rows_per_shard": 20,
            "sample": {
                "out": tmp_path / "store", "policy": policy, "prompts": {"count": 6}, "count": 4, "group_size": 6,
                "sampling": {"max_thought_tokens": 6}, "rewards": ["tests.training.helpers:LowCodes"], "device": "cpu",
                "num_threads": 1, "precision": "fp32",
            },
        }
    )  # fmt: skip


def test_verifier_data_are_balanced_task_by_task(verifier_config):
    scores = [0.0, 0.3, float("nan"), 0.25, 0.5, 0.1] * 4
    chosen = verifier_data.choose(verifier_config, scores, [n // 6 for n in range(24)])
    count = lambda task, label: sum(c.task == task and c.label is label for c in chosen)  # noqa: E731
    # 8 pictures of 24 are right, 12 wrong, 4 without verdict; at 0.75 all are clear, at 0.25 and 0.5 none is
    assert [(count(task, True), count(task, False)) for task in ("orm", "clarity", "potential")] == [
        (8, 8),
        (24, 24),
        (8, 8),
    ]
    assert {c.fraction for c in chosen if c.task == "potential"} == {0.75}
    assert not {c.row for c in chosen if c.task == "orm"} & {2, 8, 14, 20}


def test_a_verifiers_pictures_are_as_unfinished_as_they_say_and_labelled_by_the_finished_one(verifier_config, policy):
    import datasets

    out = verifier_data.run(verifier_config)
    rows = rows_of(out)
    store, model = RolloutStore.open(verifier_config.sample.out), load_policy(policy)
    assert {row["task"] for row in rows} == {"orm", "clarity", "potential"} and len(store) == 24
    for row in rows[::5]:
        codes = store.row(row["row"]).image_tokens()
        drawn = model.decode_tokens(codes[:, : round(row["fraction"] * 16)])[0].numpy()
        # decoded with its neighbours, whose number changes how the processor rounds: by one level of 255 at most
        assert np.abs(read_picture(row["image"]["bytes"]).astype(int) - drawn).max() <= 1
        share = float((codes < 16).float().mean())
        assert row["score"] == pytest.approx(share)
        if row["task"] != "clarity":
            assert row["label"] == (share >= 0.26)
    table = datasets.load_dataset(str(out), split="train", cache_dir=str(out / "cache"))
    assert table[0]["image"].size == (16, 16) and len(table) == len(rows)
    with pytest.raises(UserError, match=r"sample\.rewards"):
        verifier_data.run(verifier_data.VerifierDataConfig(judge="nobody"))


def test_published_test_prompts_of_a_corpus_are_left_out_and_counted(tmp_path, published, policy, caplog, monkeypatch):
    tested = Prompt("a red circle number 3")
    monkeypatch.setattr(hashes, "_names", lambda: {hashes.hash_of(tested): "Bench"})
    settings = DataSettings.model_validate({"source": str(published), "corpus": {"prompts": ["plain"]}})
    examples = load_examples(settings, load_policy(policy), 40, tmp_path / "run" / "image_tokens.safetensors")
    assert (
        "1 of 9 prompts" in caplog.text
        and len(examples) == 8
        and not any(p.text.lower() == tested.text for p in examples.prompts)
    )
