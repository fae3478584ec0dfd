"""What a store's rollouts have in common, and what a policy must have to learn from them."""

from thinkdraw.config import StrictModel
from thinkdraw.types import Policy, ThoughtFormat

FORMAT = 1


class Codec(StrictModel):
    """What turns prompts, thoughts and pictures into the tokens of a store; a policy must share it to learn from them.

    tokenizer: SHA-256 of the vocabulary with its ids. pad_id: what contexts are padded with.
    """

    tokenizer: str
    num_image_tokens: int
    num_codes: int
    pad_id: int

    @staticmethod
    def of(policy: Policy) -> "Codec":
        return Codec(
            tokenizer=policy.text.vocabulary_hash, num_image_tokens=policy.picture.num_tokens,
            num_codes=policy.picture.num_codes, pad_id=policy.text.pad,
        )  # fmt: skip


class Header(StrictModel):
    """`store.json`. precision: of the sampling, fp32 or bf16: log-probs and pictures are exact in that one only."""

    format: int = FORMAT
    codec: Codec
    thought: ThoughtFormat
    precision: str
