"""Kill every writer at random moments, let it go on, and compare the end with that of an undisturbed run.

    python -m tests.fuzz.kills --kills 100

A parent that has imported everything, and computed nothing, forks a child for each run, so that a kill costs no imports.
"""

import os

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "THINKDRAW_FAST": "off",
}  # no kernels to compile in each child

import argparse
import contextlib
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from tests.benchmarks.stub import StubPolicy
from tests.training.helpers import grpo_config, policy_dir, rows_without_times, sft_config

from thinkdraw.benchmarks.drawing import read_rows
from thinkdraw.benchmarks.lab.benchmark import evaluate_lab
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.recipes import grpo, preference, rejection, sample, score, sft
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.checkpoint import latest_checkpoint
from thinkdraw.types import Sampling

Job = Callable[[Path, Path], object]  # shared material, a folder of the job's own
MOST_KILLS_IN_A_ROW = 3


def _grpo(shared: Path, folder: Path) -> object:
    return grpo.run(grpo_config(folder, str(shared / "policy"), save_every=1, prompts_per_phase=1, group_size=2))


def _sft(shared: Path, folder: Path) -> object:
    return sft.run(sft_config(folder, str(shared / "policy"), save_every=1))


def _learned(shared: Path, folder: Path) -> dict[str, Any]:
    return {
        "out": folder / "run", "policy": str(shared / "policy"), "store": shared / "store", "judge": "low-codes",
        "device": "cpu", "micro_rows": 6, "precision": "fp32", "num_threads": 1, "max_steps": 3, "save_every": 1,
        "optimiser": {"learning_rate": 1e-3, "warmup_steps": 0},
    }  # fmt: skip


def _dpo(shared: Path, folder: Path) -> object:
    return preference.run(preference.PreferenceConfig.model_validate(_learned(shared, folder) | {"pairs_per_step": 4}))


def _rejection(shared: Path, folder: Path) -> object:
    return rejection.run(rejection.RejectionConfig.model_validate(_learned(shared, folder) | {"batch_rows": 4}))


def _sample(shared: Path, folder: Path) -> object:
    return sample.run(sample.SampleConfig.model_validate({
        "out": folder / "store", "policy": str(shared / "policy"), "prompts": {"count": 8},
        "sampling": {"max_thought_tokens": 6}, "group_size": 2, "prompts_per_shard": 2,
        "rewards": ["tests.training.helpers:LowCodes"], "precision": "fp32", "device": "cpu", "num_threads": 1,
    }))  # fmt: skip


def _score(shared: Path, folder: Path) -> object:
    _sample(shared, folder)
    reward = {"name": "tests.training.helpers:LowCodes", "settings": {"no_verdict_every": 2}}
    return score.run(score.ScoreConfig.model_validate({
        "store": folder / "store", "name": "again", "reward": reward, "chunk": 2, "device": "cpu", "num_threads": 1,
    }))  # fmt: skip


def _evaluate(shared: Path, folder: Path) -> object:
    policy: Any = StubPolicy(prompt_set("geneval", "test", 8), 0.3)
    return evaluate_lab(policy, "geneval", "test", 8, 2, Sampling(), 0, folder / "eval", chunk=2)


def _corpus(shared: Path, folder: Path) -> object:
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(folder):
        source = "source={kind: lab, count: 40, families: {geneval: 1.0}}"
        return run_config(read_config("lab_corpus", ["out=corpus", source, "teacher={kind: grammar}"]))


JOBS: dict[str, Job] = {
    "GRPO": _grpo, "SFT": _sft, "DPO": _dpo, "rejection": _rejection, "sample": _sample, "score": _score,
    "eval": _evaluate, "corpus write": _corpus,
}  # fmt: skip


def content(folder: Path) -> dict[str, str]:
    """What a job has made: all numbers, and the names of all files, but neither times nor places."""
    found: dict[str, object] = {"files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())}
    if (folder / "run").is_dir():
        found["metrics"] = rows_without_times(folder / "run")
        checkpoint = latest_checkpoint(folder / "run")
        tensors = sorted(checkpoint.glob("*.safetensors")) if checkpoint else []
        found |= {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tensors}
    if (folder / "store").is_dir():
        store = RolloutStore.open(folder / "store")
        found |= {name: str(store.scores(name).tolist()) for name in store.judges}
        found["rollouts"] = store.info()["content_hash"]
    if (folder / "eval").is_dir():
        found["rows"] = read_rows(folder / "eval")
        found["summary"] = (folder / "eval" / "summary.json").read_text(encoding="utf-8")
    if (folder / "corpus").is_dir():
        found["rows"] = [pq.read_table(file).to_pylist() for file in sorted(folder.glob("corpus/data/*.parquet"))]
    return {
        name: hashlib.sha256(json.dumps(value, default=repr).encode()).hexdigest()[:12] for name, value in found.items()
    }


def forked(work: Callable[[], object], kill_after_s: float | None = None) -> tuple[bool, float]:
    """Run `work` in a child; returns whether it was killed, and its seconds. Raises RuntimeError where it failed."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    killed = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if done:
            break
        if kill_after_s is not None and seconds >= kill_after_s and not killed:
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(0.003)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL) or (code and not killed):
        raise RuntimeError(f"the child ended with {code}")
    return code != 0, seconds


def kill_all(kills: int, work: Path, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """About `kills` kills over all jobs in turn: hits by job, and what differed in the end."""
    rng, shared, hits, wrong = random.Random(seed), work / "shared", Counter[str](), list[str]()
    forked(lambda: policy_dir(shared))
    forked(lambda: _sample(shared, shared))
    whole: dict[str, dict[str, str]] = {}
    usual_s: dict[str, float] = {}
    for name, job in JOBS.items():
        place = work / "whole" / name
        usual_s[name] = forked(lambda: job(shared, place))[1]  # noqa: B023
        whole[name] = content(place)
    trial = 0
    while hits.total() < kills:
        name = list(JOBS)[trial % len(JOBS)]
        place, job = work / f"{trial:04d}", JOBS[name]
        try:
            for attempt in range(rng.randint(1, MOST_KILLS_IN_A_ROW)):
                killed, seconds = forked(lambda: job(shared, place), rng.uniform(0, 1) * usual_s[name])  # noqa: B023
                hits[name] += killed
                if not killed and not attempt:
                    usual_s[name] = seconds  # the machine has become faster: aim earlier
            forked(lambda: job(shared, place))  # noqa: B023
            found = content(place)
            wrong += [
                f"{name}, trial {trial}: another {part}" for part in whole[name] if found.get(part) != whole[name][part]
            ]
        except Exception as error:
            wrong.append(f"{name}, trial {trial}: {type(error).__name__}: {error}")
        trial += 1
    return hits, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        hits, wrong = kill_all(given.kills, Path(folder), given.seed)
    print("\n".join(wrong))
    print(
        f"{hits.total()} kills ({', '.join(f'{name} {count}' for name, count in hits.items())}), {len(wrong)} differences"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
