"""The likelihood of rollouts under the distribution that they were sampled from: one module, whose forward pass is trained.

Rows are right-padded, without gaps, with positions from 0, so that plain causal attention without a mask will do.
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
from thinkdraw.policies.janus import functions
from thinkdraw.policies.janus.text import JanusText
from thinkdraw.policies.sampling.distribution import allowed_mask, entropy_of, log_distribution
from thinkdraw.types import Context, Rollouts

GuidanceInLoss = Literal["same", "conditional"]
Place = tuple[Tensor, Tensor]  # rows and columns (K,) of tokens on the token axis


@dataclass
class Stream:
    """What one forward pass of the language model reads: a context, and all tokens that are written in it.

    ids: (B, S), of texts and, where is_image (B, S) bool, of codes. at: (B, T), which of the S columns a token of the
    rollouts' token axis is in. scored: (B, T) bool, the tokens whose likelihood this pass gives.
    """

    ids: Tensor
    is_image: Tensor
    at: Tensor
    scored: Tensor


def streams_of(rollouts: Rollouts) -> list[Stream]:
    """One for each context: one for `inline` and `off`; for `rewrite` the thought's and the picture's."""
    _check_segments(rollouts)
    context_of_token = rollouts.token_contexts()
    streams = [_stream(rollouts, context, context_of_token == i) for i, context in enumerate(rollouts.contexts)]
    # Those with nothing to score are left out, but never all: the weights still need a gradient, if of zeros.
    return [stream for stream in streams if bool(stream.scored.any())] or streams[:1]


def _check_segments(rollouts: Rollouts) -> None:
    """Raise UserError for a shown picture, which this family cannot read, and ValueError for an empty context."""
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
    """Log-probs and entropies of rollouts under a model: the module that is trained.

    DDP and FSDP wrap it, and work on what goes through `forward`: all that needs gradients does.
    guidance_in_loss: "same" scores image tokens under the guided distribution that they were sampled from;
    "conditional" under the conditional one, as T2I-R1 does.
    """

    def __init__(
        self, model: JanusForConditionalGeneration, text: JanusText, guidance_in_loss: GuidanceInLoss = "same"
    ):
        super().__init__()
        self.model, self.text, self.guidance_in_loss = model, text, guidance_in_loss

    def train(self, mode: bool = True) -> "Likelihood":
        """Switch to training mode, but for the picture tokenizer, which is never trained."""
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
                # A token is predicted by the hidden state one column before it. Text is never guided: it takes the
                # conditional hidden states alone, image tokens the unconditional ones, too, where there are any.
                predicting = [h[row, stream.at[row, column] - 1] for h in hidden[: 1 + is_image]]
                score = self._score_images if is_image else self._score_text
                token_log_probs, token_entropy = score(rollouts, place, predicting)
                log_probs = log_probs.index_put(place, token_log_probs)
                entropy = entropy.index_put(place, token_entropy)
        return log_probs, entropy

    def _guides(self, rollouts: Rollouts) -> bool:
        """Whether image tokens are scored under the guided distribution."""
        return rollouts.sampling.guidance_scale != 1.0 and self.guidance_in_loss == "same"

    def _hidden_states(self, stream: Stream, guided: bool) -> list[Tensor]:
        """Hidden states (B, S, H) of the stream, and with guidance those of its unconditional rows as a second tensor."""
        ids, is_image = stream.ids, stream.is_image
        guided = guided and bool((stream.scored & is_image.any(1, keepdim=True)).any())
        if guided:
            ids, is_image = torch.cat([ids, self.text.blanked(ids, is_image)]), is_image.repeat(2, 1)
        hidden = functions.hidden_states(self.model, functions.embed(self.model, ids, is_image))
        return list(hidden.chunk(2)) if guided else [hidden]

    def _score_text(self, rollouts: Rollouts, place: Place, hidden: list[Tensor]) -> tuple[Tensor, ...]:
        settings = {"suppressed": self.text.suppressed.to(hidden[0].device)}
        return _score(rollouts, place, self.model.lm_head, hidden, settings)

    def _score_images(self, rollouts: Rollouts, place: Place, hidden: list[Tensor]) -> tuple[Tensor, ...]:
        settings = {"guidance_scale": rollouts.sampling.guidance_scale} if len(hidden) == 2 else {}
        features = [functions.image_features(self.model, h) for h in hidden]
        return _score(rollouts, place, self.model.model.generation_head.vision_head, features, settings)


def _score(
    rollouts: Rollouts, place: Place, head: nn.Linear, inputs: list[Tensor], settings: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Log-prob and entropy, (K,) each, of the tokens at `place`.

    inputs: what `head` makes the tokens' logits of, (K, H): conditional and, with guidance, unconditional ones.
    settings: what `log_distribution` takes for this modality alone.
    """

    def score(part: slice, logits: Tensor, unconditional: Tensor | None = None) -> tuple[Tensor, Tensor]:
        here = (place[0][part], place[1][part])
        allowed = None if rollouts.allowed is None else allowed_mask(rollouts.allowed, here, logits.shape[-1])
        log_probs = log_distribution(
            logits, temperature=rollouts.sampling.temperature, unconditional=unconditional, allowed=allowed, **settings
        )
        return log_probs.gather(1, rollouts.tokens[here][:, None])[:, 0], entropy_of(log_probs)

    return speed.score_logits(score, head, *inputs)
