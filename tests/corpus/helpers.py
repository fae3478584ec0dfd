"""Small corpora: settings that need no network, and what is compared of two corpora."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tests.corpus.teacher_stub import TeacherStub

from thinkdraw.corpus.settings import CorpusSettings
from thinkdraw.corpus.teachers.endpoint import EndpointSettings, EndpointTeacher
from thinkdraw.corpus.writing import write

LOOSE = {"min_words": 1, "min_jaccard": None, "language": None, "shape": {"min_side": 1}}
QUICK = {"first_wait_s": 0.01}


def settings_of(folder: Path, url: str = "http://127.0.0.1:9/v1", **changes: Any) -> CorpusSettings:
    """Settings with an endpoint as teacher; `source`, `limits`, `filters`, `teacher` are merged into the defaults."""
    values: dict[str, Any] = {
        "out": folder,
        "source": {"kind": "lab", "count": 6, "families": {"geneval": 1.0}},
        "teacher": {"kind": "endpoint", "base_url": url, "model": "stub"} | changes.pop("teacher", {}),
        "limits": QUICK | changes.pop("limits", {}),
        "filters": LOOSE | changes.pop("filters", {}),
    }
    return CorpusSettings.model_validate(values | changes)


def write_with(stub: TeacherStub, folder: Path, **changes: Any) -> Path:
    settings = settings_of(folder, stub.url, **changes)
    assert isinstance(settings.teacher, EndpointSettings)
    return write(settings, EndpointTeacher(settings.teacher))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    shards = sorted((folder / "data").glob("*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def picture_folder(folder: Path, count: int, size: tuple[int, int] = (20, 16)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")
    return folder
