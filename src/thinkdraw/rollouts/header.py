"""What a store's rollouts have in common, and what a policy must have to learn from them."""

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.types import Policy, ThoughtFormat

FORMAT = 1


class Codec(StrictModel):
    """What turns prompts, thoughts and pictures into the tokens of a store; a policy must share it to learn from them.

    tokenizer: SHA-256 of the vocabulary with its ids. pad_id: what contexts are padded with.
    """

    tokenizer: str = Field(description="SHA-256 of the vocabulary with its ids.")
    num_image_tokens: int = Field(description="How many tokens make up one picture.")
    num_codes: int = Field(description="Size of the picture tokenizer's codebook.")
    pad_id: int = Field(description="Token that contexts are padded with.")

    @staticmethod
    def of(policy: Policy) -> "Codec":
        return Codec(
            tokenizer=policy.text.vocabulary_hash, num_image_tokens=policy.picture.num_tokens,
            num_codes=policy.picture.num_codes, pad_id=policy.text.pad,
        )  # fmt: skip


class Header(StrictModel):
    """`store.json`. precision: of the sampling, fp32 or bf16: log-probs and pictures are exact in that one only."""

    format: int = Field(default=FORMAT, description="Version of the store's file format.")
    codec: Codec = Field(description="What turns prompts, thoughts and pictures into tokens.")
    thought: ThoughtFormat = Field(description="Where the thoughts of all rollouts stand.")
    precision: str = Field(
        description="Type of the sampling's forward pass, fp32 or bf16; log-probs are exact in that one only."
    )
