"""How many rows a second are written when the teacher answers at once: what the writer itself costs.

    python bench/corpus_writing.py [--rows 2000] [--concurrency 32]

The teacher is a process of its own on loopback that gives one and the same answer; pictures are PNG files of 64 pixels a side.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from thinkdraw.corpus.settings import CorpusSettings
from thinkdraw.corpus.teachers.asking import Status
from thinkdraw.corpus.teachers.endpoint import EndpointTeacher
from thinkdraw.corpus.writing import write

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        rng = np.random.default_rng(0)
        for index in range(options.rows):
            noise = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(noise).save(folder / "pictures" / f"{index:06d}.png")
        stub = subprocess.Popen([sys.executable, "-m", "tests.corpus.teacher_stub", str(folder), "canned"], cwd=ROOT)
        try:
            while not (folder / "url").is_file():
                time.sleep(0.05)
            settings = CorpusSettings.model_validate(
                {
                    "out": folder / "corpus", "source": {"kind": "folder", "path": folder / "pictures"},
                    "teacher": {"kind": "endpoint", "base_url": (folder / "url").read_text(), "model": "stub",
                                "concurrency": options.concurrency},
                    "filters": {"min_jaccard": None},
                }
            )  # fmt: skip
            seen: list[Status] = []
            teacher = EndpointTeacher(settings.teacher)  # type: ignore[arg-type]
            began, cpu = time.monotonic(), time.process_time()
            write(settings, teacher, show=seen.append)
            seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        finally:
            stub.kill()
            stub.wait()
    found = {
        "rows": options.rows, "asking_rows_per_s": round(seen[-1].rows_per_s, 1),
        "rows_per_s_in_all": round(options.rows / seconds, 1), "own_cpu_ms_per_row": round(1000 * cpu / options.rows, 2),
        "rows_per_s_of_a_free_core": round(options.rows / cpu, 1),
    }  # fmt: skip
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
