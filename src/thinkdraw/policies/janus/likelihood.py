"""The likelihood of rollouts in the distribution they were sampled from.

It is one module, whose forward pass is trained. Rows are right-padded, without gaps, with positions from 0, so
plain causal attention needs no mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from thinkdraw.errors import UserError
from thinkdraw.policies import speed
from thinkdraw.policies.janus import functions
from thinkdraw.policies.janus.functions import Heads
from thinkdraw.policies.janus.text import JanusText
from thinkdraw.policies.sampling.distribution import allowed_mask, entropy_of, guide, log_distribution
from thinkdraw.types import Context, Rollouts

GuidanceInLoss = Literal["same", "conditional"]
Position = tuple[Tensor, Tensor]  # rows and columns (K,) of tokens on the token axis


@dataclass
class ModelInput:
    """The input of one forward pass: a context and the tokens after it.

    ids: (B, S), of texts and, where is_image (B, S) bool, of codes.
    columns: (B, T), which of the S columns holds each token of the rollouts' token axis.
    scored: (B, T) bool, True = this pass gives the token's likelihood.
    """

    ids: Tensor
    is_image: Tensor
    columns: Tensor
    scored: Tensor


def model_inputs(rollouts: Rollouts) -> list[ModelInput]:
    """Make one input per context.

    `inline` and `off` have one context. `rewrite` has two: the thought's and the picture's.
    """
    _check_segments(rollouts)
    context_of_token = rollouts.token_contexts()
    inputs = [_model_input(rollouts, context, context_of_token == i) for i, context in enumerate(rollouts.contexts)]
    # Inputs with nothing to score are left out, but one always stays: every weight needs a gradient, if only zeros.
    return [item for item in inputs if bool(item.scored.any())] or inputs[:1]


def _check_segments(rollouts: Rollouts) -> None:
    """Raise UserError for a shown picture, and ValueError for an empty context.

    This family cannot read a picture among its tokens.
    """
    lengths = [context.mask.sum(1).tolist() for context in rollouts.contexts] if rollouts.segments else []
    for row, segments in enumerate(rollouts.segments):
        if any(segment.kind == "shown" for segment in segments):
            raise UserError(
                f"row {row} shows its policy a picture among its tokens, which Janus cannot read yet. "
                "Leave such rows out, or learn from them with a policy that can."
            )
        if any(not lengths[segment.context][row] for segment in segments):
            raise ValueError(f"row {row} writes in a context without tokens, from which nothing can be predicted.")


def _model_input(rollouts: Rollouts, context: Context, included: Tensor) -> ModelInput:
    """Append the included (B, T) tokens to a context, in their order."""
    before = context.mask.sum(1)
    columns = before[:, None] + included.cumsum(1) - 1
    width = int((before + included.sum(1)).max())
    # Right padding may be any id, such as 0: causal attention hides it from everything before.
    ids = torch.where(context.mask, context.ids, 0)
    ids = F.pad(ids, (0, max(0, width - ids.shape[1])))[:, :width]
    is_image = torch.zeros_like(ids, dtype=torch.bool)
    row, column = included.nonzero(as_tuple=True)
    position = (row, columns[row, column])
    ids[position], is_image[position] = rollouts.tokens[row, column], rollouts.is_image[row, column]
    return ModelInput(ids, is_image, columns, rollouts.mask & included)


class Likelihood(nn.Module):
    """Log-probs and entropies of rollouts under a model: the module that is trained.

    DDP and FSDP wrap it and hook into `forward`, so everything that needs gradients happens there.
    guidance_in_loss: "same" scores image tokens in the guided distribution they were sampled from; "conditional"
        scores them in the conditional one, as T2I-R1 does.
    """

    def __init__(
        self, model: JanusForConditionalGeneration, text: JanusText, guidance_in_loss: GuidanceInLoss = "same"
    ):
        super().__init__()
        self.model, self.text, self.guidance_in_loss = model, text, guidance_in_loss

    def train(self, mode: bool = True) -> "Likelihood":
        """Switch to training mode, except for the picture tokenizer."""
        super().train(mode)
        self.model.model.vqmodel.eval()
        return self

    def run(self, function: Callable, *args, **kwargs):
        """Call a function that uses the model outside of `forward`.

        Register this method with `register_fsdp_forward_method`, so that FSDP gathers the weights for it.
        """
        return function(*args, **kwargs)

    def forward(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Return log-probs and entropy of the rollouts' tokens.

        Each is (B, T) float32 nats, 0 where the mask is False.
        """
        log_probs = torch.zeros(rollouts.tokens.shape, dtype=torch.float32, device=rollouts.tokens.device)
        entropy = torch.zeros_like(log_probs)
        for model_input in model_inputs(rollouts):
            hidden = self._hidden_states(model_input, self._guides(rollouts))
            # Both heads run, even on no token: DDP would wait for a parameter without a gradient.
            for is_image in (False, True):
                row, column = (model_input.scored & (rollouts.is_image == is_image)).nonzero(as_tuple=True)
                position = (row, column)
                # The hidden state one column before a token predicts it. Text is never guided, so it uses the
                # conditional hidden states alone; image tokens also use the unconditional ones, if there are any.
                predicting = [h[row, model_input.columns[row, column] - 1] for h in hidden[: 1 + is_image]]
                score = self._score_images if is_image else self._score_text
                token_log_probs, token_entropy = score(rollouts, position, predicting)
                log_probs = log_probs.index_put(position, token_log_probs)
                entropy = entropy.index_put(position, token_entropy)
        return log_probs, entropy

    def _guides(self, rollouts: Rollouts) -> bool:
        """Whether image tokens are scored in the guided distribution."""
        return rollouts.sampling.guidance_scale != 1.0 and self.guidance_in_loss == "same"

    def _hidden_states(self, model_input: ModelInput, guided: bool) -> list[Tensor]:
        """Compute hidden states (B, S, H), conditional and with guidance unconditional."""
        ids, is_image = model_input.ids, model_input.is_image
        # A thought's context has no image tokens to guide: its unconditional rows would be computed for nothing.
        guided = guided and bool((model_input.scored & is_image.any(1, keepdim=True)).any())
        if guided:
            ids, is_image = torch.cat([ids, self.text.blanked(ids, is_image)]), is_image.repeat(2, 1)
        hidden = functions.hidden_states(self.model, functions.embed(self.model, ids, is_image))
        return list(hidden.chunk(2)) if guided else [hidden]

    def _score_text(self, rollouts: Rollouts, position: Position, hidden: list[Tensor]) -> tuple[Tensor, ...]:
        """Score text tokens, which are never guided."""
        suppressed = self.text.suppressed.to(hidden[0].device)
        return _score(rollouts, position, self.model.lm_head, hidden[0], suppressed)

    def _score_images(self, rollouts: Rollouts, position: Position, hidden: list[Tensor]) -> tuple[Tensor, ...]:
        """Score image tokens, guided where there are unconditional hidden states.

        Guidance mixes the inputs of the head's last layer, as in the sampler: that layer is linear.
        """
        heads = Heads.of(self.model)
        conditional, *unconditional = (heads.image_features(h) for h in hidden)
        scale = rollouts.sampling.guidance_scale
        features = guide(conditional, unconditional[0], scale) if unconditional else conditional
        return _score(rollouts, position, heads.image, features)


def _score(
    rollouts: Rollouts, position: Position, head: nn.Linear, inputs: Tensor, suppressed: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Return log-prob and entropy, (K,) each, of the tokens at `position`.

    inputs: (K, H), what `head` makes the tokens' logits of.
    suppressed: (V,) bool, True = never sampled.
    """

    def score(part: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        here = (position[0][part], position[1][part])
        allowed = None if rollouts.allowed is None else allowed_mask(rollouts.allowed, here, logits.shape[-1])
        log_probs = log_distribution(
            logits, temperature=rollouts.sampling.temperature, suppressed=suppressed, allowed=allowed
        )
        return log_probs.gather(1, rollouts.tokens[here][:, None])[:, 0], entropy_of(log_probs)

    return speed.score_logits(score, head, inputs)
