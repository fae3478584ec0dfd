"""Train the lab's CLIP from nothing: it scores how well a picture fits a text.

    thinkdraw train lab_clip

It is the lab's preference-style judge. Batches are pairs: a scene, and the same scene with one fact of its prompt changed, each with
its own caption. So every picture meets a caption that is wrong in one fact only, and every caption meets such a picture. The rest of
the batch are easy negatives. Prompts say little, so some are true of another row's picture too: the lab's ground truth knows them,
and they are left out of the loss. Some pairs are described by rationales as well. As in pretraining, a loss on labels of patches
helps the vision tower while it learns.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from tokenizers import pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from thinkdraw.benchmarks.statistics import wilson
from thinkdraw.config import StrictModel
from thinkdraw.images import to_pixels
from thinkdraw.judges.scorers.clip import ClipScorer, read_model, read_processors
from thinkdraw.lab.prompts import Family, prompt_set, prompt_text
from thinkdraw.lab.scenes import PIXELS, STEP, Scene, draw
from thinkdraw.lab.shapes import SHAPES
from thinkdraw.lab.specs import Spec, satisfies
from thinkdraw.lab.text import sentences
from thinkdraw.lab.wording import Example
from thinkdraw.make_lab.clip_rows import FAMILIES, Batch, batches, make_counterexample, truth_table
from thinkdraw.make_lab.pretrain import PatchHeads, optimizers
from thinkdraw.policies.building import builder_of
from thinkdraw.runtime.files import atomic_directory, atomic_write_text, only_writer_of_out
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.types import Scorer

MAX_TOKENS = 96  # the longest rationale of the lab has 67
MAX_LOGIT_SCALE = math.log(100.0)


class ClipConfig(StrictModel):
    recipe: str = Field(default="clip", description="Names the recipe that this configuration is for; always `clip`.")
    out: Path = Field(
        default=Path("runs/lab_clip"), description="Folder of the run; the checkpoint is its folder `clip`."
    )
    init: Path | None = Field(
        default=None,
        description="CLIP checkpoint folder whose weights training goes on from; null starts from nothing.",
    )
    minutes: float = Field(
        default=20.0,
        gt=0,
        description="Minutes of training, in the last 60 % of which the learning rate falls to zero.",
    )
    max_steps: int | None = Field(
        default=None, ge=1, description="Train this many steps in place of `minutes`; null trains by the clock."
    )
    pairs: int = Field(
        default=32, ge=1, description="Scenes per step, each beside a twin in which one fact is changed."
    )
    told_pairs: int = Field(
        default=8, ge=1, description="How many of the pairs are described by rationales as well as by prompts."
    )
    learning_rate: float = Field(
        default=2e-3, gt=0, description="Highest learning rate of Muon and AdamW, reached after 100 steps."
    )
    told_weight: float = Field(
        default=0.5, ge=0, description="Weight of the loss on rationales, beside that on prompts."
    )
    patch_weight: float = Field(
        default=0.5,
        ge=0,
        description="Weight of the loss on labels of each patch, which helps the vision tower to learn.",
    )
    place_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the loss on where things stand, so that embeddings hold places and relations.",
    )
    embedding: int = Field(default=128, ge=1, description="Dimensions of the space that pictures and texts share.")
    vision_hidden: int = Field(default=160, ge=1, description="Width of the vision tower; each attention head has 32.")
    vision_layers: int = Field(default=4, ge=1, description="Number of layers of the vision tower.")
    text_hidden: int = Field(default=128, ge=1, description="Width of the text tower; each attention head has 32.")
    text_layers: int = Field(default=3, ge=1, description="Number of layers of the text tower.")
    save_every: int = Field(default=500, ge=1, description="Steps between writings of the checkpoint.")
    test_scenes: int = Field(
        default=1000, ge=3, description="Scenes of the test split that measure the trained model at the end."
    )
    threads: int = Field(default=2, ge=1, description="CPU threads that torch uses.")
    seed: int = Field(default=0, ge=0, description="Seed of scenes, words and first weights.")


class PlaceHead(nn.Module):
    """Reads each shape's place off a picture's embedding; only used in training.

    Without it the embedding learns what is there long before it learns where.
    """

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.place = nn.Linear(embedding, 2 * len(SHAPES))

    def forward(self, pictures: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Compute the mean squared error of (row, column), each in -1..1.

        It is over the objects whose shape their scene has once. pictures: (B, D) of unit length.
        """
        places = torch.full((len(scenes), len(SHAPES), 2), torch.nan)
        for b, scene in enumerate(scenes):
            shapes = [thing.shape for thing in scene.objects]
            for thing in scene.objects:
                if shapes.count(thing.shape) == 1:
                    places[b, SHAPES.index(thing.shape)] = torch.tensor([thing.row, thing.col]) / 3 - 1
        known = ~places.isnan()
        read = self.place(pictures * pictures.shape[-1] ** 0.5).view_as(places)
        return (read - places)[known].square().mean()


