"""What runs without thinkdraw: transformers' own `generate`, and the update of a plain GRPO loop. For the other benches.

The loop has the structure of T2I-R1's (arXiv 2505.00703): text `generate`, then image `generate` with guidance, each a
batch of its own that begins from the prompt again; the full log-softmax of every position of prompt and completion, of
the policy and of a frozen copy that is always asked; the mean over all tokens of each kind; AdamW. Image tokens are
scored without guidance, as T2I-R1 does. In its favour: one pass over prompt, thought and picture where T2I-R1 makes two,
the text head not on image positions, and what it samples and scores leaves out the tokens that ours leaves out.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.utils import logging

from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.runtime.device import autocast
from thinkdraw.types import Prompt, Rollouts, Sampling

Ids = list[list[int]]


def as_transformers_opens_it(policy: JanusPolicy) -> None:
    """Its own attention and layers instead of ours; `generate` then says nothing of the lengths that it is given."""
    logging.set_verbosity_error()
    policy.model.set_attn_implementation({"text_config": "sdpa"})
    with_transformers_layers(policy)


def with_transformers_layers(policy: JanusPolicy) -> None:
    """As ours are where no C++ compiler is found."""
    layers: Any = policy.model.model.language_model.layers
    for layer in layers:
        layer.__class__ = LlamaDecoderLayer


def left_padded(rows: Ids, pad: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def think(policy: JanusPolicy, rows: Ids, sampling: Sampling, *, to_the_budget: bool = False) -> Ids:
    """Thoughts written by text `generate`, begin-of-image left out. to_the_budget: none ends early."""
    text, budget = policy.text, sampling.max_thought_tokens
    model: Any = policy.model
    inputs = left_padded(rows, text.pad, policy.device)
    never = text.suppressed.nonzero().flatten().tolist()
    how: dict[str, Any] = {"min_new_tokens": budget} if to_the_budget else {"suppress_tokens": never}
    written = model.generate(
        **inputs, **how, do_sample=True, top_k=0, temperature=sampling.temperature, max_new_tokens=budget,
        eos_token_id=[text.eos, text.boi], pad_token_id=text.pad,
    )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
    stops = {text.boi, text.pad}
    return [[t for t in new.tolist() if t not in stops] for new in written]


@torch.no_grad()
def draw(policy: JanusPolicy, rows: Ids, sampling: Sampling) -> Tensor:
    """(B, N) image tokens drawn by image `generate`, which adds begin-of-image itself."""
    model: Any = policy.model
    return model.generate(
        **left_padded(rows, policy.text.pad, policy.device), generation_mode="image", do_sample=True, top_k=0,
        temperature=sampling.temperature, guidance_scale=sampling.guidance_scale, use_cache=True,
    )  # fmt: skip


def sample(policy: JanusPolicy, prompts: list[Prompt], sampling: Sampling, group_size: int) -> Rollouts:
    """Rollouts with pictures, prompt-major, without log-probs."""
    repeated = [prompt for prompt in prompts for _ in range(group_size)]
    contexts = [policy.text.prompt(prompt.text) for prompt in repeated]
    thoughts = think(policy, contexts, sampling)
    codes = draw(policy, [c + t for c, t in zip(contexts, thoughts)], sampling)
    texts = [policy.text.thought_text(ids) for ids in thoughts]
    made = policy.teacher_forced(repeated, texts, codes, sampling)
    changes: dict[str, Any] = {"group_size": group_size, "pictures": policy.decode_tokens(codes)}
    return Rollouts(**(vars(made) | changes))


@dataclass
class Batch:
    """context (B, S): prompt, thought, begin-of-image, left-padded, and its attention mask. codes: (B, N)."""

    context: Tensor
    attention: Tensor
    written: Tensor  # (B, S) bool, tokens of the context that the policy chose
    codes: Tensor
    advantages: Tensor

    def rows(self, part: slice) -> "Batch":
        return Batch(*(value[part] for value in vars(self).values()))


def batch_of(policy: JanusPolicy, rollouts: Rollouts, advantages: Tensor) -> Batch:
    text = ~rollouts.is_image & (rollouts.segment >= 0)
    ids = [
        [*prompt[real].tolist(), *tokens[here].tolist()]
        for prompt, real, tokens, here in zip(rollouts.prompt_ids, rollouts.prompt_mask, rollouts.tokens, text)
    ]
    inputs = left_padded(ids, policy.text.pad, policy.device)
    written = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    for row, (mask, here) in enumerate(zip(rollouts.mask, text)):
        written[row, written.shape[1] - int(here.sum()) :] = mask[here]
    codes = rollouts.tokens[rollouts.is_image].reshape(len(rollouts), -1)
    return Batch(inputs["input_ids"], inputs["attention_mask"], written, codes, advantages.to(policy.device))


class PlainLearner:
    """AdamW on the policy's trained weights. beta: weight of the k3 distance to a frozen full copy, 0 for no copy."""

    def __init__(self, policy: JanusPolicy, *, rows: int, precision: str, beta: float, learning_rate: float) -> None:
        self.policy, self.rows, self.precision, self.beta = policy, rows, precision, beta
        self.reference: Any = copy.deepcopy(policy.model).requires_grad_(False) if beta else None
        self.never = policy.text.suppressed.to(policy.device)
        self.trained = [p for p in policy.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)

    def log_probs(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, S − 1) of the context's tokens but the first, and (B, N) of the image tokens."""
        before, after = model.get_input_embeddings()(batch.context), batch.codes
        pictures = model.prepare_embeddings_for_image_generation(after).to(before.dtype)
        embeddings = torch.cat([before, pictures], dim=1)
        seen = torch.cat([batch.attention, torch.ones_like(after)], dim=1)
        hidden = model.model.language_model(inputs_embeds=embeddings, attention_mask=seen, use_cache=False)[0]
        width = batch.context.shape[1]
        text = model.lm_head(hidden[:, : width - 1]).float().masked_fill(self.never, float("-inf")).log_softmax(-1)
        image = model.model.generation_head(hidden[:, width - 1 : -1]).float().log_softmax(-1)
        return text.gather(2, batch.context[:, 1:, None])[..., 0], image.gather(2, after[..., None])[..., 0]

    def backward(self, rollouts: Rollouts, advantages: Tensor) -> float:
        """Add the gradients of the clipped loss of a first update; returns the loss."""
        batch = batch_of(self.policy, rollouts, advantages)
        counts = int(batch.written.sum()), batch.codes.numel()
        loss = 0.0
        for begin in range(0, len(rollouts), self.rows):
            part = batch.rows(slice(begin, begin + self.rows))
            with autocast(self.policy.device, self.precision):
                found = self.log_probs(self.policy.model, part)
                with torch.no_grad():
                    reference = self.log_probs(self.reference, part) if self.reference else found
            drawn = torch.ones_like(part.codes, dtype=torch.bool)
            here = torch.zeros((), device=self.policy.device)
            for lp, of_reference, mask, count in zip(found, reference, (part.written[:, 1:], drawn), counts):
                lp, of_reference = lp[mask], of_reference.detach()[mask]
                advantage = part.advantages[:, None].expand(mask.shape)[mask]
                ratio, behind = (lp - lp.detach()).exp(), of_reference - lp
                gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
                if self.beta:
                    gain = gain - self.beta * (behind.exp() - behind - 1)
                here = here - gain.sum() / count
            here.backward()
            loss += float(here.detach())
        return loss

    def step(self, rollouts: Rollouts, advantages: Tensor) -> None:
        self.backward(rollouts, advantages)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
