"""The decoding loop: think token by token, then draw, from any prefix; guidance rows run in the same batch.

The likelihoods that it notes are those of `scorer.py`, to float tolerance.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from transformers import JanusForConditionalGeneration

from thinkdraw.policies import network, noise
from thinkdraw.policies.arena import Arena
from thinkdraw.policies.cache import SPARE_COLUMNS, Layers, SlotCache, Way
from thinkdraw.policies.cached_attention import kernel_for
from thinkdraw.policies.canvas import Canvas, pad_rows
from thinkdraw.policies.decoder import Decoder
from thinkdraw.policies.distribution import guide, kept_set, log_distribution
from thinkdraw.policies.prompts import JanusText
from thinkdraw.types import Sampling

RACE_ENTRIES = 1 << 19  # of noise made at once: more than one step's where that is little


@dataclass
class Sampler:
    """Continues canvases: `run` writes the thought and the picture of each row. It reads the weights when it is made."""

    model: JanusForConditionalGeneration
    text: JanusText
    sampling: Sampling
    num_image_tokens: int
    device: torch.device
    arena: Arena

    def __post_init__(self) -> None:
        self.guided = self.sampling.guidance_scale != 1.0
        self.suppressed = self.text.suppressed.to(self.device)
        self.picture_segment = 0 if self.sampling.thought == "off" else 1
        self.decoder = Decoder(self.model)
        self.kernel = kernel_for(self.device, self.decoder.dtype, self.decoder.shape.width)
        # Of keys and values. Torch's attention of one query takes a quarter longer in bf16 on a CPU.
        by_torch = self.kernel is None and self.device.type == "cpu"
        self.cached_in = torch.float32 if by_torch else self.decoder.dtype
        self.num_codes: int = self.model.model.vqmodel.quantize.num_embeddings

    @torch.inference_mode()
    def run(
        self,
        contexts: list[list[int]],
        canvas: Canvas,
        seeds: Tensor,
        redraw: Callable[[list[list[int]]], list[list[int]]] | None,
    ) -> None:
        """contexts: each row's ids before the first token, begin-of-image included for `off`. redraw: from thoughts'
        ids to the fresh contexts of `rewrite`, begin-of-image included."""
        if self.sampling.thought == "off":
            bare = [ids[:-1] for ids in contexts]
            cache, lengths, _ = self.prefill(bare, num_thinking=0)
            return self.draw(cache, lengths, torch.full_like(lengths, -1), canvas, seeds)
        cache, lengths, pending = self.think(contexts, canvas, seeds)
        if self.sampling.thought == "inline":
            unopened = (self.last_text(canvas) != self.text.boi).nonzero().flatten()
            canvas.write_text(unopened, torch.full_like(unopened, self.text.boi), None)
            return self.draw(cache, lengths, pending, canvas, seeds)
        assert redraw is not None
        del cache
        cache, lengths, _ = self.prefill([ids[:-1] for ids in redraw(canvas.texts())], num_thinking=0)
        self.draw(cache, lengths, torch.full_like(lengths, -1), canvas, seeds)

    def last_text(self, canvas: Canvas) -> Tensor:
        """(B,) id of each row's last text token, −1 where there is none."""
        last = canvas.text.gather(1, (canvas.text_len - 1).clamp(min=0)[:, None])[:, 0]
        return torch.where(canvas.text_len > 0, last, -1)

    def prefill(self, contexts: list[list[int]], num_thinking: int) -> tuple[SlotCache, Tensor, Tensor]:
        """(cache with a slot per context, lengths (B,), last hidden states (B, H)); equal contexts run once."""
        unique = {tuple(ids): i for i, ids in reversed(list(enumerate(contexts)))}
        places = {ids: i for i, ids in enumerate(unique)}
        rows = torch.tensor([places[tuple(ids)] for ids in contexts], device=self.device)
        ids, lengths = pad_rows([list(ids) for ids in unique], self.text.pad, self.device)
        self.arena.reset()
        context, hidden = self.read(ids)
        last = hidden[torch.arange(len(ids), device=self.device), lengths - 1]
        lengths = lengths[rows]
        way = self.blank(len(contexts), ids.shape[1] + num_thinking + SPARE_COLUMNS + self.num_image_tokens)
        way.fill(context, rows, lengths)
        return SlotCache(way), lengths, last[rows]

    def blank(self, slots: int, columns: int) -> Way:
        return Way.blank(self.arena, self.decoder.shape, slots, columns, self.cached_in, self.device, self.kernel)

    def read(self, ids: Tensor) -> tuple[Layers, Tensor]:
        """Keys and values of texts (U, S), and their hidden states (U, S, H)."""
        way = self.blank(*ids.shape)
        positions = torch.arange(ids.shape[1], device=self.device).expand(ids.shape)
        embeddings = self.model.get_input_embeddings()(ids)
        return way.layers, self.forward(SlotCache(way), embeddings, positions, torch.ones_like(ids, dtype=torch.bool))

    def choose(self, log_probs: Tensor, race: Tensor | None) -> tuple[Tensor, Tensor]:
        """(tokens, their log-probs), each (A,). race: (A, V) of `noise.draw`, None = the likeliest."""
        tokens = log_probs.argmax(-1) if race is None else noise.draw(log_probs, race)
        return tokens, log_probs.gather(1, tokens[:, None])[:, 0]

    def races(self, seeds: Tensor, begin: int) -> Iterator[Tensor | None]:
        """Of the image tokens from `begin` on, (A, codes) each, made several tokens ahead; None for greedy."""
        ahead = max(1, RACE_ENTRIES // (len(seeds) * self.num_codes))
        for first in range(begin, self.num_image_tokens, ahead):
            places = torch.arange(first, min(first + ahead, self.num_image_tokens), device=self.device)
            if self.sampling.greedy:
                yield from [None] * len(places)
                continue
            keys = noise.keys(seeds.repeat(len(places)), self.picture_segment, places.repeat_interleave(len(seeds)))
            yield from noise.race(keys, self.num_codes).split(len(seeds))

    def distribution(self, logits: Tensor, suppressed: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(log-probabilities sampled from, kept set or None), each (A, V)."""
        of = partial(log_distribution, logits, temperature=self.sampling.temperature, suppressed=suppressed)
        log_probs = of()
        kept = kept_set(log_probs, self.sampling.top_k, self.sampling.top_p)
        return (log_probs if kept is None else of(kept=kept)), kept

    def think(self, contexts: list[list[int]], canvas: Canvas, seeds: Tensor) -> tuple[SlotCache, Tensor, Tensor]:
        """Write thoughts until end-of-sentence, begin-of-image or the budget.

        Returns the cache, the number of tokens in it (B,), and each row's last thought token if not in it, else −1.
        """
        budget, (eos, boi) = self.sampling.max_thought_tokens, (self.text.eos, self.text.boi)
        texts = [ids[:-1] if ids and ids[-1] == boi else ids for ids in canvas.texts()]
        last = self.last_text(canvas)
        finished = (last == eos) | (last == boi) | (canvas.text_len >= budget)
        num_thinking = 0 if bool(finished.all()) else budget - int(canvas.text_len[~finished].min())
        cache, lengths, hidden = self.prefill([c + t for c, t in zip(contexts, texts)], num_thinking)
        pending = torch.full_like(lengths, -1)
        if bool(finished.any()):
            cache.retire(finished)
        hidden = hidden[cache.order[: cache.num_active]]
        while cache.num_active:
            rows = cache.order[: cache.num_active]
            index = canvas.text_len[rows]
            log_probs, kept = self.distribution(network.text_logits(self.model, hidden), suppressed=self.suppressed)
            keys = noise.keys(seeds[rows], 0, index)
            race = None if self.sampling.greedy else noise.race(keys, log_probs.shape[1])
            tokens, chosen = self.choose(log_probs, race)
            if kept is not None:
                canvas.keep(rows, False, index, kept)
            canvas.write_text(rows, tokens, chosen)
            done = (tokens == eos) | (tokens == boi) | (index + 1 >= budget)
            if bool(done.any()):
                pending[rows] = torch.where(done & (tokens != boi), tokens, -1)
                cache.retire(done)
                if not cache.num_active:
                    break
                rows = cache.order[: cache.num_active]
                tokens = canvas.text[rows, canvas.text_len[rows] - 1]
            hidden = self.step(cache, self.model.get_input_embeddings()(tokens[:, None]), lengths[rows])
            lengths[rows] += 1
        return cache, lengths, pending

    def draw(self, cache: SlotCache, lengths: Tensor, pending: Tensor, canvas: Canvas, seeds: Tensor) -> None:
        """Write begin-of-image and the picture of every row; codes that a row already has are taken as they are.

        cache: holds the first lengths (B,) tokens of each row's context; pending (B,) is one more, or −1.
        """
        rows = cache.order
        cache.num_active = len(rows)
        cache.ways[0].blank_hidden()
        lengths, pending, seeds = lengths[rows], pending[rows], seeds[rows]
        boi_at = lengths + (pending >= 0)
        if self.guided:
            cache.ways.append(self.unconditional(boi_at))
        begin = int(canvas.num_codes.min())
        hidden = self.open_picture(cache, lengths, pending, canvas.codes[rows, :begin])
        for n, race in enumerate(self.races(seeds, begin), begin):
            log_probs, kept = self.distribution(self.image_logits(hidden))
            index = torch.full_like(rows, n)
            tokens, chosen = self.choose(log_probs, race)
            free = canvas.num_codes[rows] <= n
            tokens = torch.where(free, tokens, canvas.codes[rows, n])
            canvas.codes[rows, n] = tokens
            canvas.code_log_probs[rows, n] = torch.where(free, chosen, canvas.code_log_probs[rows, n])
            if kept is not None:
                canvas.keep(rows[free], True, index[free], kept[free])
            if n + 1 < self.num_image_tokens:
                hidden = self.step(cache, self.embedded_codes[tokens][:, None], boi_at + 1 + n)
        canvas.num_codes.fill_(self.num_image_tokens)

    @cached_property
    def embedded_codes(self) -> Tensor:
        """(codes, H): computed once, where every drawn token would else go through the aligner."""
        return network.embed_codes(self.model, torch.arange(self.num_codes, device=self.device))

    def image_logits(self, hidden: Tensor) -> Tensor:
        """(A, codes), guided. The head's last layer is linear, so that guidance may come before it: half the products."""
        features = network.image_features(self.model, hidden)
        if self.guided:
            given, blank = features.chunk(2)
            features = guide(given, blank, self.sampling.guidance_scale)
        return network.feature_logits(self.model, features)

    def unconditional(self, lengths: Tensor) -> Way:
        """Unconditional rows are prefixes of one [BOS, pad, pad, …]: run it once, show lengths[s] of it to slot s."""
        longest = int(lengths.max())
        ids = torch.full((1, longest), self.text.pad, device=self.device)
        ids[0, 0] = self.text.bos
        context, _ = self.read(ids)
        columns = 2 + self.num_image_tokens
        if self.kernel is not None:
            way = self.blank(len(lengths), columns)
            way.stand_on(context, lengths)
        else:
            way = self.blank(len(lengths), longest + columns)
            way.fill(context, torch.zeros_like(lengths), lengths)
        return way

    def open_picture(self, cache: SlotCache, lengths: Tensor, pending: Tensor, codes: Tensor) -> Tensor:
        """Feed [pending token] · begin-of-image · codes that all rows share in number; the last hidden states."""
        boi = torch.full_like(pending, self.text.boi)[:, None]
        ids = torch.cat([pending.clamp(min=0)[:, None], boi, codes], dim=1)
        is_image = torch.arange(ids.shape[1], device=self.device) >= 2
        embeddings = network.embed(self.model, ids, is_image.expand(ids.shape))
        boi_at = lengths + (pending >= 0)
        positions = boi_at[:, None] + torch.arange(-1, ids.shape[1] - 1, device=self.device)
        seen = torch.ones_like(ids, dtype=torch.bool)
        seen[:, 0] = pending >= 0
        if self.guided:
            blank = seen.clone()
            blank[:, 0] = False  # the unconditional context has a pad for the pending token already
            seen = torch.cat([seen, blank])
            embeddings, positions = embeddings.repeat(2, 1, 1), positions.repeat(2, 1)
        if not bool((pending >= 0).any()):
            embeddings, positions, seen = embeddings[:, 1:], positions[:, 1:], seen[:, 1:]
        return self.forward(cache, embeddings, positions, seen)[:, -1]

    def step(self, cache: SlotCache, embeddings: Tensor, positions: Tensor) -> Tensor:
        """One token (A, 1, H) for every active slot, in both ways where guided; hidden states (ways · A, H)."""
        ways = len(cache.ways)
        embeddings, positions = embeddings.repeat(ways, 1, 1), positions[:, None].repeat(ways, 1)
        return self.forward(cache, embeddings, positions, torch.ones_like(positions, dtype=torch.bool))[:, -1]

    def forward(self, cache: SlotCache, embeddings: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """Hidden states (ways · A, S, H) of new tokens, the first way's rows first; seen (ways · A, S), False = skipped."""
        cache.open(seen)
        hidden = self.decoder(embeddings, positions, cache)
        cache.close(seen.shape[1])
        return hidden
