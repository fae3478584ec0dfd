"""The rows that the lab's Janus is pretrained on: drawing from prompts and thoughts, writing thoughts, and answering about pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers.models.janus.modeling_janus import JanusVQVAE

from thinkdraw.images import to_pixels
from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.facts import QUESTION_TYPES, random_question
from thinkdraw.lab.prompts import Example, Family, prompt_text, stream
from thinkdraw.lab.rationales import write_careless_rationale, write_rationale
from thinkdraw.lab.scenes import COLORS, LATTICE, Scene, draw
from thinkdraw.lab.shapes import SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import HELD_OUT_PAIRS
from thinkdraw.policies import load_policy
from thinkdraw.policies.building import builder_of
from thinkdraw.rewards.lab_detector import facts_hold
from thinkdraw.types import Prompt, Sampling

JANUS = builder_of("janus")
NUM_IMAGE_TOKENS = 64
DESCRIBE = "what is in the picture?"
QUESTION_SHARES = dict(
    zip(QUESTION_TYPES, (0.1, 0.08, 0.12, 0.15, 0.2, 0.3, 0.05), strict=True)
)  # most of what is hard
ThoughtKind = Literal["no thought", "faithful thought", "careless thought"]


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
        return Ids(*(vocabulary[name] for name in JANUS.tokens))


class Corpus:
    """Scenes with their picture tokens; words are new each time they are told.

    cache: a file that keeps the picture tokens, because encoding is the slow part of starting.
    """

    def __init__(self, num_scenes: int, vqmodel: JanusVQVAE, cache: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        families: tuple[tuple[Family, float], ...] = (("geneval", 0.6), ("compbench", 0.25), ("dense", 0.15))
        self.items: list[tuple[Family, Example, Scene]] = []
        for family, share in families:
            source = stream(family, "train", seed)
            for _ in range(int(share * num_scenes)):
                made = next(source)
                self.items.append((family, made, made.scene(self.rng)))
        if not cache.is_file():
            save_file({"tokens": self._tokenised(vqmodel)}, cache)
        self.tokens = load_file(cache)["tokens"]  # (scenes, N) int16

    def _tokenised(self, vqmodel: JanusVQVAE) -> Tensor:
        tokens = []
        for start in range(0, len(self.items), 128):
            pixels = to_pixels(np.stack([draw(scene) for *_, scene in self.items[start : start + 128]]))
            tokens.append(JANUS.encode(vqmodel, pixels, chunk=128).to(torch.int16))
        return torch.cat(tokens)

    def pick(self, count: int) -> list[int]:
        return self.rng.integers(len(self.items), size=count).tolist()

    def pick_evenly(self, count: int) -> list[int]:
        """As many of each family on average: dense scenes, the hardest to read, are few in the corpus."""
        families = [family for family, *_ in self.items]
        names, starts, sizes = np.unique(families, return_index=True, return_counts=True)
        which = self.rng.integers(len(names), size=count)
        return (starts[which] + self.rng.integers(sizes[which])).tolist()

    def text(self, index: int) -> str:
        family, made, _ = self.items[index]
        return prompt_text(made.spec, family, self.rng)

    def thought(self, index: int, telling: ThoughtKind) -> str:
        _, made, scene = self.items[index]
        if telling == "faithful thought":
            return write_rationale(scene, self.rng)
        stated = [
            {n for n in ("color", "size", "texture") if getattr(w, n)}
            for w in made.spec.objects
            for _ in range(w.count)
        ]
        return write_careless_rationale(scene, stated, self.rng)


def drawing_batch(
    corpus: Corpus, tokenizer: Tokenizer, rows: int, telling: ThoughtKind, blank_frac: float
) -> dict[str, Tensor]:
    """Right-padded rows: input ids (text) or codes (image), and of what kind each is as a target (0 none, 1 text, 2 image).

    A picture follows its prompt alone or a faithful thought, which is then no target; a careless thought is a target and
    no picture follows. So the model can draw from a good thought, and the thoughts it writes itself are careless.
    """
    ids = Ids.of(tokenizer)
    picks = corpus.pick(rows)
    writing = telling == "careless thought"
    contexts, starts = [], []
    for index, blank in zip(picks, corpus.rng.random(rows) < (0 if writing else blank_frac), strict=True):
        row = tokenizer.encode(f"<|User|>: {corpus.text(index)}\n\n<|Assistant|>:").ids
        starts.append(len(row))
        if telling != "no thought":
            row += tokenizer.encode(" " + corpus.thought(index, telling), add_special_tokens=False).ids
        contexts.append(([ids.bos] + [ids.pad] * (len(row) - 1) if blank else row) + [ids.boi])
    picture = 0 if writing else NUM_IMAGE_TOKENS
    length = max(map(len, contexts)) + picture
    inputs = torch.full((rows, length), ids.pad)
    kind = torch.zeros((rows, length), dtype=torch.int8)
    for b, (context, start) in enumerate(zip(contexts, starts, strict=True)):
        end = len(context)
        inputs[b, :end] = torch.tensor(context)
        if writing:
            kind[b, start:end] = 1
        else:
            inputs[b, end : end + picture] = corpus.tokens[picks[b]].long()
            kind[b, end : end + picture] = 2
    return {"inputs": inputs, "kind": kind}


@dataclass(frozen=True)
class QuestionRows:
    """A picture (H, W, 3) uint8, a description of it or None, and yes/no questions with their answers."""

    picture: np.ndarray
    questions: tuple[tuple[str, bool], ...]
    description: str | None = None


def repeat_a_shape(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one thing in the shape of another, if it has two: without them "exactly one" would nearly always be true."""
    things = list(scene.objects)
    i, j = rng.integers(len(things), size=2)
    if (things[j].shape, things[i].color) not in HELD_OUT_PAIRS:
        things[i] = replace(things[i], shape=things[j].shape)
    return replace(scene, objects=tuple(things))


