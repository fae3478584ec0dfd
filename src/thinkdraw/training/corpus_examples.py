"""SFT examples from a corpus of rationales: prompts, thoughts and image tokens."""

import logging
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from thinkdraw.data.corpus_rows import CorpusReaderConfig, read_texts
from thinkdraw.data.corpus_tokens import Encoder, read_tokens, tokenise, tokens_folder
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import DEFAULT_CONFIG, PictureReaderConfig, format_counts
from thinkdraw.types import Policy, Prompt, Sampling

logger = logging.getLogger(__name__)


def encoder_of(policy: Policy, pictures: PictureReaderConfig = DEFAULT_CONFIG) -> Encoder:
    """Describe how a policy turns picture files into tokens.

    Raises UserError for a policy with more codes than uint16 holds.
    """
    if policy.picture.num_codes > 1 << 16:
        raise UserError("the policy has more than 65,536 codes, which uint16 cannot hold. Train another policy.")
    picture = policy.picture
    return Encoder(
        policy.encode_pictures,
        picture.height,
        picture.width,
        picture.num_tokens,
        policy.picture_tokenizer_hash(),
        pictures,
    )


def corpus_examples(
    path: Path, reading: CorpusReaderConfig, seed: int, policy: Policy, max_thought_tokens: int, cache: Path, is_main: bool,
    pictures: PictureReaderConfig = DEFAULT_CONFIG, sampling: Sampling | None = None,
) -> tuple[list[Prompt], list[str], Tensor]:  # fmt: skip
    """Read a corpus as prompts, thoughts and image tokens, (E, N) uint16.

    A warning counts what is left out, and why.
    max_thought_tokens: a longer rationale does not fit.
    cache: a folder for image tokens, unless `thinkdraw corpus tokenise` has computed them already.
    Raises UserError if no row can be used.
    """
    room = policy.max_positions - policy.picture.num_tokens - 1 - max_thought_tokens
    if room < 1:
        raise UserError(f"max_thought_tokens={max_thought_tokens} leaves no room for a prompt: lower it.")

    def thought_fits(text: str) -> bool:
        ids = policy.text.thought(text)
        # Shorter by at least one: the token that ends the thought counts too.
        return len(ids) < max_thought_tokens and not policy.text.controls & set(ids)

    def prompt_fits(text: str) -> bool:
        try:
            return len(policy.text.prompt(sampling.as_thought_request(text) if sampling else text)) <= room
        except UserError:  # it spells a control token
            return False

    texts = read_texts(path, reading, thought_fits, prompt_fits, seed)
    encoder = encoder_of(policy, pictures)
    shards = read_tokens(path, tokens_folder(path, encoder), encoder) if path.is_dir() else None
    _say_whose_tokens(path, shards is not None, is_main)
    if shards is None:
        shards = [tokens for _, tokens in tokenise(path, cache, encoder, keep=is_main)]
    codes = torch.cat([shard.image_tokens for shard in shards])
    has_picture = torch.cat([shard.crop[:, 2] > 0 for shard in shards]).tolist()
    used = [text for text in texts.rows if has_picture[text.row]]
    texts.counts["no readable picture"] = len(texts.rows) - len(used)
    counts = {name: count for name, count in texts.counts.items() if count}
    if notes := sum((shard.notes for shard in shards), Counter()):
        logger.warning("pictures of %s: %s", path, format_counts(notes))
    if not used:
        raise UserError(
            f"no row of {path} can be trained on: {format_counts(counts) or 'it is empty'}. Give another corpus."
        )
    if counts:
        logger.warning("%d examples of %s; %s", len(used), path, format_counts(counts))
    rows = torch.tensor([text.row for text in used])
    return [text.prompt for text in used], [text.thought for text in used], codes[rows]


def _say_whose_tokens(corpus: Path, is_kept: bool, is_main: bool) -> None:
    """Print on standard error whether the pictures' tokens are there, or are computed."""
    if is_main:
        way_out = "computed now" + (
            f"; `thinkdraw corpus tokenise {corpus}` keeps them for every run" if corpus.is_dir() else ""
        )
        print(f"image tokens of {corpus}: {'those of `corpus tokenise`' if is_kept else way_out}", file=sys.stderr)
