"""Train the lab's picture tokenizer (a `JanusVQVAE`) from nothing on drawn scenes.

    thinkdraw train lab_tokenizer

A small VQ model needs four things, which are visible below:

* The codebook starts from encoder outputs, after a warm-up without quantisation.
* Unused codes are moved to the latents with the largest quantisation error. Random latents are nearly all blank background.
* Half of the pictures are crowded, so that few pixels are background.
* Patches of plain background are pulled together. Otherwise they spread over dozens of codes, and the generator has to predict at
  random which one comes.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from thinkdraw.config import StrictModel
from thinkdraw.images import to_pixels
from thinkdraw.lab.scenes import BACKGROUNDS, PIXELS, STEP, Scene, draw, random_scene
from thinkdraw.policies.building import builder_of
from thinkdraw.runtime.files import only_writer_of_out
from thinkdraw.runtime.tracking import MetricsLog

JANUS = builder_of("janus")


class TokenizerConfig(StrictModel):
    recipe: str = Field(
        default="tokenizer", description="Names the recipe that this configuration is for; always `tokenizer`."
    )
    out: Path = Field(
        default=Path("runs/lab_tokenizer"), description="Folder of the run; the tokenizer is its folder `tokenizer`."
    )
    codes: int = Field(
        default=1024,
        ge=1,
        description="Codebook size: how many different image tokens there are. More draw finer and are harder to "
        "predict.",
    )
    minutes: float = Field(
        default=15.0, gt=0, description="Minutes of training, over which the learning rate falls to zero."
    )
    max_steps: int | None = Field(
        default=None, ge=1, description="Train this many steps in place of `minutes`; null trains by the clock."
    )
    batch_size: int = Field(default=16, ge=1, description="Pictures that each step learns from.")
    learning_rate: float = Field(
        default=2e-3,
        gt=0,
        description="Highest learning rate of AdamW; it rises over 50 steps and falls to zero in a cosine.",
    )
    commitment: float = Field(
        default=0.5,
        ge=0,
        description="Weight of the term that pulls latents towards their codes, beside the one that pulls codes "
        "to latents.",
    )
    blank_pull: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the term that pulls patches of plain background together, so that they share few codes.",
    )
    warmup_steps: int = Field(
        default=300,
        ge=0,
        description="Steps without quantisation, after which the codebook starts from the encoder's outputs.",
    )
    exact_frac: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="Share of the training, its end, that runs in fp32; before it bf16 autocast.",
    )
    crowded_frac: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the pictures that show six to ten things, so that little of them is background.",
    )
    init: Path | None = Field(
        default=None, description="Tokenizer folder whose weights training goes on from; null starts from nothing."
    )
    threads: int = Field(default=2, ge=1, description="CPU threads that torch uses.")
    seed: int = Field(default=0, ge=0, description="Seed of the scenes and of the first weights.")


def tokenizer_config(codes: int) -> JanusVQVAEConfig:
    """Configure 64×64 pixels → 8×8 tokens.

    32 channels are the least that the model's GroupNorm(32) takes.
    """
    return JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=codes,
        latent_channels=64,
        base_channels=32,
        channel_multiplier=[1, 1, 2, 2],
        num_res_blocks=1,
        num_patches=PIXELS // 8,
    )


def build(config: TokenizerConfig) -> JanusVQVAE:
    if config.init is not None:
        return JanusVQVAE.from_pretrained(config.init)
    model = JanusVQVAE(tokenizer_config(config.codes))
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.reset_parameters()  # transformers' 0.02 is for large models: here it would shrink the signal layer by layer
    return model


def training_batch(config: TokenizerConfig, rng: np.random.Generator) -> Tensor:
    pictures = []
    for _ in range(config.batch_size):
        crowded = rng.random() < config.crowded_frac
        scene = (
            random_scene(int(rng.integers(6, 11)), rng, gap=2)
            if crowded
            else random_scene(int(rng.integers(1, 6)), rng)
        )
        pictures.append(draw(scene))
    return to_pixels(np.stack(pictures))


def background_patches() -> Tensor:
    """Return (4, 3·8·8): the plain patch of each background, in model pixels."""
    plain = to_pixels(np.stack([draw(Scene((), name)) for name in BACKGROUNDS]))
    return plain[:, :, :STEP, :STEP].flatten(1)


def blank_spread(pixels: Tensor, unit: Tensor, plain: Tensor) -> Tensor:
    """Compute the spread of the latents (B, D, h, w) of plain background patches.

    It is the mean squared distance from the mean latent of the patch's background.
    """
    patches = F.unfold(pixels, STEP, stride=STEP).transpose(1, 2)
    flat = unit.flatten(2).transpose(1, 2)
    spread = []
    for patch in plain:
        blank = flat[(patches - patch).abs().amax(-1) < 1e-3]
        if len(blank) > 1:
            spread.append((blank - F.normalize(blank.mean(0), dim=0).detach()).square().sum(-1).mean())
    return torch.stack(spread).mean() if spread else unit.new_zeros(())


def quantise(model: JanusVQVAE, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise latents to codes.

    Returns straight-through codes (B, D, h, w), tokens (B, N), and codebook and commitment error per token (B, N, 2).
    """
    tokens = JANUS.nearest_codes(model, unit)
    codebook = F.normalize(model.quantize.embedding.weight, dim=-1)
    codes = codebook[tokens].transpose(1, 2).reshape(unit.shape)
    pull = (codes - unit.detach()).square().sum(1).flatten(1)
    commit = (unit - codes.detach()).square().sum(1).flatten(1)
    return unit + (codes - unit).detach(), tokens, torch.stack([pull, commit], dim=-1)


