"""Does a change of structure change a number? Runs the same commands with two checkouts and compares all that they wrote.

    python bench/same_numbers.py record runs/before --thinkdraw ../before/.venv/bin/thinkdraw
    python bench/same_numbers.py record runs/after
    python bench/same_numbers.py compare runs/before runs/after

`record` samples stores in each thought format with and without guidance, and trains a few steps of each recipe, on the lab
checkpoint and one machine; every command computes with two threads. `--thinkdraw` may be several words, to run a checkout
that nothing is installed from: "env PYTHONPATH=src python -c 'from thinkdraw.cli import main; main()'".
`compare` wants every field of every file equal bit for bit, but times, versions and where the files are; RENAMED is the
only tolerance. It prints what differs and exits 1. Neither is content with nothing: a command that fails, or that only one
side has, is an error.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load_file

# Old name -> new name, of keys in configurations, metrics, states and tables, and of the parts of a tensor's name; None:
# the key is gone.
RENAMED: dict[str, str | None] = {}

TIMES = ("seconds", "tokens_per_s", "time", "created", "began", "uptime")
# complete.json: digests of files that are compared themselves, and hold times.
SKIPPED_FILES = {"environment.json", "install.log", "index.json", "complete.json"}
SKIPPED_SUFFIXES = {".html", ".lock", ".log"}
THREADS = {"OMP_NUM_THREADS": "2"}

GRPO = "prompts_per_phase=4 group_size=4 validation.every=2 validation.prompts.count=4 log_rollouts_every=1"
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
    "grpo_combined": f"train lab_grpo out={{out}} policy=lab max_steps=2 combine=gdpo validation.monitors='[{{name: lab-judge}}]' "
    f"reward='{{name: combined, settings: {{rewards: {{detector: lab-detector, clip: lab-clip}}}}}}' {GRPO}",
    "grpo_lora": f"train lab_grpo out={{out}} policy=lab max_steps=2 lora.rank=4 precision=fp32 beta=0.1 kl=k2 {GRPO}",
    "sft_rewrite": "train lab_sft out={out} max_steps=3 thought=rewrite data.count=300 batch_rows=16 micro_rows=8 dtype=bf16",
}  # fmt: skip


def record(root: Path, thinkdraw: list[str], only: list[str]) -> int:
    """Run the commands one after the other; one that is done already is left alone, one that was cut short begins anew."""
    root.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, command in COMMANDS.items():
        done = root / f"{name}.done"
        if done.exists() or (only and name not in only):
            continue
        for folder in _folders(root, name):
            shutil.rmtree(folder)
        words = [word.replace("{out}", f"{root / name}").replace("{root}", f"{root}") for word in shlex.split(command)]
        reply = subprocess.run([*thinkdraw, *words], capture_output=True, text=True, env=os.environ | THREADS)
        print(f"{name}: exit {reply.returncode}", flush=True)
        if reply.returncode:
            failed += 1
            print((reply.stderr or reply.stdout)[-600:])
        else:
            done.touch()
    return 1 if failed else 0


def _folders(root: Path, name: str) -> list[Path]:
    """What a command writes: its own folder, and a store beside it where it makes one."""
    return [folder for folder in (root / name, root / f"{name}_store") if folder.exists()]


def compare(before: Path, after: Path, only: list[str]) -> int:
    """Print every difference; 0 if there is none among the commands of both sides, or among those of `only`."""
    roots = (before.resolve(), after.resolve())
    names = [{path.stem for path in root.glob("*.done") if not only or path.stem in only} for root in roots]
    differing = [f"{name}: only in {roots[name in names[1]]}" for name in sorted(names[0] ^ names[1])]
    differing += [f"{name}: in neither" for name in only if name not in names[0] | names[1]]
    num_files = 0
    for name in sorted(names[0] & names[1]):
        found = [_files(root, name) for root in roots]
        differing += [f"{file}: only in {roots[file in found[1]]}" for file in sorted(found[0] ^ found[1])]
        for file in sorted(found[0] & found[1]):
            num_files += 1
            differing += [f"{file}{why}" for why in _differences(file, *roots)]
    print("\n".join(differing))
    print(f"{len(names[0] & names[1])} commands, {num_files} files compared, {len(differing)} differences")
    return 1 if differing or not num_files else 0


def _files(root: Path, name: str) -> set[Path]:
    return {
        path.relative_to(root)
        for folder in _folders(root, name)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in SKIPPED_FILES and path.suffix not in SKIPPED_SUFFIXES
    }


def _differences(file: Path, before: Path, after: Path) -> Iterator[str]:
    if file.suffix == ".safetensors":
        yield from _of_tensors(load_file(before / file), load_file(after / file))
    elif file.suffix in (".parquet", ".jsonl", ".json", ".yaml", ".yml"):
        yield from _of_values(_values(before / file, before), _values(after / file, after))
    elif (before / file).read_bytes().replace(bytes(before), b"") != (after / file).read_bytes().replace(
        bytes(after), b""
    ):
        yield ": other bytes"


def _values(path: Path, root: Path) -> object:
    """What a file says, with paths below the recorded folder as seen from there."""
    if path.suffix == ".parquet":
        table = pq.ParquetFile(path).read()
        columns = {field.name: (str(field.type), table[field.name].to_pylist()) for field in table.schema}
        return {name: {"type": kind, "rows": [_below(v, root) for v in rows]} for name, (kind, rows) in columns.items()}
    text = path.read_text().replace(f"{root}", "")
    if path.suffix == ".jsonl":
        return [_unsealed(json.loads(line)) for line in text.splitlines()]
    return _unsealed(json.loads(text)) if path.suffix == ".json" else yaml.safe_load(text)


def _unsealed(value: Any) -> Any:
    """Without the digest, which differs where a path does."""
    return {k: v for k, v in value.items() if k != "content_sha256"} if isinstance(value, dict) else value


def _below(value: object, root: Path) -> object:
    """A path as seen from the recorded folder, or from the package."""
    return re.sub(r"^/.*(?=/thinkdraw/lab/)", "", value.replace(f"{root}", "")) if isinstance(value, str) else value


def _of_tensors(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> Iterator[str]:
    before = {new: tensor for name, tensor in before.items() if (new := _renamed_tensor(name)) is not None}
    for name in sorted(before.keys() ^ after.keys()):
        yield f": tensor {name} only {'after' if name in after else 'before'}"
    for name in sorted(before.keys() & after.keys()):
        one, other = before[name], after[name]
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            yield f": tensor {name} is {one.dtype} {[*one.shape]} before, {other.dtype} {[*other.shape]} after"
        elif not torch.equal(_bytes(one), _bytes(other)):
            gap = (one.double() - other.double()).abs().max()
            yield f": tensor {name} differs by up to {gap:.3g}"


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)  # so NaN equals the same NaN, and 0 is not -0


def _renamed_tensor(name: str) -> str | None:
    words = re.split(r"([^.']+)", name)  # state.'optimizer'.'state'.0.'step'
    new = [RENAMED.get(word, word) for word in words]
    return None if None in new else "".join(word for word in new if word is not None)


def _of_values(before: object, after: object, where: str = "") -> Iterator[str]:
    """Numbers by their bits (repr is exact, and NaN is NaN there), keys after renaming, in any order."""
    if isinstance(before, dict) and isinstance(after, dict):
        before = {RENAMED.get(key, key): value for key, value in before.items()}
        for key in sorted((before.keys() | after.keys()) - {None}, key=str):
            if str(key).startswith(TIMES):
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
        if isinstance(one := _json(before), dict) and isinstance(other := _json(after), dict):
            yield from _of_values(one, other, where)
            return
        yield f"{where}: {str(before)[:80]} before, {str(after)[:80]} after"


def _json(text: object) -> object:
    """The value that a text spells as JSON, or None."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("root", type=Path)
    recording.add_argument("--thinkdraw", type=shlex.split, default=[str(Path(sys.executable).with_name("thinkdraw"))])
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    for verb in (recording, comparing):
        verb.add_argument("--only", nargs="*", default=[], choices=[*COMMANDS], metavar="NAME")
    options = parser.parse_args()
    if options.verb == "record":
        sys.exit(record(options.root.resolve(), options.thinkdraw, options.only))
    sys.exit(compare(options.before, options.after, options.only))


if __name__ == "__main__":
    main()
