"""What is damaged: small valid files of each kind, and what reads them as the commands do.

A target's reader gives the numbers that it read, to be compared with those of the undamaged files; None where another content
is as good as the first: another configuration, another picture.
"""

import contextlib
import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from tests.benchmarks.stub import StubPolicy
from tests.rollouts.helpers import filled

from thinkdraw.benchmarks.lab.benchmark import evaluate_lab
from thinkdraw.config import dump_config, load_config
from thinkdraw.corpus.show import write_page
from thinkdraw.corpus.stats import corpus_stats
from thinkdraw.data.corpus_rows import CorpusReaderConfig, read_texts
from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.picture_reader import read_picture
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.opening import load_trained
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.report import write_report
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.cache import AnswerCache
from thinkdraw.runtime.checkpoint import latest_checkpoint, load_trainer_state, save_trainer_state, write_checkpoint
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.studies.compare import FinishedRun
from thinkdraw.studies.evaluate_import import compare_folders
from thinkdraw.types import Sampling


@dataclasses.dataclass(frozen=True)
class Target:
    """make: writes valid files into an empty folder. files: glob → how they are damaged, "bytes" or "text".

    read: raises UserError for what it refuses. accepts: whether what was read may stand for what was written.
    """

    name: str
    make: Callable[[Path], None]
    files: Mapping[str, str]
    read: Callable[[Path], Any]
    accepts: Callable[[Any, Any], bool] = lambda found, written: str(found) == str(written)
    weight: float = 1.0


def _rows_of(found: Any, written: Any) -> bool:
    """Whether all rows are as they were written, in order; a log that was cut at the end of a line has fewer."""
    rest = iter([str(row) for row in written])
    return all(str(row) in rest for row in found)


# Configurations and prompts


def _make_configs(folder: Path) -> None:
    for name in ("lab_grpo", "lab_sft", "lab_dpo", "lab_corpus", "lab_objectives"):
        (folder / f"{name}.yaml").write_text(dump_config(read_config(name)), encoding="utf-8")


def _read_configs(folder: Path) -> None:
    """A configuration that is accepted is whole: it is written and read again to the same, and has finite numbers only."""
    for file in sorted(folder.glob("*.yaml")):
        config = read_config(file)
        text = dump_config(config)
        again = file.with_suffix(".yml")
        again.write_text(text, encoding="utf-8")
        assert load_config(type(config), again) == config
        assert not any(math.isnan(n) or math.isinf(n) for n in _floats(config.model_dump())), (
            "a number that is not finite"
        )
        again.unlink()


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _floats(inner)


def _make_prompts(folder: Path) -> None:
    rows = [{"id": f"p{i}", "prompt": f"a photo of {i} red cats", "tag": "counting"} for i in range(1, 5)]
    rows[0]["include"] = [{"class": "cat", "count": 1, "color": "red"}]  # type: ignore[assignment]
    rows[1]["questions"] = [{"id": 0, "text": "is there a cat?", "depends_on": []}]  # type: ignore[assignment]
    (folder / "a.txt").write_text("".join(f"{row['prompt']}\n" for row in rows), encoding="utf-8")
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "c.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    (folder / "d.csv").write_text(
        "id,prompt\n" + "".join(f'{i},"a {i}, and ""b"""\n' for i in range(4)), encoding="utf-8"
    )
    pq.write_table(pa.table({"prompt": [row["prompt"] for row in rows]}), folder / "e.parquet")


