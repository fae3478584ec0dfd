"""A model family in one file: a GPT-2 that thinks in bytes and draws colours.

A picture is a grid of 5 × 7 tiles. Copy the file and put your model in. It implements `thinkdraw.types.Policy` in
the fewest lines. It has no KV cache, so each token reads its whole row again; it has no adapters, and it cannot
see. Sampling and scoring share one function, `GridNetwork.log_probs_after`, so they agree.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2Model

from thinkdraw.errors import TooLongError, UserError
from thinkdraw.policies import sampling as tools
from thinkdraw.policies.drawing import write_record
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.runtime.device import autocast
from thinkdraw.runtime.files import atomic_directory
from thinkdraw.types import (
    AllowedTokens,
    CheckItem,
    PictureSpec,
    Prompt,
    Rollouts,
    Sampling,
    ThoughtFormat,
    TokenLogProbs,
)

ROWS, COLUMNS, TILE = 5, 7, 4  # image tokens down and across, and the pixels of a token's side
CODES = 64  # colours: four levels of red, green and blue
BOS, BOI, PAD = 256, 257, 258  # after the 256 bytes; begin-of-image ends a thought too
VOCABULARY = 259
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class ByteText:
    """See `types.TextSide`. Bytes cannot spell a control token."""

    pad = PAD
    controls = frozenset({BOS, BOI, PAD})
    vocabulary_hash = hashlib.sha256(b"bytes, then bos, boi and pad").hexdigest()

    def prompt(self, text: str) -> list[int]:
        """Encode a prompt as BOS, its bytes, and a colon."""
        if not text.strip():
            raise UserError(f"prompt {text!r} is empty. Give it at least one word.")
        return [BOS, *f"{text.strip()}:".encode()]

    def thought(self, text: str) -> list[int]:
        """Encode a thought as its bytes."""
        return list(text.strip().encode())

    def thought_text(self, ids: Sequence[int]) -> str:
        """Decode a thought's bytes."""
        return bytes(i for i in ids if i < BOS).decode(errors="replace").strip()

    def check(self) -> list[CheckItem]:
        """Check nothing: there is no published form to compare with."""
        return []


class GridNetwork(nn.Module):
    """The module that is trained.

    Its ids (B, S) are those of text, followed by the codes. It is causal, so padding on the right is harmless.
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.trunk = GPT2Model(config)
        self.text_head, self.image_head = nn.Linear(config.n_embd, VOCABULARY), nn.Linear(config.n_embd, CODES)

    def hidden(self, ids: Tensor, guided: bool) -> list[Tensor]:
        """Compute last hidden states (B, S, H); with guidance, unconditional ones too.

        Unconditional rows have their prompt and thought blanked.
        """
        blank = torch.where((ids < VOCABULARY) & (ids != BOS) & (ids != BOI), PAD, ids)
        return [self.trunk(i, use_cache=False).last_hidden_state for i in ((ids, blank) if guided else (ids,))]

    def log_probs_after(
        self,
        hidden: list[Tensor],
        position: tuple[Tensor, Tensor],
        is_image: bool,
        sampling: Sampling,
        allowed: Tensor | None,
    ) -> Tensor:
        """Compute log-probs (K, V) of the tokens after `position`.

        position: rows and columns (K,).
        allowed: (K, V), what top-k and top-p left.
        """
        head = self.image_head if is_image else self.text_head
        logits = [head(h[position]) for h in (hidden if is_image else hidden[:1])]
        never = (
            None if is_image else torch.isin(torch.arange(VOCABULARY), torch.tensor([BOS, PAD])).to(head.weight.device)
        )
        return tools.log_distribution(
            logits[0], temperature=sampling.temperature, unconditional=logits[1] if len(logits) == 2 else None,
            guidance_scale=sampling.guidance_scale, suppressed=never, allowed=allowed,
        )  # fmt: skip

    def forward(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Return log-probs and entropy, (B, T) nats each, 0 where the mask is False."""
        before, after = rollouts.prompt_mask.sum(1), (rollouts.segment >= 0).sum(1)
        ids = rollouts.tokens + VOCABULARY * rollouts.is_image
        rows = [torch.cat([p[:n], t[:m]]) for p, n, t, m in zip(rollouts.prompt_ids, before, ids, after)]
        hidden = self.hidden(pad_sequence(rows, True, PAD), rollouts.sampling.guidance_scale != 1)
        results = [torch.zeros(ids.shape, device=ids.device) for _ in range(2)]
        # Both heads run, even on no token, so that every trained weight has a gradient.
        for is_image in (False, True):
            row, column = (rollouts.mask & (rollouts.is_image == is_image)).nonzero(as_tuple=True)
            here = (row, column)
            position = (row, column + before[row] - 1)  # a token is predicted one column before it
            allowed = rollouts.allowed and tools.allowed_mask(rollouts.allowed, here, CODES if is_image else VOCABULARY)
            log_probs = self.log_probs_after(hidden, position, is_image, rollouts.sampling, allowed)
            chosen = log_probs.gather(1, rollouts.tokens[here][:, None])[:, 0]
            results = [r.index_put(here, v) for r, v in zip(results, (chosen, tools.entropy_of(log_probs)))]
        return results[0], results[1]


