"""One decode step of the picture phase on a CPU: ours, eager with C++ by hand, against one module by `torch.compile`.

    python bench/compiled_step.py --attention sdpa --threads 1

The lab checkpoint, 64 rollouts, guidance 5, bf16, in the middle of a picture, with random keys and values. The alternative
is the whole step as one graph with frozen weights, its attention torch's `scaled_dot_product_attention` or loops that
inductor generates. In its favour, no rows share a prefix, which ours would read once, and it is compiled for this step's
columns alone; --columns lets it look at more, as one graph for all steps would. Checked in fp32 first: rounding to bf16 in
other places, times guidance, sets log-probs apart. Prints seconds of the first call, and CPU milliseconds of steps in turn.
"""

import argparse
import os
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinkdraw.lab import checkpoint_path
from thinkdraw.policies import load_policy
from thinkdraw.policies.sampling import noise
from thinkdraw.policies.sampling.distribution import guide
from thinkdraw.policies.sampling.partial import PartialRollouts
from thinkdraw.policies.sampling.picture_phase import PicturePhase
from thinkdraw.policies.sampling.session import DecodingSession
from thinkdraw.runtime.device import autocast
from thinkdraw.types import Sampling

ROLLOUTS, SHORTEST, LONGEST = 64, 20, 40  # and how long contexts are
SAMPLING = Sampling(guidance_scale=5.0, thought="off")
Pair = tuple[Tensor, Tensor]  # codes and their log-probs, keys and values, cosines and sines


def rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of heads (R, heads, D), by angles (R, 1, D / 2); float32."""
    first, second = heads.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Step(nn.Module):
    """`PicturePhase.step` and all that it calls, in plain torch."""

    def __init__(self, session: DecodingSession, attention: str) -> None:
        super().__init__()
        self.session, self.attention, self.dtype = session, attention, session.decoder.operations.dtype
        self.model, self.codes = session.model.model, nn.Buffer(session.embedded_codes)
        self.products = nn.ModuleList(map(self.products_of, self.model.language_model.layers))

    def products_of(self, layer: Any) -> nn.ParameterDict:
        attention, mlp = layer.self_attn, layer.mlp
        to_heads, gate_and_up = [attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]
        parts = {"heads": to_heads, "output": [attention.o_proj], "gate_and_up": gate_and_up, "down": [mlp.down_proj]}
        return nn.ParameterDict({n: torch.cat([p.weight for p in group]).to(self.dtype) for n, group in parts.items()})

    def forward(self, tokens: Tensor, boi_positions: Tensor, streams: Tensor, index: Tensor, cache: list[Pair]) -> Pair:
        """What follows `tokens` (A,). cache: keys and values (2 A, heads, columns, D) of each layer, written to."""
        positions, stream = (boi_positions + index).repeat(2), self.codes[tokens].repeat(2, 1)
        language_model, head = self.model.language_model, self.model.generation_head
        angles = positions[:, None, None] * language_model.rotary_emb.inv_freq
        for layer, products, cached in zip(language_model.layers, self.products, cache):
            heads = F.linear(layer.input_layernorm(stream).to(self.dtype), products["heads"])
            attended = self.attend(heads, positions, (angles.cos(), angles.sin()), *cached)
            stream = stream + F.linear(attended.flatten(1), products["output"])
            normed = layer.post_attention_layernorm(stream).to(self.dtype)
            gate, up = F.linear(normed, products["gate_and_up"]).float().chunk(2, -1)
            stream = stream + F.linear((F.silu(gate) * up).to(self.dtype), products["down"])
        features = head.activation_fn(head.proj_out(language_model.norm(stream)))
        logits = head.vision_head(guide(*features.chunk(2), SAMPLING.guidance_scale))
        return self.session.choose(logits.log_softmax(-1), noise.token_keys(streams, index))

    def attend(self, heads: Tensor, positions: Tensor, rotation: Pair, keys: Tensor, values: Tensor) -> Tensor:
        """(2 A, heads, D). heads: (2 A, 3 · heads · D), queries, keys and values."""
        queries, new_keys, new_values = heads.unflatten(1, (-1, keys.shape[3])).chunk(3, 1)
        place = torch.arange(len(heads))[:, None], torch.arange(keys.shape[1]), positions[:, None]
        keys[place], values[place] = rotated(new_keys, *rotation).to(self.dtype), new_values
        queries, visible = rotated(queries, *rotation), torch.arange(keys.shape[2]) <= positions[:, None]
        if self.attention == "sdpa":
            mask = torch.where(visible, 0.0, float("-inf")).to(self.dtype)[:, None, None]
            return F.scaled_dot_product_attention(queries.to(self.dtype)[:, :, None], keys, values, mask)[:, :, 0]
        scores = (queries[:, :, None] * keys.shape[3] ** -0.5 * keys.float()).sum(-1)
        weights = scores.masked_fill(~visible[:, None], float("-inf")).softmax(-1)
        return (weights[..., None] * values.float()).sum(2).to(self.dtype)


def sides(precision: str, asked: argparse.Namespace) -> tuple[Callable[[], Pair], Step, tuple]:
    """Ours, and the module with its arguments, a copy of the same state."""
    policy: Any = load_policy(checkpoint_path(), precision=precision)
    random, num_codes, rollouts = torch.Generator().manual_seed(0), policy.picture.num_tokens, torch.arange(ROLLOUTS)
    lengths, middle = torch.randint(SHORTEST, LONGEST + 1, (ROLLOUTS,), generator=random).tolist(), num_codes // 2
    with autocast("cpu", precision):
        session = DecodingSession(policy.model, policy.text, SAMPLING, num_codes, policy.device)
        cache = session.new_cache(2 * ROLLOUTS, max(asked.columns, LONGEST + middle))
        for buffer in sum(cache.layers, ()):
            buffer.normal_(generator=random)
        partial = PartialRollouts.blank(ROLLOUTS, 0, num_codes, "cpu")
        phase = PicturePhase(session, rollouts, [[0] * length for length in lengths], partial, rollouts, cache)
        module = Step(session, asked.attention)
    newest, index = torch.randint(len(module.codes), (ROLLOUTS,), generator=random), torch.full((ROLLOUTS,), middle)

    @torch.inference_mode()
    def ours() -> Pair:
        phase.tokens, phase.index = newest.clone(), index.clone()
        with autocast("cpu", precision):
            phase.step(LONGEST + middle)
        return phase.tokens, partial.code_log_probs[:, middle]

    copies = [(keys.clone(), values.clone()) for keys, values in cache.layers]
    return ours, module, (newest, phase.boi_positions, phase.streams, index, copies)


def difference(one: Pair, other: Pair) -> str:
    equal = one[0] == other[0]
    return f"{int(equal.sum())} of {ROLLOUTS} tokens equal, log-probs to {(one[1] - other[1])[equal].abs().max():.3g}"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attention", choices=("sdpa", "loops"), default="sdpa", help="the compiled side's")
    parser.add_argument("--columns", type=int, default=0, help="that the compiled side looks at, if more than it needs")
    for name, default in (("--threads", 1), ("--turns", 6), ("--steps", 25)):
        parser.add_argument(name, type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    ours, module, state = sides("fp32", asked)
    print(f"fp32, not compiled: {difference(ours(), module(*state))}", flush=True)
    ours, module, state = sides("bf16", asked)
    with tempfile.TemporaryDirectory() as os.environ["TORCHINDUCTOR_CACHE_DIR"]:
        compiled, began = torch.compile(module, fullgraph=True, options={"freezing": True}), time.perf_counter()
        drawn = compiled(*state)
        print(f"first call: {time.perf_counter() - began:.0f} s\nbf16, compiled: {difference(ours(), drawn)}")
        run, ratios = {"ours": ours, "compiled": lambda: compiled(*state)}, []
        timers = {who: timeit.Timer(step, timer=time.process_time) for who, step in run.items()}
        for turn in range(asked.turns):
            spent = {who: sorted(timers[who].repeat(asked.steps, 1)) for who in sorted(timers, reverse=turn % 2 == 0)}
            quartile = {who: spent[who][asked.steps // 4] for who in timers}
            ratios.append(quartile["compiled"] / quartile["ours"])
            told = ", ".join(f"{who} {1e3 * quartile[who]:.2f} (least {1e3 * spent[who][0]:.2f})" for who in timers)
            print(f"CPU ms of a step, lower quartile: {told}, {ratios[-1]:.2f}×", flush=True)
    print(f"compiled / ours, median of turns: {statistics.median(ratios):.2f}× [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
