"""Does a change of structure change a number? Runs the same commands with two checkouts and compares all that they wrote.

    python bench/same_numbers.py record runs/before --thinkdraw ../before/.venv/bin/thinkdraw
    python bench/same_numbers.py record runs/after
    python bench/same_numbers.py compare runs/before runs/after

`record` samples stores in each thought format with and without guidance, and trains a few steps of each recipe, on the lab
checkpoint and one machine. `compare` wants every field of every file equal bit for bit, but times, paths and versions;
RENAMED is the only tolerance. It prints what differs and exits 1.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load_file

# old name -> new name, of keys in configurations, metrics and states; None: the key is gone.
RENAMED: dict[str, str | None] = {}

TIMES = ("seconds", "tokens_per_s", "time", "created", "began", "uptime")
PLACES = ("out", "policy", "store", "path", "host", "data")  # where files are is no number
SKIPPED = {"environment.json", "install.log", "index.json"}

GRPO = "prompts_per_phase=4 group_size=4 validation.every=2 validation.prompts.count=4 log_rollouts_every=1"
COMBINED = "reward={name: combined, settings: {rewards: {lab-detector: lab-detector, thought: {name: thought-format}}}}"
COMMANDS: dict[str, str] = {
    **{
        f"sample_{thought}_{scale}": "sample lab --out {out} --count 4 --group-size 4 --reward lab-detector "
        f"--thought {thought} --guidance-scale {scale} --seed 3"
        for thought in ("inline", "rewrite", "off")
        for scale in (1, 5)
    },
    "sample_top_k": "sample lab --out {out} --count 2 --group-size 4 --precision fp32 sampling.top_k=20 sampling.top_p=0.9",
    "lab_sft": "train lab_sft out={out} max_steps=20 save_every=10 num_threads=2",
    "lab_grpo": "train lab_grpo out={out} policy={root}/lab_sft max_steps=5 save_every=5 validation.every=2 num_threads=2",
    "store": "sample {root}/lab_sft --out {out} --count 24 --group-size 4 --reward lab-detector",
    "lab_dpo": "train lab_dpo out={out} policy={root}/lab_sft store={root}/store max_steps=8 pairs_per_step=8 save_every=4",
    "lab_rebel": "train lab_rebel out={out} policy={root}/lab_sft store={root}/store max_steps=4 pairs_per_step=8 save_every=4",
    "lab_rejection": "train lab_rejection out={out} policy={root}/lab_sft store={root}/store max_steps=4 batch_rows=8 save_every=2",
    "rounds": "train lab_dpo out={out} policy=lab rounds=2 max_steps=4 pairs_per_step=4 sample.count=4 sample.group_size=4 "
    "save_every=2 refresh_reference=false",
    "verifier_data": "corpus write lab_verifier_data out={out} sample.out={out}_store sample.count=24 sample.group_size=4",
    "verifier": "train lab_verifier out={out} data={root}/verifier_data max_steps=3 batch_rows=8 save_every=2",
    "grpo_kl": f"train lab_grpo out={{out}} policy=lab max_steps=4 minibatches=2 passes=2 beta=0.05 {GRPO} save_every=2",
    "grpo_k1": f"train lab_grpo out={{out}} policy=lab max_steps=2 beta=0.05 kl=k1 {GRPO} variant=dapo clip_high=0.28",
    "grpo_refill": f"train lab_grpo out={{out}} policy=lab max_steps=2 refill_rounds=1 keep_extremes=1 {GRPO} "
    "history.solved_reward=1.0 old_log_probs=sampled",
    "grpo_guided": f"train lab_grpo out={{out}} policy=lab max_steps=2 sampling.guidance_scale=5 sampling.thought=off {GRPO}",
    "grpo_rewrite": f"train lab_grpo out={{out}} policy=lab max_steps=2 sampling.thought=rewrite token_weights=stage "
    f"judge_chunks=2 {GRPO}",
    "grpo_critical": f"train lab_grpo out={{out}} policy=lab max_steps=2 token_weights=critical advantage=reinforce++ {GRPO}",
    "grpo_lora": f"train lab_grpo out={{out}} policy=lab max_steps=2 lora.rank=4 precision=fp32 beta=0.1 kl=k2 {GRPO}",
    "sft_rewrite": "train lab_sft out={out} max_steps=3 thought=rewrite data.count=300 batch_rows=16 micro_rows=8 dtype=bf16",
}  # fmt: skip


def record(root: Path, thinkdraw: str, only: list[str]) -> None:
    """Run the commands one after the other; one that is done already is left alone."""
    root.mkdir(parents=True, exist_ok=True)
    for name, command in COMMANDS.items():
        done = root / f"{name}.done"
        if done.exists() or (only and name not in only):
            continue
        arguments = [word.format(out=root / name, root=root) for word in _words(command)]
        reply = subprocess.run([thinkdraw, *arguments], capture_output=True, text=True)
        print(f"{name}: exit {reply.returncode}", flush=True)
        if reply.returncode:
            print((reply.stderr or reply.stdout)[-600:])
        else:
            done.touch()


def _words(command: str) -> list[str]:
    return command.split()


def compare(before: Path, after: Path) -> int:
    names = sorted(p.name.removesuffix(".done") for p in before.glob("*.done"))
    num_files, differing = 0, []
    for name in names:
        if not (after / f"{name}.done").exists():
            differing.append(f"{name}: not recorded in {after}")
            continue
        files = {f.relative_to(before / name) for f in (before / name).rglob("*") if f.is_file()}
        files |= {f.relative_to(after / name) for f in (after / name).rglob("*") if f.is_file()}
        for file in sorted(files):
            if file.name in SKIPPED or file.suffix in (".html", ".lock", ".log"):
                continue
            pair = [root / name / file for root in (before, after)]
            if not all(path.exists() for path in pair):
                differing.append(f"{name}/{file}: only in {before if pair[0].exists() else after}")
                continue
            num_files += 1
            differing += [f"{name}/{file}: {why}" for why in _differences(*pair)]
    print("\n".join(differing))
    print(f"{len(names)} commands, {num_files} files compared, {len(differing)} differences")
    return 1 if differing else 0


def _differences(before: Path, after: Path) -> Iterator[str]:
    if before.suffix == ".safetensors":
        yield from _of_tensors(load_file(before), load_file(after))
    elif before.suffix == ".parquet":
        yield from _of_values(_table(before), _table(after))
    elif before.suffix == ".jsonl":
        yield from _of_values(*([json.loads(line) for line in p.read_text().splitlines()] for p in (before, after)))
    elif before.suffix == ".json":
        yield from _of_values(*(json.loads(p.read_text()) for p in (before, after)))
    elif before.suffix in (".yaml", ".yml"):
        yield from _of_values(*(yaml.safe_load(p.read_text()) for p in (before, after)))
    elif before.read_bytes() != after.read_bytes():
        yield "other bytes"


def _of_tensors(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> Iterator[str]:
    before = {_renamed(name): tensor for name, tensor in before.items()}
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            yield f"tensor {name} only {'after' if name in after else 'before'}"
        elif not torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8)):
            yield f"tensor {name} differs by up to {(before[name].float() - after[name].float()).abs().max():.3g}"


def _table(path: Path) -> dict[str, Any]:
    table = pq.ParquetFile(path).read()
    return {name: table[name].to_pylist() for name in table.column_names}


def _of_values(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Numbers by their bits (repr is exact), keys after renaming."""
    if isinstance(before, dict) and isinstance(after, dict):
        before = {_renamed(key): value for key, value in before.items()}
        for key in sorted((before.keys() | after.keys()) - {None}, key=str):
            if str(key).startswith(TIMES) or key in PLACES or (where.endswith("sampling") and key == "revision"):
                continue
            if key not in before or key not in after:
                yield f"{where}.{key} only {'after' if key in after else 'before'}"
            else:
                yield from _of_values(before[key], after[key], f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield f"{where}: {len(before)} rows before, {len(after)} after"
        for index, (one, other) in enumerate(zip(before, after)):
            yield from _of_values(one, other, f"{where}[{index}]")
    elif repr(before) != repr(after):
        yield f"{where}: {str(before)[:80]} before, {str(after)[:80]} after"


def _renamed(key: Any) -> Any:
    return RENAMED.get(key, key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("root", type=Path)
    recording.add_argument("--thinkdraw", default=str(Path(sys.executable).with_name("thinkdraw")))
    recording.add_argument("--only", nargs="*", default=[])
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.verb == "record":
        record(options.root.resolve(), options.thinkdraw, options.only)
    else:
        sys.exit(compare(options.before, options.after))


if __name__ == "__main__":
    main()