@dataclass
class Row:
    """A rollout while it is written: its context and its tokens."""

    context: list[int]
    tokens: list[int] = field(default_factory=list)
    is_image: list[bool] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    allowed: list[list[int]] = field(default_factory=list)

    def write(self, token: int, is_image: bool, mask: bool, log_prob: float = 0.0, allowed: Sequence[int] = ()) -> None:
        """Append a token."""
        self.tokens.append(token)
        self.is_image.append(is_image)
        self.mask.append(mask)
        self.log_probs.append(log_prob)
        self.allowed.append(list(allowed))

    @property
    def ids(self) -> list[int]:
        """The ids of context and tokens, as the network reads them."""
        return self.context + [t + VOCABULARY * i for t, i in zip(self.tokens, self.is_image)]

    @property
    def draws(self) -> bool:
        """Whether the next token is an image token."""
        return self.ids[-1] == BOI or self.ids[-1] >= VOCABULARY

    @property
    def is_done(self) -> bool:
        """Whether the picture is complete."""
        return sum(self.is_image) == ROWS * COLUMNS


class GridPolicy:
    """See `types.Policy`."""

    thought_formats: tuple[ThoughtFormat, ...] = ("inline", "off")
    sees = draws_from_pictures = has_adapters = False
    text = ByteText()
    picture = PictureSpec(ROWS * TILE, COLUMNS * TILE, ROWS * COLUMNS, CODES)

    def __init__(self, network: GridNetwork, precision: str) -> None:
        self.network: nn.Module = network.eval()
        self.drawing: Sampling | None = None
        self.precision = precision
        self._reference: nn.Module | None = None
        self._in_reference = False

    @classmethod
    def load(
        cls, path: str | None, *, device: str, dtype: str, lora: LoraSettings | None, precision: str = "fp32"
    ) -> "GridPolicy":
        """Load the policy saved at `path`, or make a small random one."""
        if lora:
            raise UserError("lora: the grid policy has no adapters. Set lora=null.")
        if path:
            if not Path(path, "model.safetensors").is_file():
                raise UserError(f"policy {path} holds no model.safetensors. Give a folder that `save` wrote, or a run.")
            network = GridNetwork(GPT2Config.from_pretrained(path))
            network.load_state_dict(load_file(Path(path, "model.safetensors")))
        else:
            config = GPT2Config(
                vocab_size=VOCABULARY + CODES, bos_token_id=None, eos_token_id=None,
                n_positions=512, n_embd=64, n_layer=2, n_head=2, initializer_range=0.2,
                resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
            )  # fmt: skip
            with torch.random.fork_rng():
                torch.manual_seed(0)
                network = GridNetwork(config)
            nn.init.constant_(network.text_head.bias[BOI : BOI + 1], 3.0)  # some thoughts end before their budget does
        return cls(network.to(device, DTYPES[dtype]), precision)

    @property
    def _grid(self) -> GridNetwork:
        assert isinstance(self.network, GridNetwork)
        return self.network

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._grid.image_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self._grid.image_head.weight.dtype

    @property
    def max_positions(self) -> int:
        """The most tokens a row may have."""
        return self._grid.trunk.config.n_positions

    @property
    def revision(self) -> str:
        """Short hash of the weights."""
        digest = hashlib.sha256()
        for weight in self.network.parameters():
            digest.update(weight.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    # Sampling

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, group_size: int = 1,
        seeds: Sequence[int] | Tensor | None = None, seed: int = 0, decode: bool = True,
        prefix: Rollouts | None = None, prefix_lengths: Tensor | None = None,
    ) -> Rollouts:  # fmt: skip
        """Sample `group_size` rollouts per prompt."""
        seeds = tools.derive_seeds(seed, len(prompts), group_size) if seeds is None else torch.as_tensor(seeds)
        if len(seeds) != len(prompts) * group_size:
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts × group_size={group_size}: give one each.")
        rows = self._begin(prompts, sampling, prefix, prefix_lengths)
        rows = [copy.deepcopy(row) for row in rows for _ in range(group_size)]
        pairs = list(zip(rows, seeds.to(self.device)))
        with autocast(self.device, self.precision):
            while not all(row.is_done for row in rows):
                for is_image in (False, True):
                    if now := [(r, s) for r, s in pairs if r.draws == is_image and not r.is_done]:
                        self._write([r for r, _ in now], torch.stack([s for _, s in now]), is_image, sampling)
        repeated = [prompt for prompt in prompts for _ in range(group_size)]
        return self._rollouts(repeated, rows, sampling, seeds, group_size, decode)

    def _begin(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        prefix: Rollouts | None = None,
        lengths: Tensor | None = None,
    ) -> list[Row]:
        """Make a row for each prompt, with the part of the prefix that stays."""
        if sampling.thought not in self.thought_formats:
            raise UserError(f"thought={sampling.thought}: the grid policy takes {' or '.join(self.thought_formats)}.")
        budget, rows = 0 if sampling.thought == "off" else sampling.max_thought_tokens, []
        for text in (prompt.text for prompt in prompts):
            ids = self.text.prompt(sampling.in_form(text))
            if len(ids) + budget + 1 + ROWS * COLUMNS > self.max_positions:
                raise TooLongError(
                    f"prompt {text[:40]!r}… has {len(ids)} tokens; with max_thought_tokens={budget} and {ROWS * COLUMNS} "
                    f"image tokens that exceeds the model's {self.max_positions} positions. Shorten it."
                )
            rows.append(Row([*ids, BOI] if sampling.thought == "off" else ids))
        if prefix is None:
            return rows
        if lengths is None or not len(prefix) == len(rows) == len(lengths):
            raise ValueError(f"the prefix has {len(prefix)} rollouts and needs as many prompts and prefix_lengths.")
        if prefix.sampling.thought != sampling.thought:
            raise ValueError(
                f"a prefix sampled with thought={prefix.sampling.thought} cannot be continued as {sampling.thought}."
            )
        allowed = iter(prefix.allowed.indices.tolist()) if prefix.allowed else iter(())
        for r, row in enumerate(rows):
            for t in range(prefix.tokens.shape[1]):
                cut = [next(allowed) for _ in range(int(prefix.allowed.counts[r, t]))] if prefix.allowed else []
                if t < lengths[r]:
                    columns = (prefix.tokens, prefix.is_image, prefix.mask, prefix.log_probs)
                    row.write(*(column[r, t].item() for column in columns), cut)  # pyright: ignore[reportArgumentType]
        return rows

    def _write(self, rows: list[Row], seeds: Tensor, is_image: bool, sampling: Sampling) -> None:
        """Write one more token in each row; all of them are texts, or all are pictures."""
        ids = [torch.tensor(row.ids, device=self.device) for row in rows]
        position = (
            torch.arange(len(rows), device=self.device),
            torch.tensor([len(i) - 1 for i in ids], device=self.device),
        )
        hidden = self._grid.hidden(pad_sequence(ids, True, PAD), is_image and sampling.guidance_scale != 1)
        log_probs = self._grid.log_probs_after(hidden, position, is_image, sampling, None)
        allowed = tools.top_k_top_p_mask(log_probs, sampling.top_k, sampling.top_p)
        if allowed is not None:
            log_probs = log_probs.masked_fill(~allowed, -torch.inf).log_softmax(-1)
        # A token's noise follows from the rollout's seed and the token's position alone.
        index = torch.tensor([row.is_image.count(is_image) for row in rows], device=self.device)
        keys = tools.token_keys(tools.segment_streams(seeds, int(is_image and sampling.thought != "off")), index)
        noise = tools.neg_gumbel(keys, log_probs.shape[1])
        tokens = log_probs.argmax(-1) if sampling.greedy else tools.gumbel_max(log_probs, noise)
        for r, (row, token) in enumerate(zip(rows, tokens.tolist())):
            if not is_image and len(row.tokens) == sampling.max_thought_tokens:
                row.write(BOI, False, False)  # forced, so not in the mask
                continue
            cut = [] if allowed is None else allowed[r].nonzero()[:, 0].tolist()
            row.write(token, is_image, True, float(log_probs[r, token]), cut)

    def teacher_forced(
        self, prompts: Sequence[Prompt], thoughts: Sequence[str], image_tokens: Tensor, sampling: Sampling,
        drop: Tensor | None = None,
    ) -> Rollouts:  # fmt: skip
        """Make rollouts of known thoughts and pictures, to train on."""
        rows = self._begin(prompts, sampling)
        for r, (row, codes) in enumerate(zip(rows, image_tokens.tolist())):
            dropped = drop is not None and bool(drop[r])
            if sampling.thought != "off":
                ids = self.text.thought(thoughts[r])
                for token in ids[: sampling.max_thought_tokens]:
                    row.write(PAD if dropped else token, False, not dropped)
                row.write(BOI, False, not dropped and len(ids) < sampling.max_thought_tokens)
            if dropped:
                row.context = [i if i in (BOS, BOI) else PAD for i in row.context]
            for code in codes:
                row.write(code, True, True)
        return self._rollouts(prompts, rows, sampling, torch.zeros(len(rows)).long(), 1, False)

    def _rollouts(
        self,
        prompts: Sequence[Prompt],
        rows: list[Row],
        sampling: Sampling,
        seeds: Tensor,
        group_size: int,
        decode: bool,
    ) -> Rollouts:
        """Assemble finished rollouts."""

        def padded(columns: list[list], fill: float = 0) -> Tensor:
            return pad_sequence([torch.tensor(c, device=self.device) for c in columns], True, fill)

        segments = [[int(i and not all(row.is_image)) for i in row.is_image] for row in rows]
        counts = padded([[len(k) for k in row.allowed] for row in rows]).int()
        indices = [i for row in rows for k in row.allowed for i in k]
        rollouts = Rollouts(
            prompts=tuple(prompts), prompt_ids=padded([row.context for row in rows], PAD),
            prompt_mask=padded([[True] * len(row.context) for row in rows], False),
            tokens=padded([row.tokens for row in rows]), is_image=padded([row.is_image for row in rows], False),
            segment=padded(segments, -1).to(torch.int8), mask=padded([row.mask for row in rows], False),
            log_probs=padded([row.log_probs for row in rows]).float(), seeds=seeds.to(self.device), sampling=sampling,
            group_size=group_size, revision=self.revision,
            allowed=AllowedTokens(torch.tensor(indices, device=self.device, dtype=torch.int32), counts) if indices else None,
            thoughts=tuple(self.text.thought_text([t for t, i in zip(r.tokens, r.is_image) if not i]) for r in rows),
        )  # fmt: skip
        return (
            dataclasses.replace(rollouts, pictures=self.decode_tokens(rollouts.image_tokens())) if decode else rollouts
        )

    def log_probs(self, rollouts: Rollouts) -> TokenLogProbs:
        """Compute log-probs in the distribution sampled from, with gradient."""
        network = self._reference if self._in_reference and self._reference else self.network
        with autocast(self.device, self.precision):
            return TokenLogProbs(*network(rollouts.to(self.device)))

    # Pictures: a code is a colour.

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Encode pictures: each tile becomes its mean colour, rounded to four levels."""
        if pictures.shape[1:3] != (self.picture.height, self.picture.width):
            raise ValueError(f"pictures of shape {tuple(pictures.shape)}: this policy draws 20×28 pixels. Resize them.")
        tiles = pictures.to(self.device).float().unflatten(2, (COLUMNS, TILE)).unflatten(1, (ROWS, TILE)).mean((2, 4))
        return ((tiles / 85).round().long() * torch.tensor([16, 4, 1], device=self.device)).sum(-1).flatten(1)

    def decode_tokens(self, image_tokens: Tensor) -> Tensor:
        """Draw each code as a tile of its colour."""
        codes = F.pad(image_tokens, (0, ROWS * COLUMNS - image_tokens.shape[1])).to(
            self.device
        )  # black where a code is missing
        tiles = (self._levels(codes) * 85).to(torch.uint8).unflatten(1, (ROWS, COLUMNS))
        return tiles.repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)

    def code_vectors(self, image_tokens: Tensor) -> Tensor:
        """Return the direction of each code's colour from medium grey, (B, N, 3)."""
        return F.normalize(self._levels(image_tokens.to(self.device)) - 1.5, dim=-1)

    def _levels(self, codes: Tensor) -> Tensor:
        """Split codes (B, N) into red, green and blue, each 0..3, (B, N, 3)."""
        return torch.stack([codes // 16, codes // 4 % 4, codes % 4], -1).float()

    def picture_tokenizer_hash(self) -> str:
        """Hash the sizes that define the picture tokens."""
        return hashlib.sha256(f"{ROWS} {COLUMNS} {TILE} {CODES} colours".encode()).hexdigest()

    # Seeing

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Raise UserError: this policy cannot see."""
        raise UserError(
            "the grid policy cannot see: it answers no questions. Ask another judge, or none: questions_per_type=0."
        )

    yes_logits = log_likelihood = answer

    # The reference

    def make_reference(self, network: nn.Module | None = None) -> None:
        """Freeze a copy of the current weights as the reference."""
        self._reference = network or copy.deepcopy(self.network).requires_grad_(False)

    def reference_weights(self) -> dict[str, Tensor]:
        """Return the weights of the reference."""
        return self._reference.state_dict() if self._reference else {}

    def load_reference(self, weights: dict[str, Tensor]) -> None:
        """Restore the reference from `reference_weights`."""
        if self._reference:
            self._reference.load_state_dict(weights)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Let `log_probs` be the reference's inside the `with` block."""
        if self._reference is None:
            raise RuntimeError("no reference: call make_reference() before training.")
        self._in_reference = True
        try:
            yield
        finally:
            self._in_reference = False

    # Training

    @property
    def blocks(self) -> nn.ModuleList:
        """The repeated layers, which are sharded one by one."""
        return self._grid.trunk.h

    def checkpoint_layers(self) -> None:
        """Recompute layers in the backward pass, to save memory."""
        self._grid.trunk.gradient_checkpointing_enable({"use_reentrant": False})

    def freeze(self) -> None:
        """Switch off the gradients of all weights."""
        self.network.requires_grad_(False)

    def save(self, directory: Path) -> None:
        """Write a checkpoint that `load` opens, completely or not at all."""
        with atomic_directory(Path(directory)) as folder:
            self._grid.trunk.config.save_pretrained(folder)
            save_file(self.network.state_dict(), folder / "model.safetensors")
            if self.drawing is not None:
                write_record(folder, self.drawing)
