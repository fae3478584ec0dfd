"""Peak memory of one policy-gradient update, above weights, gradients and optimiser state, with and without our measures.

    python bench/update_memory.py                     # Janus-Pro-1B's width and vocabulary at 6 layers, 4 rows of 650 tokens
    python bench/update_memory.py --device cuda --layers 24 --rows 16

Each row of the table is a process of its own with the same shape, rollouts and dtype: forward and backward pass of the
clipped loss, without guidance. `plain` is what a plain GRPO loop does: both heads on every position, the full
log-softmax of each kept for the backward pass, all activations kept. Then each measure alone, then the learner as it is,
which besides computes the entropy with its gradient.

How it is measured. On a CPU: the highest resident memory during the update (VmHWM, reset before it) less the resident
memory before it; Linux only. On CUDA: the caching allocator's peak less what was allocated before. Weights are never
written, so that the system backs them by one page of zeros, and the gradient of a parameter is dropped when it is
complete, as training hands it to the optimiser's copy: neither is in the difference, and the measurement fits a small
machine. Memory does not depend on the values. The optimiser's step, the same for all, is left out.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import JanusForConditionalGeneration

from thinkdraw.objectives import clipped_loss
from thinkdraw.policies.fast import short_attention as attention
from thinkdraw.policies.fast.chunked_head import score_in_chunks
from thinkdraw.policies.heads import fp32_linear
from thinkdraw.policies.janus import functions
from thinkdraw.policies.janus.likelihood import model_inputs
from thinkdraw.policies.janus.loading import DTYPES, read_processor
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.shape import JANUS_PRO, janus_pro_config
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.sampling.distribution import log_distribution
from thinkdraw.runtime.device import autocast
from thinkdraw.types import Prompt, Rollouts, Sampling

VARIANTS = {
    "plain": (),
    "heads only where needed": ("heads",),
    "chunked log-softmax": ("chunks",),
    "checkpointing per layer": ("checkpointing",),
    "thinkdraw without checkpointing": ("learner",),
    "thinkdraw": ("learner", "checkpointing"),
}


def unwritten_policy(asked: argparse.Namespace) -> JanusPolicy:
    """Weights that no one ever writes: zeros that take no memory on a CPU."""
    config = janus_pro_config(asked.shape, asked.layers)
    with torch.device("meta"):
        model: Any = JanusForConditionalGeneration(config)
    model = model.to(DTYPES[asked.dtype]).to_empty(device=asked.device)
    model.set_attn_implementation({"text_config": attention.NAME})
    with tempfile.TemporaryDirectory() as folder:
        processor = read_processor(str(random_janus(folder)), config.vision_config.num_image_tokens)
    lora = LoraSettings.model_validate({"rank": asked.lora_rank}) if asked.lora_rank else None
    policy = JanusPolicy(model, processor, precision=asked.precision, lora=lora)
    for parameter in policy.network.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    policy.network.train()
    return policy


def rollouts_of(policy: JanusPolicy, asked: argparse.Namespace) -> Rollouts:
    """Rows of exactly `tokens` tokens: prompt, thought up to its budget, begin-of-image, picture."""
    prompt = Prompt("a photo of a red circle left of a blue square")
    budget = asked.tokens - len(policy.text.prompt(prompt.text)) - 1 - policy.picture.num_tokens
    settings = Sampling(thought="inline", max_thought_tokens=budget)
    codes = torch.zeros(asked.rows, policy.picture.num_tokens, dtype=torch.long)
    made = policy.teacher_forced([prompt] * asked.rows, ["red " * asked.tokens] * asked.rows, codes, settings)
    assert int(made.prompt_mask[0].sum() + (made.segment[0] >= 0).sum()) == asked.tokens
    return made


def plain_log_probs(policy: JanusPolicy, rollouts: Rollouts, measures: tuple[str, ...]) -> Tensor:
    """(B, T) log-probs as a plain loop has them, or with some of the measures."""
    (stream,) = model_inputs(rollouts)
    model: Any = policy.model
    hidden = functions.hidden_states(model, functions.embed(model, stream.ids, stream.is_image))[:, :-1]
    ids, is_image = stream.ids[:, 1:], stream.is_image[:, 1:]
    found = torch.zeros(ids.shape, device=ids.device)
    heads = ((~is_image, model.lm_head), (is_image, model.model.generation_head.vision_head))
    for wanted, head in heads:
        where = wanted if "heads" in measures else torch.ones_like(wanted)
        inputs = hidden[where] if head is model.lm_head else functions.Heads.of(model).image_features(hidden[where])
        chosen = ids[where].clamp(max=head.out_features - 1)[:, None]

        def read(part: slice, logits: Tensor, chosen: Tensor = chosen) -> tuple[Tensor]:
            return (log_distribution(logits, temperature=1.0).gather(1, chosen[part])[:, 0],)

        if "chunks" in measures:
            (values,) = score_in_chunks(read, head, inputs)
        else:
            (values,) = read(slice(None), fp32_linear(inputs, head.weight, head.bias))
        found = torch.where(wanted, torch.zeros_like(found).masked_scatter(where, values), found)
    return found.gather(1, (stream.at - 1).clamp(0, found.shape[1] - 1)) * rollouts.mask


def update(policy: JanusPolicy, rollouts: Rollouts, measures: tuple[str, ...]) -> None:
    if "learner" in measures:
        scored = policy.log_probs(rollouts)
        log_probs, entropy = scored.log_probs, scored.entropy.mean()
    else:
        with autocast(policy.device, policy.precision):
            log_probs, entropy = plain_log_probs(policy, rollouts, measures), 0.0
    advantages = torch.linspace(-1, 1, len(rollouts), device=policy.device)
    loss = clipped_loss(log_probs, log_probs.detach(), advantages, rollouts.mask, rollouts.is_image).loss
    (loss + 0.0 * entropy).backward()


def resident(field: str) -> int:
    """Bytes: VmRSS, memory in use now; VmHWM, its highest since the last reset."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found.group(1))


