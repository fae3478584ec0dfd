"""Train the lab's Janus from nothing to draw, write thoughts and answer questions.

    thinkdraw train lab_pretrain

Drawing rows are prompt → picture (`off`) and prompt → faithful thought → picture (`inline`); a tenth of them is blanked for guidance.
Writing rows are prompt → careless thought, without a picture. So the model can draw from a faithful thought, but the thoughts that it
writes itself are partly wrong, and better thoughts are left for SFT and GRPO to teach.

Understanding rows are one picture with a description of it and several yes/no questions. Each of these attends to the picture and
itself only, so that one pass over the picture serves them all. Descriptions have a target at every token, and teach the language
model to read the picture; questions alone taught it too slowly. Labels of patches help the vision tower, and their heads are thrown
away. The model is asked about its own drawings too, because as a judge it must recognise a failed drawing.
"""

import copy
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import JanusConfig, JanusForConditionalGeneration, JanusVisionConfig, LlamaConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from thinkdraw.config import StrictModel
from thinkdraw.lab.scenes import BACKGROUNDS, Scene
from thinkdraw.lab.text import sentences
from thinkdraw.make_lab.rows import (
    JANUS,
    NUM_IMAGE_TOKENS,
    PATCH_CLASSES,
    Corpus,
    Ids,
    QuestionRows,
    ThoughtKind,
    ask_about_drawings,
    ask_about_scene,
    drawing_batch,
    patch_labels,
    question_batch,
    repeat_a_shape,
)
from thinkdraw.runtime.checkpoint import load_trainer_state, save_trainer_state
from thinkdraw.runtime.files import atomic_directory, atomic_write_text, only_writer_of_out
from thinkdraw.runtime.tracking import MetricsLog


class PretrainConfig(StrictModel):
    recipe: str = Field(
        default="pretrain", description="Names the recipe that this configuration is for; always `pretrain`."
    )
    out: Path = Field(
        default=Path("runs/lab_pretrain"),
        description="Folder of the run, which goes on where it stopped; the checkpoint is its folder `janus`.",
    )
    tokenizer: Path = Field(
        default=Path("runs/lab_tokenizer/tokenizer"),
        description="Folder of the picture tokenizer, as recipe `tokenizer` trains it.",
    )
    init: Path | None = Field(
        default=None,
        description="Janus checkpoint folder whose weights training goes on from; null starts from nothing.",
    )
    minutes: float = Field(
        default=60.0,
        gt=0,
        description="Minutes of training, in the last 60 % of which the learning rate falls to zero.",
    )
    max_steps: int | None = Field(
        default=None, ge=1, description="Train this many steps in place of `minutes`; null trains by the clock."
    )
    num_scenes: int = Field(
        default=30_000,
        ge=1,
        description="Scenes that are drawn and tokenised once, and then described in ever new words.",
    )
    draw_rows: int = Field(
        default=48,
        ge=0,
        description="Sequences per step that learn to draw: two fifths from the prompt alone, three fifths after "
        "a faithful thought.",
    )
    write_rows: int = Field(default=16, ge=0, description="Sequences per step that learn to write careless thoughts.")
    ask_rows: int = Field(
        default=16, ge=0, description="Rendered pictures per step that are described and asked about."
    )
    drawn_rows: int = Field(
        default=16,
        ge=0,
        description="Pictures of the policy's own per step that are asked about, so that it knows a failed drawing.",
    )
    drawings: int = Field(default=1600, ge=4, description="How many of its own newest pictures are kept to ask about.")
    redraw_steps: int = Field(
        default=250, ge=1, description="Steps between savings; each time a quarter of `drawings` is drawn anew."
    )
    twin_frac: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Share of the pictures asked about that show two things of one shape, which only a close "
        "look tells apart.",
    )
    questions_per_picture: int = Field(
        default=10, ge=1, description="Yes/no questions asked about each picture, in one pass over it."
    )
    learning_rate: float = Field(
        default=2e-3, gt=0, description="Highest learning rate of Muon and AdamW, reached after 100 steps."
    )
    thought_weight: float = Field(
        default=0.15,
        ge=0,
        description="Weight of the loss on thoughts; small, so that the base does not think well yet.",
    )
    answer_weight: float = Field(
        default=1.0, ge=0, description="Weight of the loss on answers to questions about pictures."
    )
    describe_weight: float = Field(default=0.5, ge=0, description="Weight of the loss on descriptions of pictures.")
    patch_weight: float = Field(
        default=0.5,
        ge=0,
        description="Weight of the loss on labels of each patch, which helps the vision tower to learn.",
    )
    blank_frac: float = Field(
        ge=0,
        le=1,
        default=0.1,
        description="Share of the drawing sequences whose prompt and thought are blanked, for guidance.",
    )
    hidden: int = Field(
        default=256, ge=1, description="Width of the language model, a multiple of 64: each attention head has 64."
    )
    layers: int = Field(default=6, ge=1, description="Number of layers of the language model.")
    vision_hidden: int = Field(default=128, ge=1, description="Width of the vision tower; each attention head has 32.")
    vision_layers: int = Field(default=4, ge=1, description="Number of layers of the vision tower.")
    threads: int = Field(default=2, ge=1, description="CPU threads that torch uses.")
    seed: int = Field(default=0, ge=0, description="Seed of scenes, words and first weights.")


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


