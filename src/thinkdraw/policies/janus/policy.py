"""The policy of the Janus family.

One language model writes thoughts, draws image tokens and understands pictures. Chen et al. 2025, Janus-Pro (arXiv
2501.17811), through transformers' `JanusForConditionalGeneration`.
"""

import copy
import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import JanusForConditionalGeneration

from thinkdraw.errors import TooLongError, UserError
from thinkdraw.images import to_pictures, to_pixels
from thinkdraw.policies.adapters import merge_adapters
from thinkdraw.policies.drawing import write_record
from thinkdraw.policies.janus import loading, vq
from thinkdraw.policies.janus.functions import Heads
from thinkdraw.policies.janus.likelihood import GuidanceInLoss, Likelihood
from thinkdraw.policies.janus.text import JanusText
from thinkdraw.policies.lora import LoraSettings, adapters_off, add_lora
from thinkdraw.policies.sampling import memory
from thinkdraw.policies.sampling.noise import derive_seeds
from thinkdraw.policies.sampling.partial import PartialRollouts, pad_rows
from thinkdraw.policies.sampling.sampler import Sampler
from thinkdraw.policies.sampling.session import DecodingSession
from thinkdraw.runtime.device import autocast, warm_up_vector_math
from thinkdraw.types import Context, PictureSpec, Prompt, Rollouts, Sampling, ThoughtFormat, TokenLogProbs

CAPTION_REQUEST = "describe this picture."


