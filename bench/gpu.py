"""One GPU: sampling against transformers' eager `generate` and against memory bandwidth, and GRPO steps, at Janus-Pro's shapes.

    python bench/gpu.py --out gpu.json                        # 1B and 7B, bf16, random weights; under eight minutes on an H200
    python bench/gpu.py --shapes tiny --device cpu            # does the script work

Weights are random, so nothing is downloaded; a picture's cost does not depend on them. No thought ends before its budget,
in ours and in theirs, so that both write the same number of tokens.

*draw* is the picture phase after a thought, without decoding to pixels, by recorded steps and once *without graphs*.
*think, draw* is both phases; of transformers the sum of its two calls, for its second begins from the prompt again. *floor*
is the time in which the weights of the layers and the image head, and the keys and values of all rows, can be read once per
image token at the copy bandwidth that is measured first. *GRPO step*: sampling, decoding, a judge that costs nothing
(brightness), and an update with adapters of rank 16, guidance in the loss, and checkpointing per layer.

A measurement that would take longer than --limit-s draws fewer image tokens, the first of the picture, on both sides; its
row says how many. A row that fails, or would begin after --budget-s, says so, and the others go on; then the command fails
too. Steps that cannot be recorded fail their row, for what it would measure is something else.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plain
import torch
from grpo_step import Ours
from torch import Tensor
from transformers import JanusConfig, JanusForConditionalGeneration
from transformers.utils import logging

from thinkdraw.policies.fast import short_attention as attention
from thinkdraw.policies.janus.loading import read_processor
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.shape import JanusShape, janus_pro_config
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.sampling.memory import kv_bytes
from thinkdraw.runtime.tracking import environment
from thinkdraw.types import Prompt, Rollouts, Sampling

PROMPT = "a photo of a red circle left of a blue square"
PROBED = 16  # image tokens of the runs that say how long a whole picture takes, and twice as many


def random_policy(shape: str, device: str, lora: LoraSettings | None = None) -> JanusPolicy:
    """bf16 weights from a normal distribution, and thoughts that do not end by themselves. With adapters also autocast."""
    with tempfile.TemporaryDirectory() as folder:
        small = str(random_janus(folder))
        config = JanusConfig.from_pretrained(small) if shape == "tiny" else janus_pro_config(f"janus-pro-{shape}")
        processor = read_processor(small, config.vision_config.num_image_tokens)
    with torch.device("meta"):
        model: Any = JanusForConditionalGeneration(config)
    model = model.to(torch.bfloat16).to_empty(device=device).eval()
    for name, tensor in model.named_parameters():
        tensor.data.normal_(0, 0.02) if tensor.ndim > 1 else tensor.data.fill_(float(name.endswith("weight")))
    rotary = model.model.language_model.rotary_emb  # its frequencies are no parameters, and were on the meta device too
    model.model.language_model.rotary_emb = type(rotary)(config.text_config).to(device)
    model.set_attn_implementation({"text_config": attention.NAME})
    model.generation_config.generation_kwargs = {"boi_token_id": processor.tokenizer.boi_token_id}
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.generation_config.bos_token_id = processor.tokenizer.bos_token_id
    policy = JanusPolicy(model, processor, precision="bf16" if lora else "fp32", lora=lora)
    policy.text.suppressed[[policy.text.eos, policy.text.boi]] = True
    return policy


@contextmanager
def pictures_of(policy: JanusPolicy, tokens: int) -> Iterator[None]:
    """Inside, a picture is complete after its first `tokens` tokens, for transformers too."""
    settings: Any = [policy, policy.model.config.vision_config, policy.model.model.vision_model.config]
    whole = policy.picture.num_tokens
    try:
        for holder in settings:
            holder.num_image_tokens = tokens
        yield
    finally:
        for holder in settings:
            holder.num_image_tokens = whole


class Clock:
    """Seconds of work on the device; `left` until the budget is spent."""

    def __init__(self, device: str, limit_s: float, budget_s: float) -> None:
        self.device, self.limit_s, self.ends = device, limit_s, time.monotonic() + budget_s

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    def once(self, work: Callable[[], Any]) -> float:
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - began

    def seconds(self, work: Callable[[], Any]) -> float:
        """Median of three, or what fits into the limit, at least one; `work` has run before, on less."""
        found = [self.once(work)]
        while len(found) < 3 and sum(found) + found[-1] < self.limit_s:
            found.append(self.once(work))
        return statistics.median(found)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def copy_bandwidth(device: str, clock: Clock) -> float:
    """Bytes per second of the best of ten copies, read and written."""
    source = torch.empty(1 << (31 if device == "cuda" else 26), dtype=torch.uint8, device=device).fill_(1)
    into = torch.empty_like(source)
    return 2 * source.nbytes / min(clock.once(lambda: into.copy_(source)) for _ in range(10))


@dataclass
class Drawing:
    """What is measured of one shape and number of rollouts."""

    policy: JanusPolicy
    sampling: Sampling
    rollouts: int
    clock: Clock

    def __post_init__(self) -> None:
        prompts = [Prompt(PROMPT)] * self.rollouts
        codes = torch.zeros(self.rollouts, self.policy.picture.num_tokens, dtype=torch.long)
        self.prompts = prompts
        self.given = self.policy.teacher_forced(prompts, ["red " * 200] * self.rollouts, codes, self.sampling)
        self.context = self.policy.text.prompt(PROMPT)
        thought = self.given.tokens[0, : self.sampling.max_thought_tokens].tolist()
        self.contexts = [self.context + thought] * self.rollouts

    def draw(self) -> Rollouts:
        lengths = torch.full((self.rollouts,), self.sampling.max_thought_tokens + 1)
        seeds = list(range(self.rollouts))
        return self.policy.sample(
            self.prompts, self.sampling, seeds=seeds, prefix=self.given, prefix_lengths=lengths, decode=False
        )

    def think_and_draw(self) -> Rollouts:
        return self.policy.sample(self.prompts, self.sampling, decode=False)

    def tokens_in_time(self, *works: Callable[[], Any]) -> int:
        """Image tokens that the slowest of them draws within the limit: all, or a multiple of PROBED. Warms up, too."""
        whole, allowed = self.policy.picture.num_tokens, min(self.clock.limit_s, self.clock.left / 4)
        return min(self._tokens_of(work, whole, allowed) for work in works)

    def _tokens_of(self, work: Callable[[], Any], whole: int, allowed: float) -> int:
        seconds = []
        for tokens in (PROBED, PROBED, 2 * PROBED):
            with pictures_of(self.policy, min(whole, tokens)):
                seconds.append(self.clock.once(work))
        each = max(1e-6, (seconds[2] - seconds[1]) / PROBED)
        fitting = PROBED * int(max(0.0, allowed - seconds[1]) / each / PROBED)
        return whole if fitting >= whole else max(PROBED, fitting)

    def floor(self, tokens: int, bandwidth: float) -> float:
        config = self.policy.model.config
        counts, itemsize = JanusShape(config).weights(None), self.policy.model.dtype.itemsize
        rows = self.rollouts * (1 if self.sampling.guidance_scale == 1 else 2)
        columns = tokens * (len(self.contexts[0]) + 1) + tokens * (tokens - 1) // 2  # of all steps together
        read = tokens * (counts.layers + counts.image_head) * itemsize + rows * kv_bytes(config, columns, itemsize)
        return read / bandwidth

    def measure(self, bandwidth: float) -> list[dict[str, Any]]:
        """A row for *draw* and one for *think, draw*."""
        policy, clock = self.policy, self.clock

        def theirs() -> Tensor:
            return plain.draw(policy, self.contexts, self.sampling)

        def their_thoughts() -> plain.Ids:
            return plain.think(policy, [self.context] * self.rollouts, self.sampling, to_the_budget=True)

        tokens = self.tokens_in_time(self.draw, theirs)
        with pictures_of(policy, tokens):
            policy.model.set_attn_implementation({"text_config": attention.NAME})
            ours, whole = clock.seconds(self.draw), clock.seconds(self.think_and_draw)
            policy.cuda_graphs = False
            step_by_step = clock.once(self.draw)
            policy.cuda_graphs = True
            plain.as_transformers_opens_it(policy)
            drawn, thought = clock.seconds(theirs), clock.seconds(their_thoughts)
        floor = self.floor(tokens, bandwidth)
        shared = {"rollouts": self.rollouts, "image tokens": tokens}
        return [
            {"what": "draw", **shared, "ours_s": ours, "transformers_s": drawn, "ratio": drawn / ours,
             "without_graphs_s": step_by_step, "floor_s": floor, "of the floor": floor / ours},
            {"what": "think, draw", **shared, "ours_s": whole, "transformers_s": drawn + thought,
             "ratio": (drawn + thought) / whole},
        ]  # fmt: skip


def grpo_step(policy: JanusPolicy, sampling: Sampling, asked: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Rollouts per second of one step, its parts, and the highest memory; after a step with small pictures."""
    policy.checkpoint_layers()
    ours = Ours(policy, asked.micro_rows)
    found: dict[str, Any] = {}

    prompts = [Prompt(PROMPT, id=str(i)) for i in range(asked.step_prompts)]

    def step() -> None:
        rollouts: list[Rollouts] = []
        found["sample_s"] = clock.once(lambda: rollouts.append(ours.sample(prompts, sampling, 8, 0)))
        assert rollouts[0].pictures is not None
        rewards = rollouts[0].pictures.float().mean((1, 2, 3)).cpu()
        found["update_s"] = clock.once(lambda: ours.learn(rollouts[0], rewards))

    with pictures_of(policy, PROBED):
        ours.learn(policy.sample(prompts[:1], sampling, group_size=8, decode=False), torch.arange(8.0))
    if asked.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = clock.once(step)
    count = 8 * asked.step_prompts
    peak = torch.cuda.max_memory_allocated() / 1e9 if asked.device == "cuda" else None
    return {"what": "GRPO step, LoRA", "rollouts": count, "image tokens": policy.picture.num_tokens, "ours_s": seconds,
            "rollouts_per_s": count / seconds, "peak_gb": peak, **found}  # fmt: skip


