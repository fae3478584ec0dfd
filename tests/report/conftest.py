"""A synthetic quickstart folder: three stages, two runs, rollouts, and prompts that try to break out of the page."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

HOSTILE = (
    "<script>alert(1)</script>",
    '"></script><img src=x onerror=alert(2)>',
    "]]><!-- <svg onload=alert(3)> {{ 7 * 7 }} \u2028 \u202e reversed",
    "a lone half of a pair \ud83d and a very" + "l" * 300 + "ong word",
)
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
INK = ((220, 30, 35), (35, 80, 215), (40, 160, 60), (250, 140, 20), (130, 40, 170))
THOUGHT = "let me think. at the top left a small striped ring; a large blue cross, bottom right. on a cream background."


def picture(seed: int, side: int = 64) -> bytes:
    """A PNG with two coloured squares on a pale background."""
    rng = np.random.default_rng(seed)
    canvas = np.full((side, side, 3), (250, 238, 205) if seed % 2 else 255, dtype=np.uint8)
    for _ in range(2):
        x, y = rng.integers(0, side * 3 // 4, 2)
        canvas[y : y + side // 4, x : x + side // 4] = INK[rng.integers(len(INK))]
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="PNG")
    return buffer.getvalue()


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def sft_rows(steps: int) -> list[dict]:
    rng = np.random.default_rng(1)
    rows = []
    for step in range(1, steps + 1):
        text, image = 0.6 + 2 * math.exp(-step / 40), 2.4 + 2 * math.exp(-step / 90) + 0.1 * rng.normal()
        row = {"step": step, "loss": 0.35 * text + image, "text_nats": text, "image_nats": image}
        row |= {"grad_norm": abs(1 + rng.normal() * 0.3), "learning_rate": 1e-4 * min(1, step / 20)}
        rows.append(row | {"tokens_per_s": 5200 + 200 * rng.normal(), "seconds": 0.7 * step})
    return rows


def grpo_rows(steps: int) -> list[dict]:
    """Every tenth step has a validation score; step 7 has no reward at all."""
    rng = np.random.default_rng(2)
    rows = []
    for step in range(1, steps + 1):
        reward = 0.55 + 0.25 * (1 - math.exp(-step / 60)) + 0.06 * rng.normal()
        row = {"step": step, "phase": step, "reward_mean": None if step == 7 else reward, "reward_std": 0.2}
        row |= {"reward/facts": reward + 0.05, "reward/format": 1 - 0.2 * math.exp(-step / 20)}
        row |= {"advantage_std": 0.9, "zero_variance_frac": 0.1 + 0.2 * step / steps, "no_verdict_frac": 0.0}
        row |= {
            "entropy_text": 0.9 - 0.3 * step / steps,
            "entropy_image": 2.6 - 0.5 * step / steps + 0.04 * rng.normal(),
        }
        row |= {"entropy_coef_text": 0.0, "entropy_coef_image": 0.0, "ratio_mean": 1.0}
        row |= {"kl_text": 0.01 * math.sqrt(step), "kl_image": 0.03 * math.sqrt(step)}
        row |= {"ratio_max_deviation": 0.0 if step == 3 else 10 ** (-6 + 0.3 * rng.normal())}
        row |= {"clip_frac_text": 0.01, "clip_frac_image": 0.02, "grad_norm": 0.4 + 0.1 * abs(rng.normal())}
        row |= {"learning_rate": 1e-4, "thought_tokens_mean": 31 - 6 * step / steps + rng.normal()}
        row |= {"thought_forced_frac": 0.02, "loss": rng.normal() * 0.01, "pictures_sampled": 128 * step}
        row |= {
            "seconds_sampling": 2.1 * step + 0.2 * rng.random(),
            "seconds_judging": 0.2 * step,
            "seconds_learning": 3.1 * step,
            "seconds": 5.3 * step,
        }
        rows.append(row | ({"validation_score": reward} if step % 10 == 0 else {}))
    return rows


def write_run(folder: Path, rows: list[dict], config: str) -> None:
    write_jsonl(folder / "metrics.jsonl", rows)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    versions = {"torch": "2.13.0", "transformers": "5.23.0", "accelerate": "1.15.0", "peft": None, "thinkdraw": "0.1.0"}
    facts = {"python": "3.11.9", "platform": "Linux x86_64", "cpu": "A CPU", "cores": 2, "ram_gb": 15.6}
    facts |= {"accelerator": None, "versions": versions, "git_commit": "0123456789abcdef"}
    (folder / "environment.json").write_text(json.dumps(facts), encoding="utf-8")


def write_rollouts(folder: Path, step: int, prompts: tuple[str, ...], group_size: int = 8) -> None:
    rng = np.random.default_rng(step)
    rows = []
    for g, prompt in enumerate(prompts):
        for m in range(group_size):
            reward = math.nan if m == 2 else float(rng.integers(0, 5)) / 4
            row = {"step": step, "prompt": prompt, "prompt_id": f"p{g}", "tag": TASKS[g % 6], "group": g, "member": m}
            row |= {"thought": f"{THOUGHT} {prompt}", "reward": reward, "advantage": (reward - 0.5) * 2, "seed": m}
            row |= {
                "components": json.dumps({"facts": reward, "format": None}),
                "png": picture(step * 100 + g * 10 + m),
            }
            rows.append(
                {
                    **row,
                    "prompt": prompt.encode("utf-8", "replace").decode(),
                    "thought": row["thought"].encode("utf-8", "replace").decode(),
                }
            )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"step_{step:06d}.parquet")


def write_eval(folder: Path, stage: str, share: float, prompts: int = 36) -> None:
    rng = np.random.default_rng(3)  # the same for every stage: what an earlier stage draws right, a later one does too
    rows = []
    for i in range(prompts):
        prompt = HOSTILE[i] if i < len(HOSTILE) else f"a photo of {i} small striped rings left of a large blue cross"
        for sample in range(2):
            correct = None if (i, sample) == (5, 1) else bool(rng.random() < share)
            reason = "" if correct else "expected 3 rings, found 2" if i % 2 else f"no cross {HOSTILE[0]}"
            row = {"prompt_index": i, "prompt_id": f"g{i}", "prompt": prompt, "tag": TASKS[i % 6], "sample": sample}
            row |= {"seed": 1000 + i, "correct": correct, "fact_share": share, "reason": reason, "detections": "[]"}
            rows.append(row | {"thought": HOSTILE[1] if i == 0 else THOUGHT, "png_path": None})
        if i < 24:
            path = folder / "pictures" / stage / f"{i:05d}_0.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(i + (stage == "rl")))
    write_jsonl(folder / stage / "results.jsonl", rows)
    summary = scores(share) | {
        "no_verdict": 1,
        "sampling": {"thought": "inline", "temperature": 1.0, "guidance_scale": 1.0},
    }
    summary["understanding"] = {"accuracy": 0.91 - share / 50, "exists": 0.95, "count": 0.84, "color": float("nan")}
    summary["diversity"] = 0.31 - share / 10
    summary["thought_precision"] = {"value": share + 0.1, "low": share + 0.07, "high": share + 0.13}
    (folder / stage / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def scores(share: float) -> dict:
    tasks = {
        task: {"value": share + d, "low": share + d - 0.05, "high": share + d + 0.05, "pictures": 12, "prompts": 6}
        for task, d in zip(TASKS, (0.2, 0.03, -0.1, 0.12, -0.08, -0.15))
    }
    return {"score": share, "low": share - 0.03, "high": share + 0.03, "per_task": tasks, "pictures": 72, "prompts": 36}


def write_quickstart(folder: Path, grpo_steps: int = 200) -> Path:
    write_run(
        folder / "sft", sft_rows(300), "seed: 0\nsteps: 300\nlearning_rate: 0.0001\nsampling:\n  thought: inline\n"
    )
    config = (
        "seed: 0\nsteps: 200\ngroup_size: 8\nguidance_in_loss: same\nobjective:\n  name: dapo\n  beta: 0.0\nsampling:\n"
    )
    write_run(folder / "grpo", grpo_rows(grpo_steps), config + "  guidance_scale: 1.0\n  thought: inline\n")
    for step in (10, 100, 200):
        write_rollouts(folder / "grpo" / "rollouts", step, HOSTILE[: 2 if step > 10 else 3])
    for stage, share in (("base", 0.43), ("sft", 0.529), ("rl", 0.62)):
        write_eval(folder / "eval", stage, share)
    summary = {
        "stages": {"base": scores(0.43), "sft": scores(0.529), "rl": scores(0.62)},
        "difference": {
            "rl-sft": {"value": 0.091, "low": 0.06, "high": 0.123},
            "sft-base": {"value": 0.099, "low": 0.071, "high": 0.128},
        },
        "seconds": 1872.4,
        "peak_memory_gb": 3.42,
        "seed": 0,
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> Path:
    return write_quickstart(tmp_path_factory.mktemp("runs") / "quickstart")
