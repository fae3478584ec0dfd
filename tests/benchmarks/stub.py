"""A stand-in for a policy that draws lab scenes by program: right ones, or as its thought says."""

import numpy as np
import torch

from thinkdraw.lab.claims import claims
from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.rationales import COLUMNS, ROWS, write_rationale
from thinkdraw.lab.scenes import Scene, SceneObject, draw, random_scene
from thinkdraw.types import PictureSpec, Rollouts

CENTERS = {"top": 0, "middle": 3, "bottom": 6, "left": 0, "center": 3, "right": 6}


def scene_of(thought):
    """The scene that a lab thought describes."""
    things, background, attributes = [], "white", {}
    for claim in claims(thought):
        if claim.kind == "background":
            background = claim.name
        elif claim.kind == "thing":
            attributes = {"texture": "solid", **claim.thing}
        else:
            row, col = ("middle center" if claim.name == "center" else claim.name).split()
            assert row in ROWS and col in COLUMNS
            things.append(SceneObject(**attributes, row=CENTERS[row], col=CENTERS[col]))
    return Scene(tuple(things), background)


class StubPolicy:
    """Thinks of a scene that fits the prompt (of a random one where the seed says so) and draws it.

    mistakes: share of pictures that are random. From a given thought it draws that thought, from none a random scene.
    """

    revision = "stub"
    picture = PictureSpec(height=64, width=64, num_tokens=4, num_codes=16)

    def __init__(self, examples, mistakes=0.0):
        self.specs = {example.prompt.text: example for example in examples}
        self.mistakes, self.drawn, self.batches = mistakes, 0, []

    def sample(self, prompts, sampling, *, group_size=1, seeds=None, decode=True, prefix=None, prefix_lengths=None):
        thoughts, pictures = [], []
        for i, (prompt, seed) in enumerate(zip(prompts, seeds)):
            rng = np.random.default_rng(int(seed))
            blind = rng.random() < self.mistakes or sampling.thought == "off"
            scene = random_scene(2, rng) if blind else self.specs[prompt.text].scene(rng)
            thought = "" if sampling.thought == "off" else write_rationale(scene, rng)
            if prefix is not None:
                thought = prefix.thoughts[i]
                scene = scene_of(thought) if thought else random_scene(2, rng)
            thoughts.append(thought)
            pictures.append(draw(scene))
        self.drawn += len(prompts)
        self.batches.append(len(prompts))
        return rollouts(prompts, torch.from_numpy(np.stack(pictures)), thoughts, sampling, seeds)

    def teacher_forced(self, prompts, thoughts, image_tokens, sampling, drop=None):
        return rollouts(prompts, None, thoughts, sampling, [0] * len(prompts))

    def answer(self, pictures, questions):
        """Right about backgrounds, 0.5 ± a hash of the question about all else."""
        return torch.tensor([answer(picture, question) for picture, question in zip(pictures.numpy(), questions)])


def answer(picture, question):
    if question.startswith("is the background"):
        return 0.9 if question == f"is the background {detect_objects(picture).background}?" else 0.1
    return 0.5 + (sum(question.encode()) % 7 - 3) / 100


def rollouts(prompts, pictures, thoughts, sampling=None, seeds=None):
    """Rollouts of given pictures, with one text token and four codes (sums of quarters) each."""
    from thinkdraw.types import Sampling

    count = len(prompts)
    tokens = torch.zeros(count, 5, dtype=torch.long)
    if pictures is not None:
        quarters = pictures.reshape(count, 4, -1).long().sum(-1)
        tokens[:, 1:] = quarters
    is_image = torch.tensor([False, True, True, True, True]).repeat(count, 1)
    return Rollouts(
        prompts=tuple(prompts), prompt_ids=torch.zeros(count, 1, dtype=torch.long),
        prompt_mask=torch.ones(count, 1, dtype=torch.bool), tokens=tokens, is_image=is_image,
        segment=is_image.to(torch.int8), mask=torch.ones(count, 5, dtype=torch.bool), log_probs=torch.zeros(count, 5),
        seeds=torch.tensor([int(s) for s in (seeds if seeds is not None else [0] * count)]),
        sampling=sampling or Sampling(), pictures=pictures, thoughts=tuple(thoughts),
    )  # fmt: skip