@torch.no_grad()
def reseed(model: JanusVQVAE, unused: Tensor, unit: Tensor, error: Tensor) -> None:
    """Move unused codes onto latents, drawn in proportion to their quantisation error.

    This is the seeding of k-means++ (Arthur and Vassilvitskii 2007).
    """
    count = int(unused.sum())
    if count == 0:
        return
    flat = unit.flatten(2).transpose(1, 2).reshape(-1, unit.shape[1])
    picks = torch.multinomial(error.flatten().clamp_min(1e-8), min(count, flat.shape[0]), replacement=False)
    rows = unused.nonzero().flatten()[: len(picks)]
    model.quantize.embedding.weight[rows] = flat[picks].to(model.quantize.embedding.weight.dtype)


@torch.no_grad()
def retire_duplicate_codes(model: JanusVQVAE, cosine: float = 0.9995) -> int:
    """Move codes that nearly equal an earlier one out of use; returns how many.

    They look the same, but which of them a patch gets is noise, and a generator would have to predict it.
    """
    weight = model.quantize.embedding.weight
    unit = F.normalize(weight, dim=-1)
    away = -F.normalize(unit.mean(0), dim=0)  # opposite to the mean code, where no latent is nearest
    kept: list[int] = []
    for code in range(len(unit)):
        if kept and float((unit[kept] @ unit[code]).max()) > cosine:
            weight[code] = away
        else:
            kept.append(code)
    return len(unit) - len(kept)


@only_writer_of_out
def run(config: TokenizerConfig) -> Path:
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    log = MetricsLog(config.out / "metrics.jsonl")
    log.truncate_after(-1)
    model = build(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    plain, spread = background_patches(), torch.zeros(())
    idle = torch.zeros(config.codes)
    start, step, progress = time.monotonic(), 0, 0.0
    while progress < 1.0:
        progress = step / config.max_steps if config.max_steps else (time.monotonic() - start) / (60 * config.minutes)
        rate = config.learning_rate * min(1.0, step / 50) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels = training_batch(config, rng)
        quantised = config.init is not None or step >= config.warmup_steps
        with torch.autocast("cpu", torch.bfloat16, enabled=progress < 1 - config.exact_frac):
            unit = JANUS.latents(model, pixels)
            if step == config.warmup_steps and config.init is None:
                reseed(model, torch.ones(config.codes, dtype=torch.bool), unit, torch.ones(unit.shape[0], 64))
            latent, tokens, errors = quantise(model, unit) if quantised else (unit, None, None)
            drawn = model.decoder(model.post_quant_conv(latent)).float()
        difference = drawn - pixels
        picture_loss = difference.abs().mean() + difference.square().mean()
        loss = picture_loss
        if errors is not None and tokens is not None:
            loss = loss + errors[..., 0].mean() + config.commitment * errors[..., 1].mean()
            spread = blank_spread(pixels, unit, plain)
            loss = loss + config.blank_pull * spread
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if errors is not None and tokens is not None:
            idle += 1
            idle[tokens.unique()] = 0
            if step % 20 == 0 and progress < 0.6:
                reseed(model, idle > 40, unit.detach(), errors[..., 1].detach())
                idle[idle > 40] = 0
        step += 1
        if step % 25 == 0:
            row = {
                "step": step,
                "seconds": round(time.monotonic() - start, 1),
                "absolute_error": difference.abs().mean().item(),
                "squared_error": difference.square().mean().item(),
                "commitment_error": errors[..., 1].mean().item() if errors is not None else None,
                "blank_spread": spread.item(),
                "codes_used": int((idle < 40).sum()) if quantised else 0,
                "learning_rate": rate,
            }
            log.append(row)
        if step % 500 == 0:
            model.save_pretrained(config.out / "tokenizer")
    retire_duplicate_codes(model.eval())
    model.save_pretrained(config.out / "tokenizer")
    return config.out / "tokenizer"