def rows_of(shape: str, asked: argparse.Namespace, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """Rows as they are measured. A part that fails is one row with its reason."""
    sampling = Sampling(max_thought_tokens=asked.thought_tokens, guidance_scale=asked.guidance_scale)

    def sampled(rollouts: int) -> list[dict[str, Any]]:
        policy = random_policy(shape, asked.device)
        return Drawing(policy, sampling, rollouts, clock).measure(bandwidth)

    def stepped() -> list[dict[str, Any]]:
        policy = random_policy(shape, asked.device, LoraSettings.model_validate({"rank": 16}))
        return [grpo_step(policy, sampling, asked, clock)]

    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        f"{n} rollouts": lambda n=n: sampled(n) for n in asked.rollouts
    }
    for name, part in (parts | {"GRPO step": stepped}).items():
        if clock.left <= 0:
            yield {"shape": shape, "what": name, "skipped": f"the {asked.budget_s:g} s are over"}
            continue
        try:
            yield from ({"shape": shape, **row} for row in part())
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            yield {"shape": shape, "what": name, "skipped": reason}
        gc.collect()
        if asked.device == "cuda":
            torch.cuda.empty_cache()


def shown(row: dict[str, Any]) -> str:
    begin = f"{row['shape']:5} {row['what']:16} "
    if "skipped" in row:
        return begin + f"skipped: {row['skipped']}"
    line = begin + f"{row['rollouts']:4} rollouts, {row['image tokens']:4} tokens: {row['ours_s']:8.2f} s"
    if "ratio" in row:
        line += f", transformers {row['transformers_s']:8.2f} s, {row['ratio']:5.2f}×"
    if "floor_s" in row:
        line += f"; without graphs {row['without_graphs_s']:.2f} s; floor {row['floor_s']:6.2f} s, {row['of the floor']:.0%} of it reached"
    if "rollouts_per_s" in row:
        peak = "" if row["peak_gb"] is None else f", {row['peak_gb']:.1f} GB"
        line += f" ({row['sample_s']:.2f} + {row['update_s']:.2f}), {row['rollouts_per_s']:.2f} rollouts/s{peak}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["1b", "7b"], choices=["1b", "7b", "tiny"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rollouts", nargs="+", type=int, default=[8, 64])
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--thought-tokens", type=int, default=64)
    parser.add_argument("--step-prompts", type=int, default=8, help="8 rollouts of each in a GRPO step")
    parser.add_argument("--micro-rows", type=int, default=8, help="rollouts per pass of the update")
    parser.add_argument("--limit-s", type=float, default=25.0, help="of one measurement")
    parser.add_argument("--budget-s", type=float, default=400.0, help="no part begins after it")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here. To try the script: --device cpu --shapes tiny")
    logging.disable_progress_bar()
    warnings.filterwarnings("error", message="a decoding step")
    clock = Clock(asked.device, asked.limit_s, asked.budget_s)
    bandwidth = copy_bandwidth(asked.device, clock)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "cpu"
    print(f"{name}: copies at {bandwidth / 1e12:.3f} TB/s; bf16, guidance {asked.guidance_scale:g}, thoughts of "
          f"{asked.thought_tokens} tokens", flush=True)  # fmt: skip
    rows = []
    for shape in asked.shapes:
        for row in rows_of(shape, asked, clock, bandwidth):
            rows.append(row)
            print(shown(row), flush=True)
    if asked.out:
        settings = {k: str(v) for k, v in vars(asked).items()}
        found = {"settings": settings, "device": name, "bandwidth": bandwidth, "rows": rows}
        asked.out.write_text(json.dumps(found | {"environment": environment()}, indent=2) + "\n")
    if skipped := sum("skipped" in row for row in rows):
        raise SystemExit(f"{skipped} of {len(rows)} rows could not be measured.")


if __name__ == "__main__":
    main()