RELATION_OFFSETS = {"left of": (0.0, -1.0), "right of": (0.0, 1.0), "above": (-1.0, 0.0), "below": (1.0, 0.0)}


def relation_error(head: PlaceHead, texts: Tensor, specs: Sequence[Spec]) -> Tensor:
    """Compute the squared error of the relations that the texts state.

    texts: (B, D) of unit length. The places that the head reads for the two shapes should differ by the relation's offset.
    """
    rows = [
        (b, SHAPES.index(s.objects[i].shape), SHAPES.index(s.objects[j].shape), RELATION_OFFSETS[r])
        for b, s in enumerate(specs)
        for i, r, j in s.relations
    ]
    if not rows:
        return texts.sum() * 0
    read = head.place(texts * texts.shape[-1] ** 0.5).view(len(texts), len(SHAPES), 2)
    b, i, j, offsets = zip(*rows)
    b, i, j = torch.tensor(b), torch.tensor(i), torch.tensor(j)
    return (read[b, i] - read[b, j] - torch.tensor(offsets)).square().mean()


def contrastive_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Compute the mean nats of finding each text's picture and each picture's text.

    logits: (N, N), texts × pictures, matches on the diagonal. true: (N, N) bool; other cells that are True are left out.
    Radford et al. 2021 (arXiv 2103.00020).
    """
    own = torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill(true & ~own, -torch.inf)
    targets = torch.arange(len(logits))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def step_losses(
    config: ClipConfig, model: CLIPModel, heads: nn.ModuleList, tokenizer: PreTrainedTokenizerBase, batch: Batch
) -> tuple[Tensor, dict[str, float]]:
    """Compute the weighted loss and its terms.

    The terms include the fraction of pictures that prefer their own prompt to their counterexample's.
    """

    def read(texts: list[str]) -> Tensor:
        ids: Any = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        features: Any = model.get_text_features(**ids)
        return features.pooler_output

    with torch.autocast("cpu", torch.bfloat16):
        pixels = to_pixels(np.stack([draw(scene) for scene in batch.scenes]))
        seen: Any = model.get_image_features(pixels, output_hidden_states=True)
        prompts, rationales = read(batch.prompts), read(batch.rationales)
        # Halfway up, so that the layers above can gather what the patches show.
        halfway = seen.hidden_states[len(seen.hidden_states) // 2]
        patch = heads[0](halfway[:, 1:], batch.scenes)
    scale = model.logit_scale.exp()
    pictures = F.normalize(seen.pooler_output.float(), dim=-1)
    texts = F.normalize(prompts.float(), dim=-1)
    place_head = heads[1]
    assert isinstance(place_head, PlaceHead)
    rel = relation_error(place_head, texts, batch.specs)
    logits = texts @ pictures.T
    told = F.normalize(rationales.float(), dim=-1) @ pictures[: len(rationales)].T
    true = truth_table(batch.specs, batch.scenes)
    place = place_head(pictures, batch.scenes)
    prompt_loss = contrastive_loss(scale * logits, true)
    told_loss = contrastive_loss(scale * told, torch.eye(len(told), dtype=torch.bool))
    twin = torch.arange(len(logits)) ^ 1
    false = ~true[twin, torch.arange(len(logits))]
    right = (logits.diagonal() > logits[twin, torch.arange(len(logits))])[false].float().mean()
    parts = {
        "prompt_nats": prompt_loss,
        "rationale_nats": told_loss,
        "patch_nats": patch,
        "place_error": place,
        "rel_error": rel,
    }
    parts["pairs_right"] = right
    loss = (
        prompt_loss + config.told_weight * told_loss + config.patch_weight * patch + config.place_weight * (place + rel)
    )
    return loss, {name: value.item() for name, value in parts.items()} | {"logit_scale": scale.item()}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the lab's byte-level BPE.

    Texts end with EOS, where CLIP reads them off, and begin with a space, as words inside a text do.
    """
    janus = builder_of("janus")
    bos, eos, pad = janus.tokens[:3]
    tokenizer = janus.train_tokenizer(list(sentences(3000)), 1024)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    ends = [(token, tokenizer.token_to_id(token)) for token in (bos, eos)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A {eos}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad, model_max_length=MAX_TOKENS
    )


