"""The likelihood of rollouts under the distribution that they were sampled from: one module with one forward.

Training geometry: right-padded rows without gaps, positions counted from 0, plain causal attention without a mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import JanusForConditionalGeneration

from thinkdraw.policies import network
from thinkdraw.policies.distribution import entropy_of, log_distribution
from thinkdraw.policies.prompts import JanusText
from thinkdraw.types import Kept, Rollouts

GuidanceInLoss = Literal["same", "conditional"]
CHUNK_ELEMENTS = 1 << 26  # logits held at once for backward; more than these are recomputed chunk by chunk


@dataclass
class Context:
    """One pass of the language model: ids (B, S) with is_image (B, S), and where token t of row r stands: t + shift[r].

    scored: (B, T) bool, the tokens of the token axis whose likelihood this pass gives.
    """

    ids: Tensor
    is_image: Tensor
    shift: Tensor
    scored: Tensor


def contexts_of(rollouts: Rollouts) -> list[Context]:
    """One context for `inline` and `off`; for `rewrite` the thought's and the picture's."""
    text = ~rollouts.is_image & (rollouts.segment >= 0)
    image = rollouts.is_image
    prompt_len = rollouts.prompt_mask.sum(1)
    if rollouts.draw_ids is None or rollouts.draw_mask is None:
        return [_context(rollouts, rollouts.prompt_ids, prompt_len, prompt_len, text | image)]
    draw_shift = rollouts.draw_mask.sum(1) - text.sum(
        1
    )  # the picture's tokens come after the thought's on the token axis
    parts = [
        _context(rollouts, rollouts.prompt_ids, prompt_len, prompt_len, text),
        _context(rollouts, rollouts.draw_ids, rollouts.draw_mask.sum(1), draw_shift, image),
    ]
    return [part for part in parts if bool(part.scored.any())] or parts[:1]


def _context(rollouts: Rollouts, before: Tensor, before_len: Tensor, shift: Tensor, included: Tensor) -> Context:
    """`before` (B, L), cut to before_len, followed by the included (B, T) tokens."""
    lengths = before_len + included.sum(1)
    column = torch.arange(int(lengths.max()), device=before.device).expand(len(rollouts), -1)
    at = (column - shift[:, None]).clamp(0, rollouts.tokens.shape[1] - 1)
    is_before = column < before_len[:, None]
    ids = torch.where(is_before, before.gather(1, column.clamp(max=before.shape[1] - 1)), rollouts.tokens.gather(1, at))
    after = ~is_before & (column < lengths[:, None])
    ids = torch.where(is_before | after, ids, 0)  # right padding: causal attention hides it from everything before
    return Context(ids, after & rollouts.is_image.gather(1, at), shift, rollouts.mask & included)


class Scorer(nn.Module):
    """Holds the model; DDP and FSDP wrap this, and everything that needs gradients goes through `forward`.

    guidance_in_loss: "same" scores image tokens under the guided distribution that they were sampled from;
    "conditional" under the conditional one, as T2I-R1 does.
    """

    def __init__(
        self, model: JanusForConditionalGeneration, text: JanusText, guidance_in_loss: GuidanceInLoss = "same"
    ):
        super().__init__()
        self.model, self.text, self.guidance_in_loss = model, text, guidance_in_loss

    def train(self, mode: bool = True) -> "Scorer":
        super().train(mode)
        self.model.model.vqmodel.eval()
        return self

    def run(self, function: Callable, *args, **kwargs):
        """Call a function that uses the model outside of `forward`; register it with `register_fsdp_forward_method`."""
        return function(*args, **kwargs)

    def forward(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """(log-probs, entropy) of the rollouts' tokens, each (B, T) float32 nats, 0 where the mask is False."""
        log_probs = torch.zeros(rollouts.tokens.shape, dtype=torch.float32, device=rollouts.tokens.device)
        entropy = torch.zeros_like(log_probs)
        for context in contexts_of(rollouts):
            hidden = self._hidden_states(context, self._guides(rollouts))
            # Both heads run, if on nothing: a parameter without a gradient would make DDP wait for it.
            for is_image in (False, True):
                row, column = (context.scored & (rollouts.is_image == is_image)).nonzero(as_tuple=True)
                place = (row, column)
                predicting = [h[row, column + context.shift[row] - 1] for h in hidden[: 1 + is_image]]
                score = self._score_images if is_image else self._score_text
                values = _in_chunks(score, self._vocabulary(is_image), rollouts, place, predicting)
                log_probs = log_probs.index_put(place, values[0])
                entropy = entropy.index_put(place, values[1])
        return log_probs, entropy

    def _guides(self, rollouts: Rollouts) -> bool:
        return rollouts.sampling.guidance_scale != 1.0 and self.guidance_in_loss == "same"

    def _vocabulary(self, is_image: bool) -> int:
        head = self.model.model.generation_head.vision_head if is_image else self.model.lm_head
        return head.out_features

    def _hidden_states(self, context: Context, guided: bool) -> list[Tensor]:
        """(B, S, H) of the context, and with guidance of its unconditional rows."""
        ids, is_image = context.ids, context.is_image
        guided = guided and bool((context.scored & is_image.any(1, keepdim=True)).any())
        if guided:
            ids, is_image = torch.cat([ids, self.text.blanked(ids, is_image)]), is_image.repeat(2, 1)
        hidden = network.hidden_states(self.model, network.embed(self.model, ids, is_image))
        return list(hidden.chunk(2)) if guided else [hidden]

    def _score_text(self, rollouts: Rollouts, place: tuple[Tensor, Tensor], hidden: Tensor) -> tuple[Tensor, Tensor]:
        logits = network.text_logits(self.model, hidden)
        return _read_off(logits, rollouts, place, suppressed=self.text.suppressed.to(logits.device))

    def _score_images(
        self, rollouts: Rollouts, place: tuple[Tensor, Tensor], hidden: Tensor, blank: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        logits = network.image_logits(self.model, hidden)
        if blank is None:
            return _read_off(logits, rollouts, place)
        unconditional = network.image_logits(self.model, blank)
        scale = rollouts.sampling.guidance_scale
        return _read_off(logits, rollouts, place, unconditional=unconditional, guidance_scale=scale)


def _read_off(logits: Tensor, rollouts: Rollouts, place: tuple[Tensor, Tensor], **settings) -> tuple[Tensor, Tensor]:
    """Log-prob and entropy (K,) of the tokens at `place`, from logits (K, V)."""
    kept = None if rollouts.kept is None else kept_mask(rollouts.kept, place, logits.shape[-1])
    log_probs = log_distribution(logits, temperature=rollouts.sampling.temperature, kept=kept, **settings)
    return log_probs.gather(1, rollouts.tokens[place][:, None])[:, 0], entropy_of(log_probs)


def kept_mask(kept: Kept, place: tuple[Tensor, Tensor], vocabulary: int) -> Tensor:
    """(K, V) bool of the kept sets of the tokens at `place`; all True where nothing was cut."""
    flat = kept.counts.flatten().long()
    which = place[0] * kept.counts.shape[1] + place[1]
    counts, ends = flat[which], flat.cumsum(0)[which]
    mask = (counts == 0)[:, None].repeat(1, vocabulary)
    row = torch.arange(len(which), device=flat.device).repeat_interleave(counts)
    offset = torch.arange(len(row), device=flat.device) - (counts.cumsum(0) - counts)[row]
    mask[row, kept.indices[(ends - counts)[row] + offset].long()] = True
    return mask


def _in_chunks(
    score: Callable, vocabulary: int, rollouts: Rollouts, place: tuple[Tensor, Tensor], hidden: list[Tensor]
) -> list[Tensor]:
    """`score` over chunks of tokens, so that at most CHUNK_ELEMENTS logits are alive, in the backward pass too."""
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    if len(place[0]) <= size:
        return score(rollouts, place, *hidden)
    values = []
    for begin in range(0, len(place[0]), size):
        part = slice(begin, begin + size)
        arguments = (rollouts, (place[0][part], place[1][part]), *(h[part] for h in hidden))
        values.append(
            checkpoint(score, *arguments, use_reentrant=False) if torch.is_grad_enabled() else score(*arguments)
        )
    return [torch.cat(column) for column in zip(*values)]