def peak_of(work: Callable[[], None], device: str) -> int:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return resident("VmHWM") - before


def measure(asked: argparse.Namespace) -> None:
    """The worker: one variant, its peak as JSON."""
    torch.set_num_threads(asked.threads)
    measures = VARIANTS[asked.variant]
    policy = unwritten_policy(asked)
    if "checkpointing" in measures:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    rollouts = rollouts_of(policy, asked)
    began = time.perf_counter()
    peak = peak_of(lambda: update(policy, rollouts, measures), asked.device)
    print(json.dumps({"bytes": peak, "seconds": time.perf_counter() - began}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="janus-pro-1b", choices=[*JANUS_PRO])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=650)
    parser.add_argument("--dtype", default="bf16", choices=[*DTYPES], help="of the weights")
    parser.add_argument("--precision", default="fp32", choices=[*DTYPES], help="bf16 is autocast")
    parser.add_argument("--lora-rank", type=int, default=0, help="0 trains all weights")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", default=[*VARIANTS], choices=[*VARIANTS], help="these rows of the table")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--variant", choices=[*VARIANTS], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.variant:
        return measure(asked)
    rows = {}
    for name in asked.only:
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", name]
        reply = subprocess.run(command, capture_output=True, text=True)
        if reply.returncode:
            sys.exit(f"{name}: {reply.stderr.strip()[-2000:]}")
        rows[name] = json.loads(reply.stdout.strip().splitlines()[-1])
        rows[name]["ratio"] = rows[name]["bytes"] / rows[asked.only[0]]["bytes"]
        print(f"{name}: {rows[name]['bytes'] / 1e9:.2f} GB", file=sys.stderr)
    settings = {k: v for k, v in vars(asked).items() if k not in ("json", "variant", "only")}
    found = {
        **settings,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "rows": rows,
    }
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{asked.shape} at {asked.layers} layers, {asked.rows} rows of {asked.tokens} tokens, weights {asked.dtype}")
    for name, row in rows.items():
        print(f"  {name:32} {row['bytes'] / 1e9:6.2f} GB   {row['ratio']:5.2f}×   {row['seconds']:6.1f} s")


if __name__ == "__main__":
    main()
