"""The likelihood of rollouts under the distribution that they were sampled from: one module with one forward.

Training geometry: right-padded rows without gaps, positions counted from 0, plain causal attention without a mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from thinkdraw.errors import UserError
from thinkdraw.policies import speed
from thinkdraw.policies.janus import network
from thinkdraw.policies.janus.text import JanusText
from thinkdraw.policies.sampling.distribution import entropy_of, kept_mask, log_distribution
from thinkdraw.types import Context, Rollouts

GuidanceInLoss = Literal["same", "conditional"]
Place = tuple[Tensor, Tensor]  # rows and columns (K,) of tokens on the token axis


@dataclass
class Stream:
    """What one pass of the language model reads: ids (B, S) with is_image (B, S), a context and all that is written in it.

    at: (B, T), where a token of the token axis stands. scored: (B, T) bool, those whose likelihood this pass gives.
    """

    ids: Tensor
    is_image: Tensor
    at: Tensor
    scored: Tensor


def streams_of(rollouts: Rollouts) -> list[Stream]:
    """One for each context: one for `inline` and `off`; for `rewrite` the thought's and the picture's."""
    _check_segments(rollouts)
    written_in = rollouts.token_contexts()
    streams = [_stream(rollouts, context, written_in == i) for i, context in enumerate(rollouts.contexts)]
    return [stream for stream in streams if bool(stream.scored.any())] or streams[:1]


def _check_segments(rollouts: Rollouts) -> None:
    """Raises UserError for what this family cannot read."""
    lengths = [context.mask.sum(1).tolist() for context in rollouts.contexts] if rollouts.segments else []
    for row, segments in enumerate(rollouts.segments):
        if any(segment.kind == "shown" for segment in segments):
            raise UserError(
                f"row {row} shows its policy a picture among its tokens, and Janus cannot read one there yet. "
                "Leave such rows out, or learn from them with a policy that can."
            )
        if any(not lengths[segment.context][row] for segment in segments):
            raise ValueError(f"row {row} writes in a context of no token, from which nothing can be predicted.")


def _stream(rollouts: Rollouts, context: Context, included: Tensor) -> Stream:
    """The ids of a context, followed by the included (B, T) tokens in their order."""
    before = context.mask.sum(1)
    at = before[:, None] + included.cumsum(1) - 1
    width = int((before + included.sum(1)).max())
    # Right padding is 0: causal attention hides it from everything before.
    ids = torch.where(context.mask, context.ids, 0)
    ids = F.pad(ids, (0, max(0, width - ids.shape[1])))[:, :width]
    is_image = torch.zeros_like(ids, dtype=torch.bool)
    row, column = included.nonzero(as_tuple=True)
    place = (row, at[row, column])
    ids[place], is_image[place] = rollouts.tokens[row, column], rollouts.is_image[row, column]
    return Stream(ids, is_image, at, rollouts.mask & included)


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
        for stream in streams_of(rollouts):
            hidden = self._hidden_states(stream, self._guides(rollouts))
            # Both heads run, if on nothing: a parameter without a gradient would make DDP wait for it.
            for is_image in (False, True):
                row, column = (stream.scored & (rollouts.is_image == is_image)).nonzero(as_tuple=True)
                place = (row, column)
                predicting = [h[row, stream.at[row, column] - 1] for h in hidden[: 1 + is_image]]
                values = (self._score_images if is_image else self._score_text)(rollouts, place, predicting)
                log_probs = log_probs.index_put(place, values[0])
                entropy = entropy.index_put(place, values[1])
        return log_probs, entropy

    def _guides(self, rollouts: Rollouts) -> bool:
        return rollouts.sampling.guidance_scale != 1.0 and self.guidance_in_loss == "same"

    def _hidden_states(self, stream: Stream, guided: bool) -> list[Tensor]:
        """(B, S, H) of the stream, and with guidance of its unconditional rows."""
        ids, is_image = stream.ids, stream.is_image
        guided = guided and bool((stream.scored & is_image.any(1, keepdim=True)).any())
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