def drawing_loss(model: JanusForConditionalGeneration, batch: dict[str, Tensor]) -> Tensor:
    """Compute the mean nats per target: image tokens, or a thought's tokens."""
    inputs, kind = batch["inputs"], batch["kind"]
    image = kind == 2
    embeds = model.get_input_embeddings()(inputs.masked_fill(image, 0))
    drawn = bool(image.any())
    if drawn:
        codes = model.prepare_embeddings_for_image_generation(inputs[image])
        embeds = embeds.masked_scatter(image[..., None], codes.to(embeds.dtype))
    hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, :-1]
    learned = kind[:, 1:] > 0
    head = model.model.generation_head if drawn else model.lm_head
    return F.cross_entropy(head(hidden[learned]).float(), inputs[:, 1:][learned])


class PatchHeads(nn.Module):
    """Linear heads that help the vision tower to learn; only used in training."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.patch = nn.Linear(hidden, sum(PATCH_CLASSES))
        self.background = nn.Linear(hidden, len(BACKGROUNDS))

    def forward(self, features: Tensor, scenes: Sequence[Scene]) -> Tensor:
        labels = torch.stack([patch_labels(scene) for scene in scenes])
        backgrounds = torch.tensor([tuple(BACKGROUNDS).index(scene.background) for scene in scenes])
        parts = self.patch(features).float().split(PATCH_CLASSES, dim=-1)
        losses = [F.cross_entropy(part.flatten(0, 1), labels[..., k].flatten()) for k, part in enumerate(parts)]
        behind = F.cross_entropy(self.background(features.mean(1)).float(), backgrounds)
        return torch.stack([*losses, behind]).mean()


def question_loss(
    model: JanusForConditionalGeneration, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor | None, float, Tensor]:
    """Compute the losses of questions and descriptions.

    Returns answer nats, description nats (None without descriptions), the fraction of right answers, and the vision tower's features
    (B, N, hidden).
    """
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
    targets = batch["targets"][answered]
    right = (logits.argmax(-1) == targets).float().mean().item()
    describe = None
    if bool(described.any()):
        describe = F.cross_entropy(model.lm_head(hidden[described]).float(), batch["targets"][described])
    return F.cross_entropy(logits, targets), describe, right, vision.last_hidden_state


def optimizers(model: nn.Module, heads: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Make Muon for the blocks' matrices and AdamW for all other parameters."""
    matrices, rest = [], list(heads.parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = parameter.ndim == 2 and ".layers." in name and "embed" not in name
            (matrices if inner else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@only_writer_of_out
def run(config: PretrainConfig) -> Path:
    """Train, or resume from `out`/state, which is saved every `redraw_steps`.

    Returns the checkpoint's folder.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    log = MetricsLog(config.out / "metrics.jsonl")
    vqmodel: Any = JanusVQVAE.from_pretrained(config.tokenizer).eval()
    if config.init is None:
        tokenizer = JANUS.train_tokenizer(list(sentences(3000)), 1024)
        model = build_model(config, tokenizer, vqmodel)
    else:
        tokenizer = Tokenizer.from_file(str(config.init / "tokenizer.json"))
        model: Any = JanusForConditionalGeneration.from_pretrained(config.init, dtype=torch.float32)
        model.model.vqmodel.requires_grad_(False)
    model.set_attn_implementation({"text_config": "eager"})  # the fused kernel's backward is slow on CPUs
    model.train()
    corpus = Corpus(config.num_scenes, vqmodel, config.out / "picture_tokens.safetensors", config.seed)
    drawings: deque[QuestionRows] = deque(maxlen=config.drawings)
    model.model.vqmodel.eval()
    heads = PatchHeads(config.vision_hidden)
    optims = optimizers(model, heads, config.learning_rate)
    step, before, progress = 0, 0.0, 0.0
    if (config.out / "state").is_dir():
        state = load_trainer_state(config.out / "state")
        step, before = state["step"], state["seconds"]
        for part, saved in zip((model, heads, *optims), state["parts"], strict=True):
            part.load_state_dict(saved)
        corpus.rng.bit_generator.state = state["rng"]
    log.truncate_after(step - 1)
    start = time.monotonic() - before
    if step or config.init is not None:
        drawings.extend(redraw(config, corpus, config.out / "janus" if step or config.init is None else config.init))
    while progress < 1.0:
        progress = step / config.max_steps if config.max_steps else (time.monotonic() - start) / (60 * config.minutes)
        rate = config.learning_rate * min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1 - progress) / 0.6))
        for optimizer in optims:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        row: dict[str, float] = {"step": step, "seconds": round(time.monotonic() - start, 1), "learning_rate": rate}
        with torch.autocast("cpu", torch.bfloat16):
            losses, right = step_losses(config, model, heads, corpus, drawings, tokenizer)
        row |= losses | right
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
        if step % config.redraw_steps == 0:
            drawings.extend(redraw(config, corpus, publish(model, tokenizer, config)))
            with atomic_directory(config.out / "state") as folder:
                parts = [part.state_dict() for part in (model, heads, *optims)]
                rng = corpus.rng.bit_generator.state
                save_trainer_state(
                    folder, {"step": step, "seconds": time.monotonic() - start, "parts": parts, "rng": rng}
                )
    return publish(model.eval(), tokenizer, config)


def step_losses(
    config: PretrainConfig,
    model: JanusForConditionalGeneration,
    heads: PatchHeads,
    corpus: Corpus,
    drawings: Sequence[QuestionRows],
    tokenizer: Tokenizer,
) -> tuple[dict[str, float], dict[str, float]]:
    """Add one step's gradients, term by term to keep memory low.

    Returns the terms' losses and the fractions of right answers.
    """
    losses: dict[str, float] = {}
    right: dict[str, float] = {}

    def learn(*parts: tuple[str, float, Tensor]) -> None:
        losses.update({name: loss.item() for name, _, loss in parts})
        torch.stack([weight * loss for _, weight, loss in parts]).sum().backward()

    plain, thoughtful = config.draw_rows * 2 // 5, config.draw_rows - config.draw_rows * 2 // 5
    drawing_terms: tuple[tuple[str, float, int, ThoughtKind], ...] = (
        ("image_nats", 0.4, plain, "no thought"),
        ("image_nats_after_thought", 0.6, thoughtful, "faithful thought"),
        ("thought_nats", config.thought_weight, config.write_rows, "careless thought"),
    )
    for name, weight, rows, thought_kind in drawing_terms:
        batch = drawing_batch(corpus, tokenizer, rows, thought_kind, config.blank_frac)
        learn((name, weight, drawing_loss(model, batch)))
    scenes = [corpus.items[index][2] for index in corpus.pick_evenly(config.ask_rows)]
    scenes = [
        repeat_a_shape(scene, corpus.rng) if corpus.rng.random() < config.twin_frac else scene for scene in scenes
    ]
    questions = [ask_about_scene(scene, config.questions_per_picture, corpus.rng) for scene in scenes]
    answer, describe, right["answers_right"], features = question_loss(model, question_batch(tokenizer, questions))
    assert describe is not None
    learn(
        ("answer_nats", config.answer_weight, answer),
        ("describe_nats", config.describe_weight, describe),
        ("patch_nats", config.patch_weight, heads(features, scenes)),
    )
    if drawings:
        chosen = [drawings[i] for i in corpus.rng.integers(len(drawings), size=config.drawn_rows)]
        answer, _, right["drawing_answers_right"], _ = question_loss(model, question_batch(tokenizer, chosen))
        learn(("drawing_answer_nats", config.answer_weight, answer))
    return losses, right


def redraw(config: PretrainConfig, corpus: Corpus, checkpoint: Path) -> list[QuestionRows]:
    """Draw training prompts with the current model, and ask about the drawings.

    The detector gives the answers.
    """
    prompts = [corpus.items[index][1].prompt for index in corpus.pick(config.drawings // 4)]
    return ask_about_drawings(checkpoint, prompts, seed=int(corpus.rng.integers(2**31)))


def publish(model: JanusForConditionalGeneration, tokenizer: Tokenizer, config: PretrainConfig) -> Path:
    """Write the checkpoint in bf16, in Janus's published layout, with a model card."""
    folder = config.out / "janus"
    copied = copy.deepcopy(model).bfloat16()
    JANUS.write(copied, tokenizer, folder, 64, NUM_IMAGE_TOKENS)
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