def _read_prompts(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        for prompt in read_prompts(file):
            assert prompt.text.strip() and prompt.text.encode("utf-8"), "a prompt that no policy can read"
            json.dumps(dataclasses.asdict(prompt), allow_nan=False)


# Stores, caches, checkpoints, run folders, evaluations


def _make_store(folder: Path) -> None:
    filled(
        folder / "store",
        JanusPolicy.load(_tiny(folder), device="cpu", dtype="fp32", lora=None, precision="fp32"),
        shards=2,
    )


def _tiny(folder: Path) -> str:
    """A random checkpoint beside the folder, made once."""
    path = folder.parent / "tiny"
    if not path.is_dir():
        random_janus(path, hidden=16, layers=1, heads=2, vocab_size=300)
    return str(path)


def _read_store(folder: Path) -> Any:
    store = RolloutStore.open(folder / "store")
    info = store.info()
    shards = [shard.rollouts() for shard in store.shards()]
    kept = [[str(r.prompts), r.tokens.tolist(), r.log_probs.tolist(), r.seeds.tolist()] for r in shards]
    scores = store.scores("counting").tolist()
    assert not np.isinf(scores).any()
    return [info["rows"], info["content_hash"], kept, scores, store.header.model_dump()]


def _store_of(found: Any, written: Any) -> bool:
    """Whether it is the store, or what is left without its newest shards, or scores, which may be given up."""
    scores = zip(found[3], written[3])
    return str(found[2::2]) == str([written[2][: len(found[2])], written[4]]) and all(
        math.isnan(now) or now == before for now, before in scores
    )


def _make_cache(folder: Path) -> None:
    cache = AnswerCache(folder / "cache.sqlite")
    for i in range(4):
        cache.put("judge", "r", {f"k{j}": {"reward": j / 100, "text": "y" * 40} for j in range(10 * i, 10 * i + 10)})
    cache.close()


def _read_cache(folder: Path) -> Any:
    cache = AnswerCache(folder / "cache.sqlite")
    try:
        return cache.get("judge", "r", [f"k{j}" for j in range(40)])
    finally:
        cache.close()


def _make_run(folder: Path) -> None:
    run = folder / "run"
    run.mkdir()
    config = read_config("lab_grpo", [f"out={run}", "max_steps=2"])
    (run / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    (run / "environment.json").write_text('{"python": "3.11", "cores": 2, "versions": {"torch": "2"}}')
    (run / "started.json").write_text(json.dumps({"base": "r", "prompts": "d", "sampling": {"temperature": 1.0}}))
    log = MetricsLog(run / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append(
            {"step": step, "reward_mean": 0.25 * step, "loss": 0.5, "seconds": 2.0 * step, "pictures_sampled": 8 * step}
        )
    policy = load_policy(_tiny(folder))
    for step in (2, 3):
        with write_checkpoint(run, step) as place:
            policy.save(place)  # type: ignore[attr-defined]
            save_trainer_state(place, {"step": step, "seconds": 1.5, "best": "", "moments": torch.arange(6.0)})
    (run / "checkpoints" / "best").write_text("step_000003\n")
    rows = [{"step": 1, "prompt": "a cat", "group": 0, "member": m, "thought": "so", "reward": m / 2, "advantage": 0.5,
             "seed": m, "components": "{}"} for m in range(3)]  # fmt: skip
    (run / "rollouts").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), run / "rollouts" / "step_000001.parquet")


def _read_run(folder: Path) -> Any:
    """The report is written whatever is damaged; the numbers are those of `compare` and of a run that goes on."""
    write_report(folder / "run", folder / "report.html")
    return MetricsLog.read(folder / "run" / "metrics.jsonl")


def _read_finished(folder: Path) -> Any:
    return FinishedRun.read(folder / "run").spent


def _sums_of_a_row(found: Any, written: Any) -> bool:
    """Whether the costs are those of one of the run's three steps: a log may have been cut at the end of a line."""
    return found["seconds"] in (2.0, 4.0, 6.0) and found["pictures_sampled"] == 4 * found["seconds"]


def _read_checkpoint(folder: Path) -> Any:
    newest = latest_checkpoint(folder / "run")
    state = load_trainer_state(newest) if newest else None
    policy = load_trained(folder / "run")
    return [state, policy.revision]


def _state_of(found: Any, written: Any) -> bool:
    return str(found) == str(written) or found[0] is None


def _make_evaluations(folder: Path) -> None:
    examples = prompt_set("geneval", "test", 6)
    for name, mistakes in (("a", 0.5), ("b", 0.0)):
        evaluate_lab(
            StubPolicy(examples, mistakes), "geneval", "test", 6, 1, Sampling(), 0, folder / name, keep_pictures=0
        )  # type: ignore[arg-type]


def _read_evaluations(folder: Path) -> Any:
    write_report(folder, folder / "report.html") if (folder / "metrics.jsonl").exists() else None
    return compare_folders(folder / "a", folder / "b")


# Corpora and pictures


def _make_corpus(folder: Path) -> None:
    with contextlib.chdir(folder):  # `out` is a part of the configuration, and the folder is copied
        run_config(read_config("lab_corpus", [
            "out=corpus", "source={kind: lab, count: 6, families: {geneval: 1.0}}", "teacher={kind: grammar}",
        ]))  # fmt: skip


def _read_corpus(folder: Path) -> Any:
    stats = corpus_stats(folder / "corpus")
    write_page(folder / "corpus", folder / "page.html", 4, 0)
    texts = read_texts(folder / "corpus", CorpusReaderConfig(), lambda text: True, lambda text: True, 0)
    return [stats["rows"], stats["fields"], [(row.row, row.prompt.text, row.thought) for row in texts.rows]]


def _goes_on_with_corpus(folder: Path) -> Any:
    """What a stopped `corpus write` reads when it goes on."""
    _make_corpus(folder)
    return _read_corpus(folder)


def _make_pictures(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff"):
        image.save(folder / f"a.{suffix}")
    Image.fromarray(np.dstack([pixels, pixels[..., :1]])).save(folder / "alpha.png")
    image.convert("P").save(folder / "palette.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    exif = Image.Exif()
    exif[274] = 6
    image.save(folder / "turned.jpg", exif=exif)


def _read_pictures(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        picture = read_picture(file)
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


_CHECKPOINT = "run/checkpoints/step_000003"
TARGETS = (
    Target("configurations", _make_configs, {"*.yaml": "text"}, _read_configs, weight=2),
    Target(
        "prompts", _make_prompts, {"*.txt": "text", "*.json*": "text", "*.csv": "text", "*.parquet": "bytes"}, _read_prompts,
        weight=1.5,
    ),
    Target(
        "stores", _make_store, {"store/**/*.parquet": "bytes", "store/**/*.json": "text"}, _read_store, _store_of, weight=1.5
    ),
    Target(
        "verdict cache", _make_cache, {"cache.sqlite": "bytes"}, _read_cache,
        lambda found, written: found.items() <= written.items(),
    ),
    Target(
        "run folders", _make_run,
        {"run/*.jsonl": "text", "run/*.json": "text", "run/*.yaml": "text", "run/rollouts/*": "bytes"}, _read_run, _rows_of,
        weight=1.5,
    ),
    Target(
        "compared runs", _make_run, {"run/metrics.jsonl": "text", "run/started.json": "text", "run/config.yaml": "text"},
        _read_finished, _sums_of_a_row,
    ),
    Target(
        "checkpoints", _make_run,
        {f"{_CHECKPOINT}/*.json": "text", f"{_CHECKPOINT}/*.safetensors": "bytes", "run/checkpoints/best": "text"},
        _read_checkpoint, _state_of, weight=0.5,
    ),
    Target("evaluations", _make_evaluations, {"a/*.jsonl": "text", "a/*.json": "text"}, _read_evaluations, weight=0.7),
    Target(
        "corpora", _make_corpus, {"corpus/data/*.parquet": "bytes", "corpus/*.jsonl": "text", "corpus/*.yaml": "text"},
        _read_corpus, weight=0.7,
    ),
    Target(
        "stopped corpora", _make_corpus, {"corpus/work.sqlite": "bytes", "corpus/*.yaml": "text"}, _goes_on_with_corpus,
        weight=0.5,
    ),
    Target("pictures", _make_pictures, {"*": "bytes"}, _read_pictures, weight=2),
)  # fmt: skip


def odd_neighbour(folder: Path, rng: random.Random) -> str:
    """Put something with an odd name, or of an odd kind, into a folder of a target; returns what it did."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    file = rng.choice(files)
    names = [f"{file.stem} (copy){file.suffix}", f".{file.name}", f"{file.name}.bak", f"{file.name}~", f"1{file.suffix}",
             f"\u00e9\u202e\n{file.suffix}", f"999999999{file.suffix}", f"-{file.suffix}", f"{'9' * 40}{file.suffix}"]  # fmt: skip
    how = rng.choice(
        ["copy", "folder beside", "folder instead", "dangling link", "gone", "link to itself", "unreadable"]
    )
    beside = file.with_name(rng.choice(names))
    if how == "copy":
        beside.write_bytes(file.read_bytes())
    elif how == "folder beside":
        beside.mkdir()
    elif how == "unreadable":
        beside.write_bytes(b"\xff\xfe\0")
    else:
        file.unlink()
        if how == "folder instead":
            file.mkdir()
        elif how == "dangling link":
            file.symlink_to("nowhere")
        elif how == "link to itself":
            file.symlink_to(file.name)
    return f"{how}: {beside.name if how in ('copy', 'folder beside', 'unreadable') else file.name}"