def build_model(config: ClipConfig, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    ids: dict[str, Any] = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.text_hidden,
        intermediate_size=3 * config.text_hidden,
        num_hidden_layers=config.text_layers,
        num_attention_heads=max(1, config.text_hidden // 32),
        max_position_embeddings=MAX_TOKENS,
        **ids,
    )
    vision = CLIPVisionConfig(
        hidden_size=config.vision_hidden,
        intermediate_size=3 * config.vision_hidden,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=max(1, config.vision_hidden // 32),
        image_size=PIXELS,
        patch_size=STEP,
    )
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.embedding))
    with torch.no_grad():
        # transformers' 0.02 is a tenth of what the patches themselves give: the tower then hardly learns where objects are.
        model.vision_model.embeddings.position_embedding.weight[1:] = 0.3 * sine_positions(config.vision_hidden)
    return model


def sine_positions(hidden: int) -> Tensor:
    """Return (patches, hidden): sines and cosines of row and column, half of each.

    Vaswani et al. 2017 (arXiv 1706.03762).
    """
    waves = torch.arange(PIXELS // STEP)[:, None] * 10 ** -torch.linspace(0, 2, hidden // 4)
    line = torch.cat([waves.sin(), waves.cos()], dim=1)
    rows, columns = line[:, None].expand(-1, len(line), -1), line[None].expand(len(line), -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


@only_writer_of_out
def run(config: ClipConfig) -> Path:
    """Train, publish and measure. Returns the checkpoint's folder."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    log = MetricsLog(config.out / "metrics.jsonl")
    log.truncate_after(-1)
    if config.init is None:
        tokenizer = build_tokenizer()
        model = build_model(config, tokenizer)
    else:
        model = read_model(str(config.init)).requires_grad_(True)
        tokenizer, _ = read_processors(str(config.init))
    model.set_attn_implementation("eager")  # the fused kernel's backward is slow on CPUs
    model.train()
    heads = nn.ModuleList([PatchHeads(model.vision_embed_dim), PlaceHead(config.embedding)])
    optims = optimizers(model, heads, config.learning_rate)
    step, start = 0, time.monotonic()
    for batch in batches(config.pairs, min(config.told_pairs, config.pairs), config.seed):
        progress = step / config.max_steps if config.max_steps else (time.monotonic() - start) / (60 * config.minutes)
        if progress >= 1:
            break
        rate = config.learning_rate * min(1.0, (step + 1) / 100) * min(1.0, (1 - progress) / 0.6)
        for optimizer in optims:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        loss, parts = step_losses(config, model, heads, tokenizer, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0).item()
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"gradient norm {norm} at step {step}: lower learning_rate={config.learning_rate}."
            )
        for optimizer in optims:
            optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        step += 1
        if step % 10 == 0:
            row = {
                "step": step,
                "seconds": round(time.monotonic() - start, 1),
                "learning_rate": rate,
                "gradient_norm": norm,
            }
            log.append(row | parts)
        if step % config.save_every == 0:
            publish(model, tokenizer, config)
    folder = publish(model, tokenizer, config)
    measured = caption_accuracy(ClipScorer(folder), config.test_scenes, config.seed)
    log.append({"step": step, "seconds": round(time.monotonic() - start, 1)} | measured.numbers())
    atomic_write_text(folder / "README.md", CARD + measured.sentence())
    return folder


def publish(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, config: ClipConfig) -> Path:
    """Write the checkpoint in bf16, as plain transformers loads it, with a model card."""
    folder = config.out / "clip"
    size = {"height": PIXELS, "width": PIXELS}
    pictures = CLIPImageProcessorPil(
        size=size, do_center_crop=False, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    with atomic_directory(folder) as temporary:
        copy.deepcopy(model).bfloat16().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        pictures.save_pretrained(temporary)
        (temporary / "README.md").write_text(CARD, encoding="utf-8")
    return folder


@dataclass(frozen=True)
class CaptionAccuracy:
    """How often a scene's true caption scores higher than a wrong one.

    fact: kind of fact → (times, comparisons) against the caption with that fact changed. other_scene: the same against another scene's
    caption. Comparisons without a verdict are left out and counted.
    """

    fact: dict[str, tuple[int, int]]
    other_scene: tuple[int, int]
    num_no_verdict: int = 0

    def fact_total(self) -> tuple[int, int]:
        return sum(right for right, _ in self.fact.values()), sum(count for _, count in self.fact.values())

    def numbers(self) -> dict[str, float]:
        """Return fractions in 0..1, NaN left out, with the numbers of comparisons."""
        counted = {"fact": self.fact_total(), "other": self.other_scene} | {
            f"fact_{k}": v for k, v in self.fact.items()
        }
        shares = {f"{name}_accuracy": right / count for name, (right, count) in counted.items() if count}
        return shares | {f"{name}_comparisons": count for name, (_, count) in counted.items()}

    def sentence(self) -> str:
        def share(right: int, count: int) -> str:
            low, high = wilson(right, count)
            return f"{right / max(1, count):.3f} [{low:.3f}, {high:.3f}] of {count}"

        kinds = ", ".join(f"{name} {share(*counted)}" for name, counted in sorted(self.fact.items()))
        return (
            f"A scene's true caption scores higher than another scene's caption in {share(*self.other_scene)}, and higher than "
            f"the same caption with one changed fact in {share(*self.fact_total())}: {kinds}."
        )


def caption_accuracy(scorer: Scorer, count: int = 1000, seed: int = 0) -> CaptionAccuracy:
    """Score scenes of the three families' test splits with right and wrong captions.

    Each of the `count` scenes is scored with its caption, with the caption with one changed fact, and with another scene's. Both wrong
    captions are false of the scene; the changed one has the same wording. seed: of scenes, changes and words.
    """
    rng = np.random.default_rng([seed, 1])
    examples: list[tuple[Family, Example]] = []
    for family in FAMILIES:
        examples.extend((family, example) for example in prompt_set(family, "test", -(-count // len(FAMILIES))))
    del examples[count:]
    pictures, captions, changed, others, facts = [], [], [], [], []
    for family, example in examples:
        scene, wording = example.scene(rng), int(rng.integers(2**31))
        counterexample = make_counterexample(example.spec, scene, rng, trained_only=False)
        while satisfies(counterexample.spec, scene):
            counterexample = make_counterexample(example.spec, scene, rng, trained_only=False)
        stranger = examples[rng.integers(len(examples))][1]
        while satisfies(stranger.spec, scene):
            stranger = examples[rng.integers(len(examples))][1]
        pictures.append(draw(scene))
        facts.append(counterexample.fact)
        others.append(stranger.prompt.text)
        captions.append(prompt_text(example.spec, family, np.random.default_rng(wording)))
        changed.append(prompt_text(counterexample.spec, family, np.random.default_rng(wording)))
    shown = torch.from_numpy(np.stack(pictures))
    true, wrong, foreign = (scorer.score(shown, texts) for texts in (captions, changed, others))
    judged = ~(true.isnan() | wrong.isnan() | foreign.isnan())
    right: dict[str, tuple[int, int]] = {}
    for k in judged.nonzero().flatten().tolist():
        won, compared = right.get(facts[k], (0, 0))
        right[facts[k]] = won + int(true[k] > wrong[k]), compared + 1
    beaten = int((true > foreign)[judged].sum())
    return CaptionAccuracy(right, (beaten, int(judged.sum())), int((~judged).sum()))


CARD = """---
license: apache-2.0
library_name: transformers
tags: [clip, thinkdraw, lab]
---

# The lab's CLIP

A small `CLIPModel` that says how well a 64×64 picture of the lab world (sixteen shapes, eight colours, two sizes, three textures) fits
a text: a prompt of the lab or a rationale. It is the preference-style judge of thinkdraw's lab: `lab-clip` as a judge and as a reward.
It was trained on rendered scenes of the training prompts; sixteen pairs of shape and colour were never shown to it.

Made from nothing by `thinkdraw train lab_clip` on two CPU cores; stored in bf16.
"""
