"""A process that SIGKILL ends in the middle of drawing or judging leaves a folder that goes on to the same result."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.helpers import PixelDetector, geneval_prompt, pictures_of
from tests.benchmarks.stub import StubPolicy

from thinkdraw.benchmarks.drawn_folder import draw_into_folder
from thinkdraw.benchmarks.flow import score_pictures
from thinkdraw.benchmarks.geneval.benchmark import GenEval
from thinkdraw.benchmarks.geneval.files import find_pictures, write_prompt_folder
from thinkdraw.benchmarks.picture_files import list_pictures
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.types import Sampling

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = prompt_set("geneval", "test", 6)
DOGS = {i: geneval_prompt("dog", i) for i in range(6)}


class KilledPolicy(StubPolicy):
    def sample(self, *args, **kwargs):
        if len(self.batches) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(*args, **kwargs)


class KilledDetector(PixelDetector):
    def detect(self, pictures, labels=None):
        if self.seen >= 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().detect(pictures, labels)


def draw(folder, policy):
    prompts = {i: e.prompt for i, e in enumerate(EXAMPLES)}
    return draw_into_folder(folder, policy, prompts, {"benchmark": "x"}, Sampling(), samples=2, seed=0, chunk=4)


def score(folder, detector):
    for i, prompt in DOGS.items():
        if not (folder / "pictures" / prompt.id).is_dir():
            write_prompt_folder(folder / "pictures", pictures_of(prompt, 1, i % 2, index=i))
    places = find_pictures(folder / "pictures", list(DOGS.values()))
    inventory = list_pictures(folder / "pictures", places, DOGS, 2)
    return score_pictures(GenEval(detector), DOGS, inventory, folder / "out", samples=2, prompts_at_once=2)


def test_drawing_and_judging_go_on_after_sigkill(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; import tests.benchmarks.test_killed as t\n"
        "folder = Path(sys.argv[1])\n"
        "if os.fork() == 0: t.draw(folder / 'drawn', t.KilledPolicy(t.EXAMPLES))\n"
        "drawing = os.wait()[1]\n"
        "if os.fork() == 0: t.score(folder / 'scored', t.KilledDetector())\n"
        "print(drawing, os.wait()[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * 2, done.stderr[-2000:]
    assert len((tmp_path / "drawn/drawn.jsonl").read_text().splitlines()) == 8
    assert len((tmp_path / "scored/out/results.jsonl").read_text().splitlines()) == 8

    policy, detector = StubPolicy(EXAMPLES), PixelDetector()
    rows = draw(tmp_path / "drawn", policy)
    assert policy.drawn == 4 and len(rows) == 12
    draw(tmp_path / "whole", StubPolicy(EXAMPLES))
    pictures = [{p.name: p.read_bytes() for p in (tmp_path / f / "pictures").iterdir()} for f in ("drawn", "whole")]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 12
    rows = score(tmp_path / "scored", detector)
    assert detector.seen == 4 and [row["verdict"] for row in rows] == [1, 0, 1, 1] * 3
