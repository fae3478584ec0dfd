"""The likelihood of rollouts under the distribution that they were sampled from: one module with one forward.

Training geometry: right-padded rows without gaps, positions counted from 0, plain causal attention without a mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from thinkdraw.policies import speed
from thinkdraw.policies.janus import network
from thinkdraw.policies.janus.text import JanusText
from thinkdraw.policies.sampling.distribution import entropy_of, log_distribution
from thinkdraw.types import Kept, Rollouts

GuidanceInLoss = Literal["same", "conditional"]
Place = tuple[Tensor, Tensor]  # rows and columns (K,) of tokens on the token axis


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


class Likelihood(nn.Module):
    """Log-probs of rollouts under a model. DDP and FSDP wrap this: all that needs gradients goes through `forward`.

    guidance_in_loss: "same" scores image tokens under the guided distribution that they were sampled from;
    "conditional" under the conditional one, as T2I-R1 does.
    """

    def __init__(
        self, model: JanusForConditionalGeneration, text: JanusText, guidance_in_loss: GuidanceInLoss = "same"
    ):
        super().__init__()
        self.model, self.text, self.guidance_in_loss = model, text, guidance_in_loss

    def train(self, mode: bool = True) -> "Likelihood":
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
                values = (self._score_images if is_image else self._score_text)(rollouts, place, predicting)
                log_probs = log_probs.index_put(place, values[0])
                entropy = entropy.index_put(place, values[1])
        return log_probs, entropy

    def _guides(self, rollouts: Rollouts) -> bool:
        return rollouts.sampling.guidance_scale != 1.0 and self.guidance_in_loss == "same"

    def _hidden_states(self, context: Context, guided: bool) -> list[Tensor]:
        """(B, S, H) of the context, and with guidance of its unconditional rows."""
        ids, is_image = context.ids, context.is_image
        guided = guided and bool((context.scored & is_image.any(1, keepdim=True)).any())
        if guided:
            ids, is_image = torch.cat([ids, self.text.blanked(ids, is_image)]), is_image.repeat(2, 1)
        hidden = network.hidden_states(self.model, network.embed(self.model, ids, is_image))
        return list(hidden.chunk(2)) if guided else [hidden]

    def _score_text(self, rollouts: Rollouts, place: Place, hidden: list[Tensor]) -> tuple[Tensor, ...]:
        settings = {"suppressed": self.text.suppressed.to(hidden[0].device)}
        return _score(rollouts, place, self.model.lm_head, hidden, settings)

    def _score_images(self, rollouts: Rollouts, place: Place, hidden: list[Tensor]) -> tuple[Tensor, ...]:
        settings = {"guidance_scale": rollouts.sampling.guidance_scale} if len(hidden) == 2 else {}
        features = [network.image_features(self.model, h) for h in hidden]
        return _score(rollouts, place, self.model.model.generation_head.vision_head, features, settings)


def _score(
    rollouts: Rollouts, place: Place, head: nn.Linear, inputs: list[Tensor], settings: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Log-prob and entropy (K,) of the tokens at `place`.

    inputs: what `head` makes the tokens' logits of, (K, H): conditional and, with guidance, unconditional ones.
    """

    def score(part: slice, logits: Tensor, unconditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        here = (place[0][part], place[1][part])
        kept = None if rollouts.kept is None else kept_mask(rollouts.kept, here, logits.shape[-1])
        log_probs = log_distribution(
            logits, temperature=rollouts.sampling.temperature, unconditional=unconditional, kept=kept, **settings
        )
        return log_probs.gather(1, rollouts.tokens[here][:, None])[:, 0], entropy_of(log_probs)

    return speed.score_logits(score, head, *inputs)


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
