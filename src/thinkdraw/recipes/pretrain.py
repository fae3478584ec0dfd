"""Train the lab's Janus from nothing: it learns to draw from prompts, to write thoughts (carelessly) and to answer about pictures.

    thinkdraw train lab_pretrain

Drawing rows are prompt → picture (`off`) and prompt → careless thought → picture (`inline`); a tenth of them is blanked for guidance.
Understanding rows are one picture with a description of it and several yes/no questions: each attends to the picture and itself only,
so that one pass over the picture serves them all. Descriptions have a target at every token, which is how the language model learns
to read the picture; questions alone taught it too slowly. The vision tower is helped by per-patch labels whose heads are thrown away.
"""

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import JanusConfig, JanusForConditionalGeneration, JanusVisionConfig, LlamaConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from thinkdraw.config import StrictModel
from thinkdraw.images import to_pixels
from thinkdraw.lab.facts import QUESTION_TYPES, random_question
from thinkdraw.lab.prompts import Example, Family, stream, words
from thinkdraw.lab.rationales import careless, write
from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, LATTICE, Scene, draw
from thinkdraw.lab.shapes import SHAPES, SIZES, TEXTURES
from thinkdraw.lab.text import sentences
from thinkdraw.policies import vq
from thinkdraw.policies.tiny import BOI, BOS, EOI, EOS, IMAGE, PAD, build_directory, train_tokenizer
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.runtime.tracking import MetricsLog

NUM_IMAGE_TOKENS = 64


class PretrainConfig(StrictModel):
    recipe: str = "pretrain"
    out: Path = Path("runs/lab_pretrain")
    tokenizer: Path = Field(
        default=Path("runs/lab_tokenizer/tokenizer"), description="The picture tokenizer's directory."
    )
    init: Path | None = Field(
        default=None, description="Go on from this Janus directory's weights instead of from nothing."
    )
    minutes: float = Field(default=60.0, gt=0)
    max_steps: int | None = Field(default=None, description="Train this many steps instead of `minutes`.")
    num_scenes: int = Field(default=30_000, description="Scenes drawn and tokenised once, then told in ever new words.")
    draw_rows: int = Field(default=48, description="Drawing rows per step, half of them with a thought.")
    ask_rows: int = Field(default=16, description="Pictures described and asked about per step.")
    questions_per_picture: int = 6
    learning_rate: float = 2e-3
    thought_weight: float = 0.15
    answer_weight: float = 1.0
    describe_weight: float = 0.5
    patch_weight: float = 0.5
    blank_frac: float = Field(
        default=0.1, description="Drawing rows whose prompt and thought are blanked, for guidance."
    )
    hidden: int = 256
    layers: int = 6
    vision_hidden: int = 128
    vision_layers: int = 4
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Ids:
    bos: int
    eos: int
    pad: int
    image: int
    boi: int
    eoi: int

    @staticmethod
    def of(tokenizer: Tokenizer) -> "Ids":
        vocabulary = tokenizer.get_vocab()
        return Ids(*(vocabulary[name] for name in (BOS, EOS, PAD, IMAGE, BOI, EOI)))


