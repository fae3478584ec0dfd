"""The picture phase: begin-of-image and the picture of every row, token by token, all rows at the same token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinkdraw.policies.janus import network
from thinkdraw.policies.sampling import noise
from thinkdraw.policies.sampling.cache import Cache
from thinkdraw.policies.sampling.distribution import guide
from thinkdraw.policies.sampling.partial import Canvas
from thinkdraw.policies.sampling.session import Reader

AGAIN = 2  # tokens before the picture that are read here: a thought's last, which was written and not read, and begin-of-image


@dataclass
class Drawing:
    """rollouts: (A,) which to draw. contexts: their ids up to begin-of-image. seeds: (A,). Codes that the canvas has
    already are taken as they are.

    cache: A rows that hold all of the contexts but the last two tokens, or more, and with guidance A rows more.
    """

    reader: Reader
    rollouts: Tensor
    contexts: list[list[int]]
    canvas: Canvas
    seeds: Tensor
    cache: Cache

    def __post_init__(self) -> None:
        device, count = self.reader.device, len(self.contexts)
        self.longest = max(map(len, self.contexts))
        self.boi_at = torch.tensor([len(ids) - 1 for ids in self.contexts], device=device)
        self.tokens, self.index = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
        self.streams = noise.streams(self.seeds, 0 if self.reader.sampling.thought == "off" else 1)
        self.num_codes = self.canvas.num_codes[self.rollouts]

    def run(self) -> None:
        begin = int(self.num_codes.min())
        if begin == self.reader.num_image_tokens:
            return
        self.reader.replays.forget()
        self.index.fill_(begin)
        if self.reader.guided:
            self.cache = self.with_unconditional()
        self.choose(self.open(begin))
        changed = [self.canvas.codes, self.canvas.code_log_probs, self.tokens, self.index]
        for written in range(begin + 1, self.reader.num_image_tokens):
            columns = self.reader.columns_read(self.longest + written, self.cache.room)
            self.reader.replays.run(("draw", columns), lambda columns=columns: self.step(columns), changed)
        self.canvas.num_codes[self.rollouts] = self.reader.num_image_tokens

    def with_unconditional(self) -> Cache:
        """Unconditional rows are prefixes of one [BOS, pad, pad, …], which is read once."""
        reader, count, text = self.reader, len(self.contexts), self.reader.text
        blank = [[text.bos, *[text.pad] * (self.longest - AGAIN)]]
        lengths = self.boi_at - 1
        if reader.kernels is not None:
            stem = reader.blank(1, len(blank[0]))
            reader.read(stem, blank)
            return self.cache.on_stem(stem, torch.cat([torch.zeros_like(lengths), lengths]))
        reader.read(self.cache.part(count, count + 1), blank)
        rows = torch.arange(count, 2 * count, device=reader.device)
        self.cache.copy(rows, torch.full_like(rows, count), len(blank[0]))
        return self.cache

    def open(self, begin: int) -> Tensor:
        """Read the last two tokens of the contexts and the first `begin` codes, which all rows have; the last hidden states."""
        reader = self.reader
        last = torch.tensor([ids[-AGAIN:] for ids in self.contexts], device=reader.device)
        ids = torch.cat([last, self.canvas.codes[self.rollouts, :begin]], dim=1)
        is_image = (torch.arange(ids.shape[1], device=reader.device) >= AGAIN).expand(ids.shape)
        if reader.guided:
            ids, is_image = torch.cat([ids, reader.text.blanked(ids, is_image)]), is_image.repeat(2, 1)
        positions = self.boi_at[:, None] + torch.arange(1 - AGAIN, ids.shape[1] + 1 - AGAIN, device=reader.device)
        return self.forward(network.embed(reader.model, ids, is_image), positions, self.longest + begin)

    def step(self, columns: int) -> None:
        """Read each row's newest code, and write the one that follows."""
        embeddings = self.reader.embedded_codes[self.tokens][:, None]
        if self.reader.guided:
            embeddings = embeddings.repeat(2, 1, 1)
        self.choose(self.forward(embeddings, (self.boi_at + self.index)[:, None], columns))

    def forward(self, embeddings: Tensor, positions: Tensor, columns: int) -> Tensor:
        """Hidden states (ways · A, H) of the last tokens; positions (A, S) are those of unconditional rows too."""
        if self.reader.guided:
            positions = positions.repeat(2, 1)
        return self.reader.forward(self.cache, embeddings, positions, columns)[:, -1]

    def choose(self, hidden: Tensor) -> None:
        """Write the code that follows in each row, or take the one that is there."""
        reader, canvas, rollouts, index = self.reader, self.canvas, self.rollouts, self.index
        log_probs, kept = reader.distribution(self.logits(hidden))
        keys = None if reader.sampling.greedy else noise.keys(self.streams, index)
        tokens, chosen = reader.choose(log_probs, keys)
        free = self.num_codes <= index
        tokens = torch.where(free, tokens, canvas.codes[rollouts, index])
        canvas.codes[rollouts, index] = tokens
        canvas.code_log_probs[rollouts, index] = torch.where(free, chosen, canvas.code_log_probs[rollouts, index])
        if kept is not None:
            canvas.keep(rollouts[free], True, index[free], kept[free])
        self.tokens.copy_(tokens)
        self.index += 1

    def logits(self, hidden: Tensor) -> Tensor:
        """(A, codes), guided. The head's last layer is linear, so that guidance may come before it: half the products."""
        model, features = self.reader.model, network.image_features(self.reader.model, hidden)
        if self.reader.guided:
            given, blank = features.chunk(2)
            features = guide(given, blank, self.reader.sampling.guidance_scale)
        return network.feature_logits(model, features)
