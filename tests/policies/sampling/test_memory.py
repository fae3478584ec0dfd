"""What learning and sampling keep in memory, and what happens where memory ends."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.allocator import peak_bytes
from tests.policies.suite import PROMPTS, SEEDS, assert_same_rollouts, sampling
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy, speed
from thinkdraw.policies.janus import functions
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.sampling import memory
from thinkdraw.policies.sampling.picture_phase import PicturePhase
from thinkdraw.policies.sampling.session import DecodingSession
from thinkdraw.policies.sampling.thought_phase import ThoughtPhase
from thinkdraw.types import Rollouts


def gradients(policy: JanusPolicy, rollouts: Rollouts) -> dict[str, Tensor]:
    policy.model.zero_grad()
    policy.log_probs(rollouts).log_probs.sum().backward()
    return {n: p.grad.clone() for n, p in policy.network.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_janus(tmp_path_factory.mktemp("deep") / "janus", hidden=32, layers=8)


@pytest.mark.parametrize("lora", [None, LoraSettings.model_validate({"rank": 2})], ids=["all weights", "adapters"])
def test_checkpointing_lowers_the_peak_and_keeps_the_gradient(deep: Path, lora: LoraSettings | None):
    policy = load_policy(deep, lora=lora)
    rollouts = policy.sample(PROMPTS, sampling(guidance_scale=3.0), group_size=2, seeds=SEEDS, decode=False)
    policy.network.train()
    whole = gradients(policy, rollouts)
    peak = peak_bytes(lambda: gradients(policy, rollouts))
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    saved = gradients(policy, rollouts)
    assert whole.keys() == saved.keys() and len(whole) > 8
    for name, gradient in whole.items():
        assert (saved[name] - gradient).abs().max() <= 1e-6 * gradient.abs().max(), name
    # 8 layers of activations against 8 inputs and the activations of one layer.
    assert peak_bytes(lambda: gradients(policy, rollouts)) < 0.5 * peak


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_each_head_runs_on_its_own_tokens_and_the_layers_on_the_longest_row(shared_policy, thought, monkeypatch):
    policy, heads, widths = shared_policy, {}, []

    def counting(score, head, *inputs):
        heads[head.out_features] = heads.get(head.out_features, 0) + len(inputs[0])
        return score_logits(score, head, *inputs)

    def measuring(model, ids, is_image):
        widths.append(ids.shape[1])
        return embed(model, ids, is_image)

    embed, score_logits = functions.embed, speed.score_logits
    rollouts = policy.sample(PROMPTS, sampling(thought), group_size=2, seeds=SEEDS, decode=False)
    monkeypatch.setattr(speed, "score_logits", counting)
    monkeypatch.setattr(functions, "embed", measuring)
    shortest = rollouts.select([0, 1])
    with torch.no_grad():
        policy.log_probs(shortest)
    vocabulary, codes = policy.model.config.text_config.vocab_size, policy.model.config.vq_config.num_embeddings
    text = int((shortest.mask & ~shortest.is_image).sum())
    assert heads[codes] == 2 * 16 and heads.get(vocabulary, 0) == text
    before = shortest.contexts[-1].mask
    drawn = shortest.is_image if shortest.fresh_contexts else shortest.segment >= 0
    assert (
        max(widths)
        == int((before.sum(1) + drawn.sum(1)).max())
        < rollouts.prompt_ids.shape[1] + rollouts.tokens.shape[1]
    )


@pytest.mark.parametrize(
    ("each", "free", "fitting"),
    [
        (100, 1_000, 8),  # 0.85 · 1000 / 100 = 8.5
        (100, 900, 4),  # 7.65, and a power of two
        (100, 50, 1),  # never none
        (100, 10**9, 512),  # never more than asked for
        (1, 603, 512),  # 512.5
    ],
)
def test_as_many_rows_as_fit_into_a_share_of_what_is_free(each: int, free: int, fitting: int):
    assert memory.rows_that_fit(each, free, most=512) == fitting


def test_kv_bytes_are_those_of_the_samplers_cache(policy, monkeypatch):
    held, new_cache = [], DecodingSession.new_cache

    def counting(self, rows, capacity):
        cache = new_cache(self, rows, capacity)
        held.append(sum(buffer.nbytes for layer in cache.layers for buffer in layer))
        return cache

    monkeypatch.setattr(DecodingSession, "new_cache", counting)
    policy.sample(PROMPTS, sampling(guidance_scale=3.0), decode=False)
    longest = max(len(policy.text.prompt(p.text)) for p in PROMPTS)
    columns = memory.columns_of(longest, 10, 16)
    # Conditional and unconditional rows.
    assert held == [2 * len(PROMPTS) * memory.kv_bytes(policy.model.config, columns, itemsize=4)]
    assert columns % 16 == 0 and 0 <= columns - (longest + 10 + 1 + 16) < 16


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def on_a_cpu() -> None:
    torch.empty(10**15)  # 4 PB, more than any address space: torch raises a plain RuntimeError


def in_python() -> None:
    np.empty(10**15)


RUNS_OUT = [on_a_gpu, on_a_cpu, in_python]


def out_of_memory_above(most: int, seen: list[int], runs_out: Callable[[], None] = on_a_gpu):
    def work(rows: Tensor) -> list[int]:
        seen.append(len(rows))
        if len(rows) > most:
            runs_out()
        return rows.tolist()

    return work


@pytest.mark.parametrize("runs_out", RUNS_OUT)
def test_where_memory_runs_out_half_as_many_rows_go_on(runs_out: Callable[[], None]):
    seen: list[int] = []
    with pytest.warns(UserWarning, match="out of memory with 8 rollouts at a time: going on with 4"):
        parts = memory.in_chunks(out_of_memory_above(4, seen, runs_out), torch.arange(18), size=8)
    assert [row for part in parts for row in part] == list(range(18))
    assert seen == [8, 4, 4, 4, 4, 2]


def test_an_error_that_is_not_about_memory_is_raised_as_it_is():
    def work(rows: Tensor) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        memory.in_chunks(work, torch.arange(4), size=4)


def test_where_not_even_one_row_fits_one_line_says_what_to_do():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match=r"out of memory with a single one .*thinkdraw plan"):
            memory.in_chunks(out_of_memory_above(0, []), torch.arange(3), size=2)


@pytest.mark.parametrize("phase", ["think", "draw"])
@pytest.mark.parametrize("thought", ["inline", "rewrite"])
@pytest.mark.parametrize("runs_out", RUNS_OUT[:2])
def test_rollouts_are_the_same_when_memory_runs_out_on_the_way(
    policy, monkeypatch, runs_out: Callable[[], None], thought: str, phase: str
):
    settings = sampling(thought, guidance_scale=3.0)
    whole = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    policy.max_rows = 12
    of_phase = {"think": ThoughtPhase, "draw": PicturePhase}[phase]
    step, seen = of_phase.step, []

    def failing(self, *sizes):
        count = self.slots if phase == "think" else len(self.contexts)
        seen.append(count)
        if count > 3 and len(seen) > 2:  # in the midst of it
            runs_out()
        return step(self, *sizes)

    monkeypatch.setattr(of_phase, "step", failing)
    # Thinking takes a row per rollout, drawing two.
    said = {"think": "with 12 rows at a time: going on with 6", "draw": "with 6 rollouts at a time: going on with 3"}
    with pytest.warns(UserWarning, match=said[phase]):
        parts = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    # Two thoughts of six are done when it happens: the others fill 4 slots of 6 rows.
    assert set(seen) == {"think": {6, 4, 3}, "draw": {6, 3}}[phase]
    assert_same_rollouts(whole, parts)
    assert parts.pictures is not None and torch.equal(whole.pictures, parts.pictures)


def test_rollouts_are_drawn_in_parts_where_memory_is_short_and_that_is_said(policy, monkeypatch):
    settings = sampling(guidance_scale=3.0)
    whole = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS, decode=False)
    # A row of about 100 tokens has 2 layers · 2 · 64 · 100 · 4 bytes = 102 kB and 8 kB of logits, a rollout two rows.
    monkeypatch.setattr(memory, "free_bytes", lambda device: 800_000)
    with pytest.warns(UserWarning, match=r"6 rollouts at once need .* GB, more than is free: drawn 2 at a time"):
        parts = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS, decode=False)
    assert_same_rollouts(whole, parts)