def build_model(config: PretrainConfig, tokenizer: Tokenizer, vqmodel: JanusVQVAE) -> JanusForConditionalGeneration:
    ids = Ids.of(tokenizer)
    text = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=config.hidden,
        intermediate_size=config.hidden * 5 // 2,
        num_hidden_layers=config.layers,
        num_attention_heads=config.hidden // 64,
        num_key_value_heads=config.hidden // 64,
        max_position_embeddings=512,
        bos_token_id=ids.bos,
        eos_token_id=ids.eos,
        tie_word_embeddings=False,
    )
    vision = JanusVisionConfig(
        hidden_size=config.vision_hidden,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=max(1, config.vision_hidden // 32),
        image_size=64,
        patch_size=8,
        projection_dim=config.hidden,
        mlp_ratio=3.0,
        num_image_tokens=NUM_IMAGE_TOKENS,
    )
    coder = vqmodel.config
    coder.projection_dim = coder.image_token_embed_dim = config.hidden
    janus = JanusConfig(
        text_config=text, vision_config=vision, vq_config=coder, image_token_id=ids.image, tie_word_embeddings=False
    )
    model = JanusForConditionalGeneration(janus)
    model.model.vqmodel.load_state_dict(vqmodel.state_dict())
    model.model.vqmodel.requires_grad_(False)
    return model


class Corpus:
    """Scenes with their picture tokens; words are new each time they are told."""

    def __init__(self, config: PretrainConfig, vqmodel: JanusVQVAE) -> None:
        self.rng = np.random.default_rng(config.seed)
        families: tuple[tuple[Family, float], ...] = (("geneval", 0.6), ("compbench", 0.25), ("dense", 0.15))
        self.items: list[tuple[Family, Example, Scene]] = []
        for family, share in families:
            source = stream(family, "train", config.seed)
            for _ in range(int(share * config.num_scenes)):
                made = next(source)
                self.items.append((family, made, made.scene(self.rng)))
        self.tokens = self._tokenised(config, vqmodel)

    def _tokenised(self, config: PretrainConfig, vqmodel: JanusVQVAE) -> Tensor:
        """(scenes, N) int16; kept in the run's folder, because encoding is the slow part of starting."""
        cache = config.out / "picture_tokens.safetensors"
        if cache.is_file():
            return load_file(cache)["tokens"]
        tokens = []
        for start in range(0, len(self.items), 128):
            pixels = to_pixels(np.stack([draw(scene) for *_, scene in self.items[start : start + 128]]))
            tokens.append(vq.encode(vqmodel, pixels, chunk=128).to(torch.int16))
        save_file({"tokens": torch.cat(tokens)}, cache)
        return torch.cat(tokens)

    def pick(self, count: int) -> list[int]:
        return self.rng.integers(len(self.items), size=count).tolist()

    def text(self, index: int) -> str:
        family, made, _ = self.items[index]
        return words(made.spec, family, self.rng)

    def thought(self, index: int) -> str:
        _, made, scene = self.items[index]
        stated = [
            {n for n in ("color", "size", "texture") if getattr(w, n)} for w in made.spec.things for _ in range(w.count)
        ]
        return careless(scene, stated, self.rng)


def drawing_batch(
    corpus: Corpus, tokenizer: Tokenizer, rows: int, thinking: bool, blank_frac: float
) -> dict[str, Tensor]:
    """Right-padded rows: input ids (text) or codes (image), targets, and which head each target belongs to (0 none, 1 text, 2 image)."""
    ids = Ids.of(tokenizer)
    picks = corpus.pick(rows)
    contexts, starts, blanked = [], [], corpus.rng.random(rows) < blank_frac
    for index, blank in zip(picks, blanked, strict=True):
        prompt = tokenizer.encode(f"<|User|>: {corpus.text(index)}\n\n<|Assistant|>:").ids
        thought = tokenizer.encode(" " + corpus.thought(index), add_special_tokens=False).ids if thinking else []
        row = [*prompt, *thought]
        contexts.append(([ids.bos] + [ids.pad] * (len(row) - 1) if blank else row) + [ids.boi])
        starts.append(len(row) if blank or not thinking else len(prompt))
    length = max(map(len, contexts)) + NUM_IMAGE_TOKENS
    inputs = torch.full((rows, length), ids.pad)
    kind = torch.zeros((rows, length), dtype=torch.int8)
    for b, (context, start) in enumerate(zip(contexts, starts, strict=True)):
        end = len(context)
        inputs[b, :end] = torch.tensor(context)
        inputs[b, end : end + NUM_IMAGE_TOKENS] = corpus.tokens[picks[b]].long()
        if thinking:
            kind[b, start:end] = 1
        kind[b, end : end + NUM_IMAGE_TOKENS] = 2
    return {"inputs": inputs, "kind": kind}


def drawing_loss(model: JanusForConditionalGeneration, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(text nats per token, image nats per token), means."""
    inputs, kind = batch["inputs"], batch["kind"]
    image = kind == 2
    embeds = model.get_input_embeddings()(inputs.masked_fill(image, 0))
    codes = model.prepare_embeddings_for_image_generation(inputs[image])
    embeds = embeds.masked_scatter(image[..., None], codes.to(embeds.dtype))
    hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, :-1]
    after_text, after_image = kind[:, 1:] == 1, kind[:, 1:] == 2
    image_logits = model.model.generation_head(hidden[after_image]).float()
    image_nats = F.cross_entropy(image_logits, inputs[:, 1:][after_image])
    if not bool(after_text.any()):
        return image_nats.new_zeros(()), image_nats
    return F.cross_entropy(model.lm_head(hidden[after_text]).float(), inputs[:, 1:][after_text]), image_nats


DESCRIBE = "what is in the picture?"


def asking_batch(corpus: Corpus, tokenizer: Tokenizer, rows: int, per_picture: int) -> dict[str, Tensor]:
    """Rows of one picture, a description and several questions.

    mask4d: (B, 1, L, L) bool, True = may attend. targets: (B, L) the next token where it is to be learned, else -100.
    is_answer: (B, L) bool, True where the target is yes or no.
    """
    ids = Ids.of(tokenizer)
    yes, no = (
        tokenizer.encode(" yes", add_special_tokens=False).ids,
        tokenizer.encode(" no", add_special_tokens=False).ids,
    )
    before = tokenizer.encode("<|User|>: ", add_special_tokens=False).ids
    head = [ids.bos, *before, ids.boi, *[ids.image] * NUM_IMAGE_TOKENS, ids.eoi]

    def asked(text: str) -> list[int]:
        return tokenizer.encode(f"\n{text}\n\n<|Assistant|>:", add_special_tokens=False).ids

    sequences, scenes = [], []
    for index in corpus.pick(rows):
        scene = corpus.items[index][2]
        description = tokenizer.encode(" " + write(scene, corpus.rng), add_special_tokens=False).ids
        parts = [(asked(DESCRIBE), [*description, ids.eos])]
        while len(parts) <= per_picture:
            answer = bool(corpus.rng.random() < 0.5)
            text = random_question(scene, QUESTION_TYPES[corpus.rng.integers(len(QUESTION_TYPES))], answer, corpus.rng)
            if text is not None:
                parts.append((asked(text), yes if answer else no))
        sequences.append(parts)
        scenes.append(scene)
    length = len(head) + max(sum(len(q) + len(a) - 1 for q, a in parts) for parts in sequences)
    inputs = torch.full((rows, length), ids.pad)
    owner = torch.full((rows, length), -1)
    positions = torch.zeros((rows, length), dtype=torch.long)
    targets = torch.full((rows, length), -100)
    is_answer = torch.zeros((rows, length), dtype=torch.bool)
    for b, parts in enumerate(sequences):
        inputs[b, : len(head)], owner[b, : len(head)] = torch.tensor(head), 0
        positions[b, : len(head)] = torch.arange(len(head))
        at = len(head)
        for k, (question, answer) in enumerate(parts):
            row = [*question, *answer[:-1]]
            span = slice(at, at + len(row))
            inputs[b, span], owner[b, span] = torch.tensor(row), k + 1
            positions[b, span] = torch.arange(len(head), len(head) + len(row))
            at += len(row)
            targets[b, at - len(answer) : at] = torch.tensor(answer)
            is_answer[b, at - 1] = k > 0
    same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (same & causal & (owner[:, None, :] >= 0)) | torch.eye(length, dtype=torch.bool)
    return {
        "inputs": inputs,
        "positions": positions,
        "mask4d": mask[:, None],
        "targets": targets,
        "is_answer": is_answer,
        "pixels": to_pixels(np.stack([draw(s) for s in scenes])),
        "patches": torch.stack([patch_labels(s) for s in scenes]),
        "background": torch.tensor([tuple(BACKGROUNDS).index(s.background) for s in scenes]),
    }


PATCH_CLASSES = (len(SHAPES) + 1, len(COLORS) + 1, len(SIZES) + 1, len(TEXTURES) + 1, 5)


def patch_labels(scene: Scene) -> Tensor:
    """(64, 5) int64 per patch: shape, colour, size, texture and quarter of the object that covers it; 0 = none."""
    labels = torch.zeros(LATTICE + 1, LATTICE + 1, 5, dtype=torch.long)
    names = (SHAPES, tuple(COLORS), SIZES, TEXTURES)
    for t in scene.things:
        look = [1 + pool.index(v) for pool, v in zip(names, (t.shape, t.color, t.size, t.texture), strict=True)]
        for dy in (0, 1):
            for dx in (0, 1):
                labels[t.row + dy, t.col + dx] = torch.tensor([*look, 1 + 2 * dy + dx])
    return labels.flatten(0, 1)


class PatchHeads(nn.Module):
    """Linear heads that help the vision tower while it learns; thrown away afterwards."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.patch = nn.Linear(hidden, sum(PATCH_CLASSES))
        self.background = nn.Linear(hidden, len(BACKGROUNDS))

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> Tensor:
        parts = self.patch(features).float().split(PATCH_CLASSES, dim=-1)
        losses = [
            F.cross_entropy(part.flatten(0, 1), batch["patches"][..., k].flatten()) for k, part in enumerate(parts)
        ]
        behind = F.cross_entropy(self.background(features.mean(1)).float(), batch["background"])
        return torch.stack([*losses, behind]).mean()


@dataclass(frozen=True)
class Asked:
    """Losses of the understanding rows, in nats per target, and the share of yes/no questions answered rightly."""

    answer: Tensor
    describe: Tensor
    patch: Tensor
    right: float


def asking_loss(model: JanusForConditionalGeneration, heads: PatchHeads, batch: dict[str, Tensor]) -> Asked:
    vision: Any = model.model.get_image_features(batch["pixels"])
    embeds = model.get_input_embeddings()(batch["inputs"])
    seen = batch["inputs"] == model.config.image_token_id
    embeds = embeds.masked_scatter(seen[..., None], vision.pooler_output.flatten(0, 1).to(embeds.dtype))
    mask = torch.zeros(batch["mask4d"].shape, dtype=embeds.dtype).masked_fill(
        ~batch["mask4d"], torch.finfo(embeds.dtype).min
    )
    hidden = model.model.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=batch["positions"], use_cache=False
    ).last_hidden_state
    answered, described = batch["is_answer"], (batch["targets"] >= 0) & ~batch["is_answer"]
    logits = model.lm_head(hidden[answered]).float()
    describe = F.cross_entropy(model.lm_head(hidden[described]).float(), batch["targets"][described])
    right = (logits.argmax(-1) == batch["targets"][answered]).float().mean().item()
    return Asked(
        F.cross_entropy(logits, batch["targets"][answered]), describe, heads(vision.last_hidden_state, batch), right
    )


def optimizers(model: nn.Module, heads: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon on the blocks' matrices, AdamW on embeddings, heads, norms and biases."""
    matrices, rest = [], list(heads.parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = parameter.ndim == 2 and ".layers." in name and "embed" not in name
            (matrices if inner else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def run(config: PretrainConfig) -> Path:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(config.out / "metrics.jsonl")
    log.truncate_after(-1)
    vqmodel = JanusVQVAE.from_pretrained(config.tokenizer).eval()
    tokenizer = train_tokenizer(list(sentences(3000)), 1024)
    corpus = Corpus(config, vqmodel)
    model = build_model(config, tokenizer, vqmodel).train()
    if config.init is not None:
        model.load_state_dict(
            JanusForConditionalGeneration.from_pretrained(config.init, dtype=torch.float32).state_dict()
        )
    model.model.vqmodel.eval()
    heads = PatchHeads(config.vision_hidden)
    optims = optimizers(model, heads, config.learning_rate)
    start, step, progress = time.time(), 0, 0.0
    while progress < 1.0:
        progress = step / config.max_steps if config.max_steps else (time.time() - start) / (60 * config.minutes)
        rate = config.learning_rate * min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1 - progress) / 0.6))
        for optimizer in optims:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        row: dict[str, float] = {"step": step, "seconds": round(time.time() - start, 1), "learning_rate": rate}
        with torch.autocast("cpu", torch.bfloat16):
            half = config.draw_rows // 2
            _, plain = drawing_loss(model, drawing_batch(corpus, tokenizer, half, False, config.blank_frac))
            (0.5 * plain).backward()
            text, thought_out = drawing_loss(model, drawing_batch(corpus, tokenizer, half, True, config.blank_frac))
            (0.5 * thought_out + config.thought_weight * text).backward()
            asked = asking_loss(
                model, heads, asking_batch(corpus, tokenizer, config.ask_rows, config.questions_per_picture)
            )
            understanding = config.answer_weight * asked.answer + config.describe_weight * asked.describe
            (understanding + config.patch_weight * asked.patch).backward()
        row |= {"image_nats": plain.item(), "image_nats_after_thought": thought_out.item(), "thought_nats": text.item()}
        row |= {"answer_nats": asked.answer.item(), "describe_nats": asked.describe.item()}
        row |= {"patch_nats": asked.patch.item(), "answers_right": asked.right}
        norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        row["gradient_norm"] = norm.item()
        if not math.isfinite(row["gradient_norm"]):
            raise FloatingPointError(
                f"gradient norm {row['gradient_norm']} at step {step}: lower learning_rate={config.learning_rate}."
            )
        for optimizer in optims:
            optimizer.step()
        step += 1
        if step % 10 == 0:
            log.append(row)
        if step % 250 == 0:
            publish(model, tokenizer, config)
    return publish(model.eval(), tokenizer, config)


def publish(model: JanusForConditionalGeneration, tokenizer: Tokenizer, config: PretrainConfig) -> Path:
    """Write the checkpoint in bf16, in Janus's published layout, with a model card."""
    folder = config.out / "janus"
    copied = copy.deepcopy(model).bfloat16()
    build_directory(copied, tokenizer, folder, 64, NUM_IMAGE_TOKENS)
    atomic_write_text(folder / "README.md", CARD)
    return folder


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-to-image
tags: [janus, thinkdraw, lab]
---

# The lab's Janus

A small `JanusForConditionalGeneration` that draws 64×64 pictures of the lab world (sixteen shapes, eight colours, two sizes, three
textures) as 64 image tokens, writes a thought before it draws, and answers yes/no questions about pictures. It is the base checkpoint
of thinkdraw's quickstart: it draws, but it does not think well, because its thoughts were pretrained on careless rationales.

Made from nothing by `thinkdraw train lab_tokenizer` and `thinkdraw train lab_pretrain` on two CPU cores; stored in bf16.
"""
