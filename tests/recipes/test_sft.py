import base64
import json
import os
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.training.helpers import counts_of, flat, gradients, rows_without_times, sft_config, write_examples

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.recipes import sft
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.data import DataSettings, Examples, load_examples
from thinkdraw.training.optimiser import Optimiser
from thinkdraw.training.run import backward, open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Prompt, Rollouts, Sampling, TokenLogProbs


def loss_of(model, batch, config, world):
    return partial(sft.sft_loss, model, counts=counts_of(batch, world), config=config)


def test_a_picture_that_is_stored_turned_or_transparent_is_learned_as_it_looks(tmp_path, caplog):
    model = load_policy(random_janus(tmp_path / "policy64", image_size=64, patch=16, layers=1))
    pixels = np.full((64, 64, 3), 255, dtype=np.uint8)
    pixels[:20] = (200, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "up.png")
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(tmp_path / "turned.png", exif=exif)
    clear = np.dstack([np.where(pixels == 255, 0, pixels), np.where(pixels[..., 1] == 255, 0, 255).astype(np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    rows = [{"prompt": "a bar", "thought": "here", "image": f"{name}.png"} for name in ("up", "turned", "clear")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = DataSettings(source=str(tmp_path / "rows.jsonl"))
    codes = load_examples(settings, model, 24, tmp_path / "codes.safetensors").image_tokens
    assert (codes[0] == codes[1]).all() and (codes[0] == codes[2]).all()
    assert "1 transparency composed on white, 1 turned as EXIF says" in caplog.text


def test_a_picture_may_be_in_the_row_itself_as_data_sets_keep_it(tmp_path):
    model = load_policy(random_janus(tmp_path / "policy64", image_size=64, patch=16, layers=1))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    cells = [{"bytes": data, "path": None}, {"bytes": None, "path": "a.png"}, {"bytes": data, "path": "gone.png"}]
    table = pa.table({"prompt": ["a", "b", "c"], "thought": ["x"] * 3, "image": cells})
    pq.write_table(table, tmp_path / "rows.parquet")
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    rows = [{"prompt": "d", "thought": "x", "image": value} for value in ("a.png", uri, {"path": "a.png"})]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    codes = [
        load_examples(DataSettings(source=str(tmp_path / name)), model, 24, tmp_path / f"{name}.codes").image_tokens
        for name in ("rows.parquet", "rows.jsonl")
    ]
    assert (torch.cat(codes) == codes[0][0]).all()
    for value, says in (([1], "line 1, image: .* not a list"), ({"bytes": None, "path": None}, "neither `image`")):
        (tmp_path / "odd.jsonl").write_text(json.dumps({"prompt": "d", "thought": "x", "image": value}))
        with pytest.raises(UserError, match=says):
            load_examples(DataSettings(source=str(tmp_path / "odd.jsonl")), model, 24, tmp_path / "codes")
    os.mkfifo(tmp_path / "pipe.png")
    pq.write_table(
        pa.table({"prompt": ["a"], "thought": ["x"], "image": [b"no picture" * 99]}), tmp_path / "bytes.parquet"
    )
    (tmp_path / "pipe.jsonl").write_text(json.dumps({"prompt": "d", "thought": "x", "image": "pipe.png"}))
    for name, says in (("bytes.parquet", "row 1: its picture cannot be read"), ("pipe.jsonl", "no such file")):
        with pytest.raises(UserError, match=says) as error:
            load_examples(DataSettings(source=str(tmp_path / name)), model, 24, tmp_path / "codes")
        assert len(str(error.value)) < 500


@pytest.mark.parametrize("reduction", ["segment", "token"])
def test_any_split_into_micro_batches_gives_the_same_gradient(tmp_path, policy, reduction):
    config = sft_config(tmp_path, policy, micro_rows=64, batch_rows=12, reduction=reduction, drop_frac=0.3)
    world = World(config)
    model = open_policy(config, world)
    examples = load_examples(config.data, model, 24, tmp_path / "codes.safetensors")
    batch = sft.step_batch(model, examples, config, Sampling(max_thought_tokens=24), 0, world)
    results = []
    for micro_rows in (64, 5, 1):
        cut = config.model_copy(update={"micro_rows": micro_rows})
        grads, sums = gradients(cut, model, loss_of(model, batch, config, world), batch)
        results.append((flat(grads), sums))
    for grads, sums in results[1:]:
        assert float((grads - results[0][0]).norm() / results[0][0].norm()) < 1e-5
        assert sums == pytest.approx(results[0][1], rel=1e-5)


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path, policy):
    whole = sft_config(
        tmp_path / "whole",
        policy,
        max_steps=5,
        save_every=10,
        data={"source": str(write_examples(tmp_path / "e.jsonl"))},
    )
    parts = whole.model_copy(update={"out": tmp_path / "parts", "max_steps": 3})
    sft.run(whole)
    sft.run(parts)
    with (parts.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 0}\n{"st')  # what a killed run leaves behind
    sft.run(parts.model_copy(update={"max_steps": 5}))
    assert rows_without_times(parts.out) == rows_without_times(whole.out)
    weights = [load_file(folder / "checkpoints/step_000005/model.safetensors") for folder in (parts.out, whole.out)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_loss_falls_and_frozen_parts_stay(tmp_path, policy):
    config = sft_config(
        tmp_path, policy, max_steps=12, drop_frac=0.0, optimiser={"learning_rate": 3e-3, "weight_decay": 0.1}
    )
    sft.run(config)
    rows = MetricsLog.read(config.out / "metrics.jsonl")
    # segment: loss = 0.35 · text + 1.0 · image
    assert rows[0]["loss"] == pytest.approx(0.35 * rows[0]["text_nats"] + rows[0]["image_nats"], rel=1e-5)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    before, after = (
        load_file(f"{policy}/model.safetensors"),
        load_file(config.out / "checkpoints/step_000012/model.safetensors"),
    )
    assert all(torch.equal(before[n], after[n]) for n in before if "vqmodel" in n or "vision_model" in n)


@pytest.mark.parametrize("changes", [{}, {"dtype": "bf16"}, {"lora": {"rank": 2}}], ids=["fp32", "bf16", "adapters"])
def test_an_offloaded_optimiser_learns_the_same_and_may_be_switched_on_the_way(tmp_path, policy, changes):
    values: dict[str, Any] = {"learning_rate": 1e-3, "warmup_steps": 0}
    runs = []
    for offloads in ((False, False), (True, True), (False, True)):
        out = tmp_path / "_".join(map(str, offloads))
        for max_steps, offload in zip((2, 4), offloads):
            optimiser = values | {"offload": offload}
            config = sft_config(tmp_path, policy, out=out, max_steps=max_steps, optimiser=optimiser, **changes)
            sft.run(config)
        runs.append(load_file(out / "checkpoints/step_000004/model.safetensors"))
    for other in runs[1:]:
        assert all(torch.equal(other[name], weight) for name, weight in runs[0].items())


def test_an_offloaded_optimiser_has_copies_of_its_own_and_no_shards(tmp_path, policy):
    config = sft_config(tmp_path, policy, optimiser={"offload": True})
    world = World(config)
    optimiser = Optimiser(open_policy(config, world), config.optimiser, world)
    for name, weight in optimiser.weights.items():
        assert optimiser.masters[name].data_ptr() != weight.data_ptr() and torch.equal(optimiser.masters[name], weight)
    with pytest.raises(ValueError, match=r"optimiser.offload=true cannot be used with sharding=fsdp2"):
        sft_config(tmp_path, policy, optimiser={"offload": True}, sharding="fsdp2")


def test_bf16_weights_have_fp32_masters_that_keep_small_updates(tmp_path, policy):
    # A step of 1e-5 is lost on a bf16 weight of size 1 (spacing 8e-3); 3 steps of it must add up in the fp32 copy.
    config = sft_config(
        tmp_path, policy, dtype="bf16", precision="bf16", optimiser={"learning_rate": 1e-5, "warmup_steps": 0}
    )
    world = World(config)
    model = open_policy(config, world)
    optimiser = Optimiser(model, config.optimiser, world)
    name = next(n for n in optimiser.masters if n.endswith("norm.weight"))
    before = optimiser.masters[name].clone()
    examples = load_examples(config.data, model, 24, tmp_path / "codes.safetensors")
    for step in range(3):
        batch = sft.step_batch(model, examples, config, Sampling(max_thought_tokens=24), step, world)
        backward(loss_of(model, batch, config, world), batch, config.micro_rows)
        assert all(w.grad is None for w in optimiser.weights.values())
        optimiser.step(step, 0.0)
    assert optimiser.weights[name].dtype == torch.bfloat16 and optimiser.masters[name].dtype == torch.float32
    moved = (optimiser.masters[name] - before).abs()
    assert 0 < float(moved.max()) < 5e-5 and torch.equal(optimiser.weights[name], optimiser.masters[name].bfloat16())


def test_adapters_train_alone_and_resume(tmp_path, policy):
    whole = sft_config(tmp_path / "whole", policy, lora={"rank": 2}, max_steps=3)
    sft.run(whole)
    parts = sft_config(tmp_path / "parts", policy, lora={"rank": 2}, max_steps=2, data={"source": whole.data.source})
    sft.run(parts)
    sft.run(parts.model_copy(update={"max_steps": 3}))
    assert rows_without_times(parts.out) == rows_without_times(whole.out)
    load_policy(whole.out / "checkpoints/step_000003")  # merged: plain transformers weights


def test_the_labs_pictures_are_tokenised_once(tmp_path, monkeypatch):
    model = load_policy(random_janus(tmp_path / "policy64", image_size=64, patch=16, layers=1))
    settings, cache = (
        DataSettings(families={"geneval": 2, "dense": 1}, count=9),
        tmp_path / "data" / "codes.safetensors",
    )
    first = load_examples(settings, model, 24, cache)
    assert len(first) == 9 and first.image_tokens.dtype == torch.uint16 and first.image_tokens.shape == (9, 16)
    assert sum(p.tag == "dense" for p in first.prompts) == 3 and all(first.thoughts)
    monkeypatch.setattr(model, "encode_pictures", lambda pictures: pytest.fail("tokenised twice"))
    second = load_examples(settings, model, 24, cache)
    assert torch.equal(second.image_tokens.int(), first.image_tokens.int()) and second.thoughts == first.thoughts


def test_pictures_of_any_size_are_read_from_parquet_rows(tmp_path, policy):
    model = load_policy(policy)
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "same.png")
    Image.fromarray(picture).resize((40, 32)).save(tmp_path / "other.png")
    rows = [{"prompt": "a ring", "thought": "here", "image": name} for name in ("same.png", "other.png")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    examples = load_examples(
        DataSettings(source=str(tmp_path / "rows.parquet")), model, 24, tmp_path / "codes.safetensors"
    )
    assert torch.equal(examples.image_tokens[0].long(), model.encode_pictures(torch.from_numpy(picture)[None])[0])


def test_a_pass_takes_every_row_at_most_once_and_buckets_by_length():
    examples = Examples([Prompt("p" * n) for n in range(50)], [""] * 50, torch.zeros(50, 4, dtype=torch.uint16))
    batches = examples.batches(8, 3, seed=0, epoch=0)
    assert len(batches) == 6 and len({i for b in batches for i in b.tolist()}) == 48
    padding = lambda parts: sum(int(b.max()) * len(b) - int(b.sum()) for b in parts)  # noqa: E731
    assert padding(batches) < padding(examples.batches(8, 1, seed=0, epoch=0))


CODES = [1] * 16


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no example"),
        ([{"prompt": "a ring", "image_tokens": CODES}], "line 1 has no `thought`"),
        ([{"thought": "a", "image_tokens": CODES}], "line 1 has no `prompt`"),
        ([{"prompt": "a ring", "thought": "a"}], "neither `image`"),
        ([{"prompt": "a ring", "thought": "a", "image": "gone.png"}], "gone.png cannot be read"),
        ([{"prompt": "a ring", "thought": "a", "image_tokens": [64] * 16}], "16 integers from 0 to 63"),
        ([{"prompt": "a ring", "thought": "a", "image_tokens": CODES}] * 3, "fewer than batch_rows=6"),
        ([{"prompt": "a ring " * 300, "thought": "a", "image_tokens": CODES}] * 6, "exceeds the model's 512 positions"),
    ],
)
def test_bad_rows_are_named(tmp_path, policy, rows, message):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        sft.run(sft_config(tmp_path, policy, data={"source": str(file)}))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_missing_file_is_named(tmp_path, policy, name):
    with pytest.raises(UserError, match=name):
        sft.run(sft_config(tmp_path, policy, data={"source": str(tmp_path / name)}))


def out_of_memory_above(most: int, monkeypatch: pytest.MonkeyPatch, seen: list[int]) -> None:
    """Backward passes of more rows run out of memory on the way, when some gradients are there already."""
    log_probs = JanusPolicy.log_probs

    def scored(self: JanusPolicy, rollouts: Rollouts) -> TokenLogProbs:
        found = log_probs(self, rollouts)
        seen.append(len(rollouts))

        def runs_out(gradient: torch.Tensor) -> None:
            if len(rollouts) > most:
                self.model.lm_head.weight.grad = torch.ones_like(self.model.lm_head.weight)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

        found.log_probs.register_hook(runs_out)
        return found

    monkeypatch.setattr(JanusPolicy, "log_probs", scored)


def test_where_learning_runs_out_of_memory_it_goes_on_with_fewer_rows_and_the_same_gradient(
    tmp_path, policy, monkeypatch
):
    config = sft_config(tmp_path, policy, micro_rows=12, batch_rows=12)
    world = World(config)
    model = open_policy(config, world)
    examples = load_examples(config.data, model, 24, tmp_path / "codes.safetensors")
    sampling = Sampling(max_thought_tokens=24)
    batch = sft.step_batch(model, examples, config, sampling, 0, world)
    work = partial(backward, loss_of(model, batch, config, world), batch)

    def collected(optimiser: Optimiser) -> torch.Tensor:
        optimiser.collect(work, config.micro_rows, batch.num_micro, sampling)
        return torch.cat([m.grad.flatten().clone() for m in optimiser.masters.values() if m.grad is not None])

    whole, seen = collected(Optimiser(model, config.optimiser, world)), []
    out_of_memory_above(4, monkeypatch, seen)
    optimiser = Optimiser(model, config.optimiser, world)
    with pytest.warns(UserWarning, match="out of memory with 12 rows per pass: going on with 6"):
        halved = collected(optimiser)
    assert seen == [12, 6, 3, 3, 3, 3]
    assert float((halved - whole).norm() / whole.norm()) < 1e-5
    seen.clear()
    collected(optimiser)
    assert seen == [3, 3, 3, 3]  # it does not try again

    seen.clear()
    out_of_memory_above(0, monkeypatch, seen)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="out of memory with a single one"):
        collected(optimiser)


def test_image_tokens_follow_the_pictures_and_are_made_once(tmp_path, policy, monkeypatch, caplog):
    """However a picture changed: in the row, in the file, behind the same size and time, or the cache is of before."""
    model = load_policy(policy)
    encoded = []
    encode = model.encode_pictures
    monkeypatch.setattr(model, "encode_pictures", lambda pictures: encoded.append(len(pictures)) or encode(pictures))
    side = (model.picture.height, model.picture.width)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", side, colour).save(tmp_path / name)
    rows, cache = tmp_path / "rows.jsonl", tmp_path / "cache.safetensors"

    def tokens(*names):
        rows.write_text("".join(json.dumps({"prompt": "it", "thought": "t", "image": name}) + "\n" for name in names))
        return load_examples(DataSettings(source=str(rows)), model, 24, cache).image_tokens.int()

    first = tokens("a.png", "b.png")
    assert torch.equal(tokens("a.png", "b.png"), first) and encoded == [2]
    assert torch.equal(tokens("b.png", "a.png"), first.flip(0)) and "other pictures" in caplog.text
    stat = (tmp_path / "a.png").stat()
    Image.new("RGB", side, "blue").save(tmp_path / "new.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "new.png").read_bytes().ljust(stat.st_size, b"\0"))
    os.utime(tmp_path / "a.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = tokens("b.png", "a.png")
    assert torch.equal(again[0], again[1])
    save_file({"image_tokens": first.to(torch.uint16)}, cache)  # as it was written before
    caplog.clear()
    assert torch.equal(tokens("b.png", "a.png"), again) and "does not say which pictures it was made of" in caplog.text
    cache.write_bytes(b"damaged")
    assert torch.equal(tokens("b.png", "a.png"), again)


@pytest.mark.parametrize(("how", "left", "said"), [("drop", 2, "1 of 3 thoughts"), ("cut", 3, "1 of 3 thoughts")])
def test_thoughts_without_room_are_counted(tmp_path, policy, how, left, said, caplog):
    model = load_policy(policy)
    row = {"prompt": "it", "image_tokens": [0] * 16}
    texts = ["draw it", "draw it " * 40, "it"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {"thought": text}) + "\n" for text in texts))
    settings = DataSettings(source=str(tmp_path / "rows.jsonl"), over_long=how)
    assert len(load_examples(settings, model, 12, tmp_path / "c.safetensors")) == left
    assert said in caplog.text
    refusing = settings.model_copy(update={"over_long": "refuse"})
    with pytest.raises(UserError, match=r"rows.jsonl, row 2 \(00002\): its thought .* data.over_long=cut or drop"):
        load_examples(refusing, model, 12, tmp_path / "c.safetensors")