class JanusPolicy:
    """Janus and Janus-Pro: one network that reads, thinks, draws and answers.

    Its methods are documented there, and here where Janus adds something. `network` is `Likelihood`, the module
    that is trained; `model` inside it is transformers' Janus. `janus/functions.py` holds the functions that
    sampling and scoring call on the model.
    precision: of the forward pass, fp32 or bf16 autocast.
    guidance_in_loss: see `Likelihood`.
    max_rows: of the KV cache, with those of guidance. None = as many as memory holds.
    cuda_graphs: replay recorded decode steps on an NVIDIA GPU.
    train_understanding: also train the vision encoder.
    """

    thought_formats: tuple[ThoughtFormat, ...] = ("inline", "rewrite", "off")
    sees = True
    draws_from_pictures = False

    def __init__(
        self, model: JanusForConditionalGeneration, processor: Any, *, precision: str = "fp32",
        guidance_in_loss: GuidanceInLoss = "same", train_understanding: bool = False, max_rows: int | None = None,
        cuda_graphs: bool = True, lora: LoraSettings | None = None,
    ):  # fmt: skip
        warm_up_vector_math()
        self.drawing: Sampling | None = None
        self.processor = processor
        self.precision, self.max_rows, self.cuda_graphs = precision, max_rows, cuda_graphs
        config: Any = model.config
        size = config.vision_config.image_size
        self.picture = PictureSpec(size, size, config.vision_config.num_image_tokens, config.vq_config.num_embeddings)
        self.max_positions = config.text_config.max_position_embeddings
        vocabulary = config.text_config.vocab_size
        self.text = JanusText(
            processor.tokenizer, config.image_token_id, vocabulary, self.picture.num_tokens,
            system_prompt=processor.use_default_system_prompt,
        )  # fmt: skip
        if lora:
            add_lora(model, lora)
        self.has_adapters = lora is not None
        frozen = [model.model.vqmodel]  # the picture tokenizer: image tokens keep their meaning
        if not train_understanding:
            frozen += [model.model.vision_model, model.model.aligner]
        for module in frozen:
            module.requires_grad_(False)
        self.network: nn.Module = Likelihood(model, self.text, guidance_in_loss).eval()
        self._reference: nn.Module | None = None
        self._in_reference = False  # inside `with policy.reference()`
        self._revision: tuple[Any, str] = (None, "")  # (versions of the weights, hash of these)

    @classmethod
    def load(
        cls,
        path: str,
        *,
        device: str,
        dtype: str,
        lora: LoraSettings | None,
        adapter: str | None = None,
        **options: Any,
    ) -> "JanusPolicy":
        """Read a checkpoint in transformers' or in DeepSeek's layout.

        adapter: a folder of LoRA adapters to merge into its weights.
        options: the other arguments of the class.
        """
        model: Any = loading.read_model(path, dtype)
        if adapter:
            merge_adapters(model, adapter)
        processor = loading.read_processor(path, model.config.vision_config.num_image_tokens)
        return cls(model.to(device), processor, lora=lora, **options)

    @property
    def model(self) -> JanusForConditionalGeneration:
        """The Janus of transformers, whichever module `network` is at the moment."""
        return self._module().model

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers of the language model."""
        return self.model.model.language_model.layers

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.model.dtype

    @property
    def revision(self) -> str:
        """Short hash of the weights, of up to thousands of numbers in each tensor.

        A sample is enough, because an optimiser step moves all numbers. The hash is computed anew only if a weight
        has changed. Adapters that have not learned yet change nothing and are left out, so that a policy has the
        same revision with and without them.
        """
        weights = dict(self.model.named_parameters())
        if any(isinstance(p, DTensor) for p in weights.values()):
            return self._revision[1]  # sharded: the revision of the last time that the weights were gathered
        if not any(bool(p.detach().any()) for n, p in weights.items() if ".lora_B." in n):
            weights = {n: p for n, p in weights.items() if ".lora_" not in n}
        # torch counts every in-place change of a tensor in its _version.
        version = tuple((p._version, p.data_ptr()) for p in weights.values())
        if self._revision[0] != version:
            digest = hashlib.sha256()
            for parameter in weights.values():
                flat = parameter.detach().flatten()
                digest.update(flat[:: max(1, len(flat) // 4096)].float().cpu().numpy().tobytes())
            self._revision = (version, digest.hexdigest()[:12])
        return self._revision[1]

    # Sampling

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, group_size: int = 1,
        seeds: Sequence[int] | Tensor | None = None, seed: int = 0, decode: bool = True,
        prefix: Rollouts | None = None, prefix_lengths: Tensor | None = None,
    ) -> Rollouts:  # fmt: skip
        """Sample `group_size` rollouts per prompt; see `types.Policy.sample`.

        Raises UserError for an empty or too long prompt.
        """
        contexts = [self._prompt_ids(p.text, sampling) for p in prompts for _ in range(group_size)]
        prompt_of_row = torch.arange(len(prompts)).repeat_interleave(group_size)
        if seeds is None:
            seeds = derive_seeds(seed, len(prompts), group_size)
        seeds = torch.as_tensor(seeds, dtype=torch.int64).to(self.device)
        if seeds.shape != (len(contexts),):
            raise ValueError(
                f"{seeds.numel()} seeds for {len(prompts)} prompts × group_size={group_size}: give one each."
            )
        partial = self._partial(prompt_of_row, sampling, prefix, prefix_lengths)
        repeated = tuple(prompts[i] for i in prompt_of_row.tolist())

        with autocast(self.device, self.precision):
            session = DecodingSession(
                self.model, self.text, sampling, self.picture.num_tokens, self.device, self.cuda_graphs
            )
            rows = self._rows_at_once(session, contexts)
            rewritten = functools.partial(self._rewritten_contexts, repeated, sampling)
            sampler = Sampler(session, contexts, partial, seeds, rewritten, rows)
            self._module().run(sampler.run)  # writes into `partial`
        pictures = self.decode_tokens(partial.codes) if decode else None
        return self._rollouts(repeated, contexts, partial, seeds, sampling, group_size, pictures)

    def _rows_at_once(self, session: DecodingSession, contexts: list[list[int]]) -> int:
        """Choose how many rows of the KV cache to decode together.

        Warns where memory does not hold the rows of all rollouts.
        """
        least, needed = session.rows_per_rollout, session.rows_per_rollout * len(contexts)
        if self.max_rows is not None:
            return max(least, self.max_rows)
        capacity = session.capacity(contexts, session.budget)
        bytes_per_row = memory.row_bytes(self.model.config, capacity, session.cache_dtype.itemsize)
        rows = max(least, memory.rows_that_fit(bytes_per_row, memory.free_bytes(self.device), memory.MAX_ROWS))
        if rows < min(memory.MAX_ROWS, needed):
            warnings.warn(
                f"{len(contexts)} rollouts at once need {needed * bytes_per_row / 1e9:.2g} GB, more than is free: drawn "
                f"{rows // least} at a time. `thinkdraw plan CONFIG` says which setting to change.",
                stacklevel=3,
            )
        return rows

    def teacher_forced(
        self,
        prompts: Sequence[Prompt],
        thoughts: Sequence[str],
        image_tokens: Tensor,
        sampling: Sampling,
        drop: Tensor | None = None,
    ) -> Rollouts:
        """Make rollouts of known thoughts and pictures; see `types.Policy.teacher_forced`.

        A thought that fills the budget is cut there, and what follows it is forced, as in `sample`.
        """
        contexts = [self._prompt_ids(p.text, sampling) for p in prompts]
        partial = PartialRollouts.blank(len(prompts), sampling.max_thought_tokens, self.picture.num_tokens, self.device)
        if sampling.thought != "off":
            end = self.text.boi if sampling.thought == "inline" else self.text.eos
            for row, thought in enumerate(thoughts):
                ids = self.text.thought(thought)
                is_cut = len(ids) >= sampling.max_thought_tokens
                ids = ids[: sampling.max_thought_tokens]
                chosen = len(ids) + (not is_cut)
                ids = ids if is_cut and end == self.text.eos else [*ids, end]
                partial.text[row, : len(ids)] = torch.tensor(ids)
                partial.text_len[row] = len(ids)
                partial.text_mask[row, :chosen] = True
        partial.codes[:] = image_tokens.to(self.device)
        rollouts = self._rollouts(
            tuple(prompts), contexts, partial, torch.zeros(len(prompts)).long(), sampling, 1, None
        )
        return rollouts if drop is None else self._dropped(rollouts, drop.to(self.device)[:, None])

    def _dropped(self, rollouts: Rollouts, drop: Tensor) -> Rollouts:
        """Blank prompt and thought of the rows in `drop` (B, 1) bool.

        This trains the unconditional pass of guidance.
        """
        blank = self.text.blanked
        tokens = torch.where(drop, blank(rollouts.tokens, rollouts.is_image | (rollouts.segment < 0)), rollouts.tokens)
        changes: dict[str, Any] = {"tokens": tokens, "mask": rollouts.mask & (rollouts.is_image | ~drop)}
        changes["prompt_ids"] = torch.where(drop, blank(rollouts.prompt_ids), rollouts.prompt_ids)
        changes["fresh_contexts"] = tuple(
            Context(torch.where(drop, blank(c.ids), c.ids), c.mask) for c in rollouts.fresh_contexts
        )
        return dataclasses.replace(rollouts, **changes)

    def _prompt_ids(self, text: str, sampling: Sampling) -> list[int]:
        """Encode a prompt's context.

        Raises UserError if it is empty, or leaves too few positions for thought and picture.
        """
        if not text.strip():
            raise UserError(f"prompt {text!r} is empty. Give it at least one word.")
        system = sampling.thought_system_prompt if sampling.thought == "rewrite" else None
        ids = self.text.prompt(sampling.as_thought_request(text), system)
        budget = 0 if sampling.thought == "off" else sampling.max_thought_tokens
        limit = self.max_positions
        if len(ids) + budget + 1 + self.picture.num_tokens > limit:
            raise TooLongError(
                f"prompt {text[:40]!r}… has {len(ids)} tokens; with max_thought_tokens={budget} and "
                f"{self.picture.num_tokens} image tokens that exceeds the model's {limit} positions. "
                "Shorten the prompt or lower max_thought_tokens."
            )
        return [*ids, self.text.boi] if sampling.thought == "off" else ids

    def _partial(
        self, rows: Tensor, sampling: Sampling, prefix: Rollouts | None, lengths: Tensor | None
    ) -> PartialRollouts:
        """Make the rollouts that sampling starts from: blank ones, or those of a prefix.

        rows: (B,) index of each rollout's prompt.
        """
        budget = 0 if sampling.thought == "off" else sampling.max_thought_tokens
        if prefix is None:
            return PartialRollouts.blank(len(rows), budget, self.picture.num_tokens, self.device)
        if len(prefix) != int(rows.max()) + 1 or lengths is None or lengths.shape != (len(prefix),):
            raise ValueError(f"the prefix has {len(prefix)} rollouts and needs as many prompts and prefix_lengths.")
        if prefix.segments:
            raise ValueError(
                "the prefix has other segments than a thought and a picture, and this sampler cannot continue those."
            )
        for key in ("thought", "prompt_form", "thought_instruction", "thought_system_prompt"):
            before, now = getattr(prefix.sampling, key), getattr(sampling, key)
            if before != now:
                raise ValueError(f"a prefix sampled with {key}={before} cannot be continued with {now}.")
        partial = PartialRollouts.of_prefix(
            prefix.to(self.device), lengths.to(self.device), budget, self.picture.num_tokens
        )
        return partial.select(rows.to(self.device))

    def _rewritten_contexts(
        self, prompts: Sequence[Prompt], sampling: Sampling, thoughts: Sequence[list[int]]
    ) -> list[list[int]]:
        """Encode the fresh contexts that `rewrite` pictures are drawn in.

        thoughts: their ids.
        """
        texts = [self.text.thought_text(ids) for ids in thoughts]
        return [self.text.rewritten(sampling.in_form(p.text), text) for p, text in zip(prompts, texts, strict=True)]

    def _rollouts(
        self, prompts: tuple[Prompt, ...], contexts: list[list[int]], partial: PartialRollouts, seeds: Tensor, sampling: Sampling,
        group_size: int, pictures: Tensor | None,
    ) -> Rollouts:  # fmt: skip
        """Assemble finished rollouts."""

        def padded(rows: list[list[int]]) -> Context:
            ids, lengths = pad_rows(rows, self.text.pad, self.device)
            return Context(ids, torch.arange(ids.shape[1], device=self.device) < lengths[:, None])

        texts, prompt = partial.texts(), padded(contexts)
        fresh = (padded(self._rewritten_contexts(prompts, sampling, texts)),) if sampling.thought == "rewrite" else ()
        return Rollouts(
            prompts=prompts, prompt_ids=prompt.ids, prompt_mask=prompt.mask, fresh_contexts=fresh,
            seeds=seeds.to(self.device), sampling=sampling, group_size=group_size, revision=self.revision,
            pictures=pictures, thoughts=tuple(self.text.thought_text(ids) for ids in texts), **partial.token_axis(),
        )  # fmt: skip

    # Likelihoods

    def log_probs(self, rollouts: Rollouts) -> TokenLogProbs:
        """Compute log-probs in the distribution sampled from, with gradient."""
        likelihood = self._reference if self._in_reference and self._reference is not None else self.network
        with autocast(self.device, self.precision):
            return TokenLogProbs(*likelihood(rollouts.to(self.device)))

    def make_reference(self, network: nn.Module | None = None) -> None:
        """Freeze a copy of the current weights as the reference; adapters need no copy.

        network: where `self.network` is sharded, the module with full weights that scores for the reference.
        """
        if network is not None:
            self._reference = network
        elif not self.has_adapters:
            # The picture tokenizer is never trained, so policy and reference share one.
            # The picture tokenizer is never trained, so policy and reference share one.
            shared = {id(self.model.model.vqmodel): self.model.model.vqmodel}
            model = copy.deepcopy(self.model, shared).requires_grad_(False)
            self._reference = Likelihood(model, self.text, self._module().guidance_in_loss).eval()

    def reference_weights(self) -> dict[str, Tensor]:
        """Return the weights that `make_reference` copied; empty with adapters."""
        if self._reference is None or self.has_adapters:
            return {}
        frozen = "model.vqmodel."  # shared with the policy, never trained
        reference: Any = self._reference
        return {n: w for n, w in reference.model.state_dict().items() if not n.startswith(frozen)}

    def load_reference(self, weights: dict[str, Tensor]) -> None:
        """Restore the reference from `reference_weights`."""
        if self._reference is not None and not self.has_adapters:
            reference: Any = self._reference
            reference.model.load_state_dict(reference.model.state_dict() | weights)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Let `log_probs` be the reference's inside the `with` block.

        Adapters are switched off, or the copy that `make_reference` made takes over.
        """
        if not self.has_adapters and self._reference is None:
            raise RuntimeError("no reference: call make_reference() before training, or load the policy with lora.")
        self._in_reference = True
        try:
            if self.has_adapters:
                with adapters_off(self.network if self._reference is None else self._reference):
                    yield
            else:
                yield
        finally:
            self._in_reference = False

    def _module(self) -> Any:
        """Return the `Likelihood` itself: a DDP wrapper would hide its attributes."""
        return getattr(self.network, "module", self.network)

    # Pictures

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Encode pictures as image tokens (B, N), in fp32 whatever the weights' dtype.

        So a corpus that was tokenised by one dtype has the tokens of the other.
        pictures: (B, H, W, 3) uint8, of the model's own size.
        """
        if pictures.shape[1:3] != (self.picture.height, self.picture.width):
            raise ValueError(
                f"pictures of shape {tuple(pictures.shape)}: this policy draws {self.picture.height}×{self.picture.width} "
                "pixels. Resize them."
            )
        vqmodel = self.model.model.vqmodel
        if vqmodel.quant_conv.weight.dtype != torch.float32:
            vqmodel = copy.deepcopy(vqmodel).float()
        return vq.encode(vqmodel, to_pixels(pictures).to(self.device))

    def code_vectors(self, image_tokens: Tensor) -> Tensor:
        """Look up the codebook's unit vectors (B, N, D) of image tokens (B, N)."""
        codebook = self.model.model.vqmodel.quantize.embedding.weight.detach().float()
        return torch.nn.functional.normalize(codebook, dim=-1)[image_tokens.to(self.device)]

    @torch.no_grad()
    def decode_tokens(self, image_tokens: Tensor) -> Tensor:
        """Decode image tokens (B, n ≤ N) to uint8 pictures (B, H, W, 3).

        Missing tokens are filled with the row's most frequent code.
        """
        missing = self.picture.num_tokens - image_tokens.shape[1]
        codes = image_tokens.to(self.device)
        if missing > 0:
            common = codes.mode(dim=1).values if codes.shape[1] else codes.new_zeros(len(codes))
            codes = torch.cat([codes, common[:, None].expand(-1, missing)], dim=1)
        vqmodel, config = self.model.model.vqmodel, self.model.config
        weight = vqmodel.quant_conv.weight
        size = memory.pictures_at_once(config, weight.itemsize, self.device)
        # bf16 weights need no autocast: under it CUDA's group norms would return fp32 maps, twice as large.
        with autocast(self.device, self.precision if weight.dtype == torch.float32 else "fp32"):
            decoded = memory.in_chunks(lambda part: to_pictures(vq.decode(vqmodel, part)), codes, size)
        return torch.cat(decoded)

    @torch.no_grad()
    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Return P(yes) (B,) for uint8 pictures (B, H, W, 3) and B questions.

        It compares "yes" with "no" as the answer's first token.
        """
        parts = zip(pictures.split(64), _split(questions, 64))
        return torch.cat([torch.sigmoid(self.yes_logits(p, q)) for p, q in parts])

    def yes_logits(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Return the log-odds (B,) of P(yes), with gradient, in one forward pass."""
        yes, no = (self.text.single_tokens(word).to(self.device) for word in ("yes", "no"))
        pixels = self.processor.image_processor(list(pictures.cpu().numpy()), return_tensors="pt")["pixel_values"]
        ids, lengths = pad_rows([self.text.question(q) for q in questions], self.text.pad, self.device)
        with autocast(self.device, self.precision):
            # No attention mask: padding is on the right, and causal attention hides it from everything before.
            output = self.model.model(
                input_ids=ids, pixel_values=pixels.to(self.device, self.model.dtype), use_cache=False
            )
            last = output.last_hidden_state[torch.arange(len(ids), device=self.device), lengths - 1]
        logits = Heads.of(self.model).text_logits(last)
        return logits[:, yes].logsumexp(1) - logits[:, no].logsumexp(1)

    @torch.no_grad()
    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """Rate texts as captions of pictures: (B,) mean log-likelihood per token, nats.

        Each text is scored as the answer to a request to describe its picture.
        """
        parts = [self._log_likelihood(p, t) for p, t in zip(pictures.split(64), _split(texts, 64))]
        return torch.cat(parts) if parts else torch.zeros(0)

    def _log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """Compute `log_likelihood` in one forward pass."""
        pixels = self.processor.image_processor(list(pictures.cpu().numpy()), return_tensors="pt")["pixel_values"]
        question, answers = self.text.question(CAPTION_REQUEST), [self.text.answer(text) for text in texts]
        ids, lengths = pad_rows([[*question, *answer] for answer in answers], self.text.pad, self.device)
        with autocast(self.device, self.precision):
            output = self.model.model(
                input_ids=ids, pixel_values=pixels.to(self.device, self.model.dtype), use_cache=False
            )
        first = len(question)
        log_probs = Heads.of(self.model).text_logits(output.last_hidden_state[:, first - 1 : -1]).log_softmax(-1)
        chosen = log_probs.gather(-1, ids[:, first:, None]).squeeze(-1)
        in_answer = torch.arange(first, ids.shape[1], device=self.device) < lengths[:, None]
        return (chosen * in_answer).sum(1) / in_answer.sum(1)

    def picture_tokenizer_hash(self) -> str:
        """Hash (SHA-256) the VQ model's weights and the size of pictures.

        The weights are rounded to bf16, so that one checkpoint has one hash in whichever dtype it was opened.
        """
        digest = hashlib.sha256(f"{self.picture.height} {self.picture.num_tokens}".encode())
        for name, weight in sorted(self.model.model.vqmodel.state_dict().items()):
            digest.update(name.encode() + weight.bfloat16().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def checkpoint_layers(self) -> None:
        """Recompute layers in the backward pass, to save memory."""
        self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def freeze(self) -> None:
        """Switch off the gradients of all weights, for a policy that is used as a judge."""
        self.model.requires_grad_(False)

    def save(self, directory: Path) -> None:
        """Write a folder that plain transformers loads, adapters merged, with its record.

        They are also written alone, into `adapter/`, as peft writes them.
        """
        loading.write_checkpoint(self.model, self.processor, Path(directory))
        if self.drawing is not None:
            write_record(directory, self.drawing)


def _split(items: Sequence[str], size: int) -> list[Sequence[str]]:
    """Split a sequence into pieces of up to `size` items."""
    return [items[i : i + size] for i in range(0, len(items), size)]
