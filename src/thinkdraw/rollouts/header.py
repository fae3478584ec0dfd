"""What all rollouts of a store share, and a policy must match to learn from them."""

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.types import Policy, ThoughtFormat

FORMAT = 1


class Codec(StrictModel):
    """The tokenizer and codes of a store's tokens.

    A policy must share them to learn from the store.
    tokenizer: SHA-256 of the vocabulary with its ids.
    pad_id: id that fills up contexts.
    """

    tokenizer: str = Field(description="SHA-256 of the vocabulary with its ids.")
    num_image_tokens: int = Field(description="How many tokens make up one picture.")
    num_codes: int = Field(description="Size of the picture tokenizer's codebook.")
    pad_id: int = Field(description="Token that contexts are padded with.")

    @staticmethod
    def of(policy: Policy) -> "Codec":
        """Describe a policy's tokenizer and codes."""
        return Codec(
            tokenizer=policy.text.vocabulary_hash, num_image_tokens=policy.picture.num_tokens,
            num_codes=policy.picture.num_codes, pad_id=policy.text.pad,
        )  # fmt: skip


class Header(StrictModel):
    """`store.json`.

    precision: of the sampling, fp32 or bf16. Log-probs and pictures are exact in that precision only.
    """

    format: int = Field(default=FORMAT, description="Version of the store's file format.")
    codec: Codec = Field(description="What turns prompts, thoughts and pictures into tokens.")
    thought: ThoughtFormat = Field(description="Where the thoughts of all rollouts stand.")
    precision: str = Field(
        description="Type of the sampling's forward pass, fp32 or bf16; log-probs are exact in that one only."
    )