def ask_about_scene(scene: Scene, count: int, rng: np.random.Generator) -> QuestionRows:
    """A described scene with `count` questions of random types, half of them true."""
    asked = []
    while len(asked) < count:
        answer = bool(rng.random() < 0.5)
        text = random_question(scene, str(rng.choice(QUESTION_TYPES, p=list(QUESTION_SHARES.values()))), answer, rng)
        if text is not None:
            asked.append((text, answer))
    return QuestionRows(draw(scene), tuple(asked), write_rationale(scene, rng))


def ask_about_drawings(checkpoint: Path, prompts: Sequence[Prompt], seed: int) -> list[QuestionRows]:
    """What the checkpoint draws for the prompts, with the prompts' questions, answered by the lab's detector.

    Rendered scenes alone do not teach what a failed drawing looks like, and a judge of drawings must know.
    """
    rollouts = load_policy(checkpoint).sample(prompts, Sampling(thought="off"), seed=seed)
    assert rollouts.pictures is not None
    asked = []
    for prompt, picture in zip(prompts, rollouts.pictures.numpy(), strict=True):
        held = facts_hold(prompt, detect_objects(picture))
        asked.append(QuestionRows(picture, tuple((q.text, h) for q, h in zip(prompt.questions, held, strict=True))))
    return asked


def question_batch(tokenizer: Tokenizer, asked: Sequence[QuestionRows]) -> dict[str, Tensor]:
    """Rows of one picture, a description where there is one, and several questions, each blind to the others.

    mask4d: (B, 1, L, L) bool, True = may attend. targets: (B, L) the next token where it is to be learned, else -100.
    is_answer: (B, L) bool, True where the target is yes or no. pixels: (B, 3, H, W) in [-1, 1].
    """
    ids = Ids.of(tokenizer)
    rows = len(asked)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    head = [ids.bos, *encode("<|User|>: "), ids.boi, *[ids.image] * NUM_IMAGE_TOKENS, ids.eoi]
    answers = {True: encode(" yes"), False: encode(" no")}
    sequences: list[list[tuple[list[int], list[int], bool]]] = []
    for one in asked:
        parts = [(encode(f"\n{text}\n\n<|Assistant|>:"), answers[answer], True) for text, answer in one.questions]
        if one.description is not None:
            described = [*encode(" " + one.description), ids.eos]
            parts.append((encode(f"\n{DESCRIBE}\n\n<|Assistant|>:"), described, False))
        sequences.append(parts)
    length = len(head) + max(sum(len(q) + len(a) - 1 for q, a, _ in parts) for parts in sequences)
    inputs = torch.full((rows, length), ids.pad)
    owner = torch.full((rows, length), -1)
    positions = torch.zeros((rows, length), dtype=torch.long)
    targets = torch.full((rows, length), -100)
    is_answer = torch.zeros((rows, length), dtype=torch.bool)
    for b, parts in enumerate(sequences):
        inputs[b, : len(head)], owner[b, : len(head)] = torch.tensor(head), 0
        positions[b, : len(head)] = torch.arange(len(head))
        at = len(head)
        for k, (question, answer, yes_or_no) in enumerate(parts):
            row = [*question, *answer[:-1]]
            span = slice(at, at + len(row))
            inputs[b, span], owner[b, span] = torch.tensor(row), k + 1
            positions[b, span] = torch.arange(len(head), len(head) + len(row))
            at += len(row)
            targets[b, at - len(answer) : at] = torch.tensor(answer)
            is_answer[b, at - 1] = yes_or_no
    same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (same & causal & (owner[:, None, :] >= 0)) | torch.eye(length, dtype=torch.bool)
    return {
        "inputs": inputs,
        "positions": positions,
        "mask4d": mask[:, None],
        "targets": targets,
        "is_answer": is_answer,
        "pixels": to_pixels(np.stack([one.picture for one in asked])),
    }


PATCH_CLASSES = (len(SHAPES) + 1, len(COLORS) + 1, len(SIZES) + 1, len(TEXTURES) + 1, 5)


def patch_labels(scene: Scene) -> Tensor:
    """(64, 5) int64 per patch: shape, colour, size, texture and quarter of the object that covers it; 0 = none."""
    labels = torch.zeros(LATTICE + 1, LATTICE + 1, 5, dtype=torch.long)
    names = (SHAPES, tuple(COLORS), SIZES, TEXTURES)
    for t in scene.objects:
        attributes = [1 + pool.index(v) for pool, v in zip(names, (t.shape, t.color, t.size, t.texture), strict=True)]
        for dy in (0, 1):
            for dx in (0, 1):
                labels[t.row + dy, t.col + dx] = torch.tensor([*attributes, 1 + 2 * dy + dx])
    return labels.flatten(0, 1)
