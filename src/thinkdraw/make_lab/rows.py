"""Training rows of the lab's Janus: draw, write thoughts, answer about pictures."""

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
from thinkdraw.lab.prompts import Family, prompt_text, stream
from thinkdraw.lab.rationales import write_careless_rationale, write_rationale
from thinkdraw.lab.scenes import COLORS, LATTICE, Scene, draw
from thinkdraw.lab.shapes import SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import HELD_OUT_PAIRS
from thinkdraw.lab.wording import Example
from thinkdraw.policies import load_policy
from thinkdraw.policies.building import builder_of
from thinkdraw.rewards.lab_detector import facts_hold
from thinkdraw.types import Prompt, Sampling

JANUS = builder_of("janus")
NUM_IMAGE_TOKENS = 64
DESCRIBE = "what is in the picture?"
QUESTION_SHARES = dict(
    zip(QUESTION_TYPES, (0.1, 0.08, 0.12, 0.15, 0.2, 0.3, 0.05), strict=True)
)  # hard types more often
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
    """Scenes with their picture tokens; the words are drawn anew at each use.

    cache: a file of the picture tokens, because encoding is the slow part of starting.
    """

    def __init__(self, num_scenes: int, vqmodel: JanusVQVAE, cache: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        families: tuple[tuple[Family, float], ...] = (("geneval", 0.6), ("compbench", 0.25), ("dense", 0.15))
        self.items: list[tuple[Family, Example, Scene]] = []
        for family, share in families:
            source = stream(family, "train", seed)
            for _ in range(int(share * num_scenes)):
                example = next(source)
                self.items.append((family, example, example.scene(self.rng)))
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
        """Draw scenes with equal chances for each family.

        Dense scenes are the hardest to read, and few in the corpus.
        """
        families = [family for family, *_ in self.items]
        names, starts, sizes = np.unique(families, return_index=True, return_counts=True)
        which = self.rng.integers(len(names), size=count)
        return (starts[which] + self.rng.integers(sizes[which])).tolist()

    def text(self, index: int) -> str:
        family, example, _ = self.items[index]
        return prompt_text(example.spec, family, self.rng)

    def thought(self, index: int, thought_kind: ThoughtKind) -> str:
        _, example, scene = self.items[index]
        if thought_kind == "faithful thought":
            return write_rationale(scene, self.rng)
        stated = [
            {n for n in ("color", "size", "texture") if getattr(w, n)}
            for w in example.spec.objects
            for _ in range(w.count)
        ]
        return write_careless_rationale(scene, stated, self.rng)


def drawing_batch(
    corpus: Corpus, tokenizer: Tokenizer, rows: int, thought_kind: ThoughtKind, blank_frac: float
) -> dict[str, Tensor]:
    """Make right-padded rows of text ids and image codes, and the kinds of targets.

    Kinds: 0 no target, 1 text, 2 image. A picture follows its prompt alone or a faithful thought, which is then no target. A careless
    thought is a target, and no picture follows it. So the model can draw from a faithful thought, while the thoughts that it writes
    itself are careless.
    """
    ids = Ids.of(tokenizer)
    picks = corpus.pick(rows)
    writing = thought_kind == "careless thought"
    contexts, starts = [], []
    for index, blank in zip(picks, corpus.rng.random(rows) < (0 if writing else blank_frac), strict=True):
        row = tokenizer.encode(f"<|User|>: {corpus.text(index)}\n\n<|Assistant|>:").ids
        starts.append(len(row))
        if thought_kind != "no thought":
            row += tokenizer.encode(" " + corpus.thought(index, thought_kind), add_special_tokens=False).ids
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
    """A picture with a description and questions.

    picture: (H, W, 3) uint8. questions: (text, whether the answer is yes). description: None without one.
    """

    picture: np.ndarray
    questions: tuple[tuple[str, bool], ...]
    description: str | None = None


def repeat_a_shape(scene: Scene, rng: np.random.Generator) -> Scene:
    """Give one object the shape of another.

    Otherwise the answer to "is there exactly one …" would nearly always be yes.
    """
    objects = list(scene.objects)
    i, j = rng.integers(len(objects), size=2)
    if (objects[j].shape, objects[i].color) not in HELD_OUT_PAIRS:
        objects[i] = replace(objects[i], shape=objects[j].shape)
    return replace(scene, objects=tuple(objects))


def ask_about_scene(scene: Scene, count: int, rng: np.random.Generator) -> QuestionRows:
    """Make a described scene with `count` questions of random types.

    Half of the questions are true.
    """
    questions = []
    while len(questions) < count:
        answer = bool(rng.random() < 0.5)
        text = random_question(scene, str(rng.choice(QUESTION_TYPES, p=list(QUESTION_SHARES.values()))), answer, rng)
        if text is not None:
            questions.append((text, answer))
    return QuestionRows(draw(scene), tuple(questions), write_rationale(scene, rng))


def ask_about_drawings(checkpoint: Path, prompts: Sequence[Prompt], seed: int) -> list[QuestionRows]:
    """Draw the prompts, and let the detector answer their questions.

    Rendered scenes alone do not teach what a failed drawing looks like, and a judge of drawings must know.
    """
    rollouts = load_policy(checkpoint).sample(prompts, Sampling(thought="off"), seed=seed)
    assert rollouts.pictures is not None
    rows = []
    for prompt, picture in zip(prompts, rollouts.pictures.numpy(), strict=True):
        held = facts_hold(prompt, detect_objects(picture))
        rows.append(QuestionRows(picture, tuple((q.text, h) for q, h in zip(prompt.questions, held, strict=True))))
    return rows


def question_batch(tokenizer: Tokenizer, question_rows: Sequence[QuestionRows]) -> dict[str, Tensor]:
    """Make rows of a picture, its description if any, and several questions.

    No question or description sees another. mask4d: (B, 1, L, L) bool, True = may attend. targets: (B, L) the next token where it is to
    be learned, else -100. is_answer: (B, L) bool, True where the target is yes or no. pixels: (B, 3, H, W) in [-1, 1].
    """
    ids = Ids.of(tokenizer)
    rows = len(question_rows)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    head = [ids.bos, *encode("<|User|>: "), ids.boi, *[ids.image] * NUM_IMAGE_TOKENS, ids.eoi]
    answers = {True: encode(" yes"), False: encode(" no")}
    sequences: list[list[tuple[list[int], list[int], bool]]] = []
    for item in question_rows:
        parts = [(encode(f"\n{text}\n\n<|Assistant|>:"), answers[answer], True) for text, answer in item.questions]
        if item.description is not None:
            described = [*encode(" " + item.description), ids.eos]
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
        "pixels": to_pixels(np.stack([item.picture for item in question_rows])),
    }


PATCH_CLASSES = (len(SHAPES) + 1, len(COLORS) + 1, len(SIZES) + 1, len(TEXTURES) + 1, 5)


def patch_labels(scene: Scene) -> Tensor:
    """Return (64, 5) int64 labels per patch of the object that covers it.

    Labels: shape, colour, size, texture and quarter; 0 = no object.
    """
    labels = torch.zeros(LATTICE + 1, LATTICE + 1, 5, dtype=torch.long)
    names = (SHAPES, tuple(COLORS), SIZES, TEXTURES)
    for t in scene.objects:
        attributes = [1 + pool.index(v) for pool, v in zip(names, (t.shape, t.color, t.size, t.texture), strict=True)]
        for dy in (0, 1):
            for dx in (0, 1):
                labels[t.row + dy, t.col + dx] = torch.tensor([*attributes, 1 + 2 * dy + dx])
    return labels.flatten(0, 1)
