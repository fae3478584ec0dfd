"""The lab's prompts and drawings under T2I-CompBench's rules."""

import numpy as np
import pytest
import torch

from thinkdraw.benchmarks.base import PictureSet
from thinkdraw.benchmarks.compbench.benchmark import CompBench
from thinkdraw.benchmarks.compbench.lab import LabAsker
from thinkdraw.benchmarks.flow import report_on
from thinkdraw.errors import UserError
from thinkdraw.judges.lab import LabDetector
from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.facts import PictureContents
from thinkdraw.lab.prompts import COMPBENCH_TASKS, make_example, prompt_set
from thinkdraw.lab.scenes import draw
from thinkdraw.lab.specs import ObjectSpec, Spec, change_one_fact
from thinkdraw.types import Prompt

RED_RING, BLUE_STAR = ObjectSpec("ring", "red", "small", "striped"), ObjectSpec("star", "blue")


def prompt(task, spec):
    return make_example(spec, "compbench", task, np.random.default_rng(0)).prompt


class Knows:
    """Yes where the exact detector sees the thing that "is there a small striped red ring?" asks for."""

    name = "knows"

    def answer(self, pictures, questions):
        return torch.tensor([self._one(picture, question) for picture, question in zip(pictures.numpy(), questions)])

    def _one(self, picture, question):
        words = question.removeprefix("is there ").rstrip("?").split()[1:]
        kinds = {"size": ("small", "large"), "texture": ("striped", "dotted")}
        wanted = {"shape": words.pop()}
        wanted |= {next((kind for kind, known in kinds.items() if word in known), "color"): word for word in words}
        return float(bool(PictureContents.of_detections(detect_objects(picture)).centers_of(wanted)))


def test_noun_chunks_relations_and_counts_are_those_of_the_clauses():
    ask = LabAsker()
    color = ask(prompt("color", Spec((RED_RING, BLUE_STAR))))
    assert color.questions == ["is there a small striped red ring?", "is there a blue star?"]
    count = ask(prompt("numeracy", Spec((ObjectSpec("ring", count=3), ObjectSpec("star")))))
    assert count.counts == [("ring", 3), ("star", 1)] and not count.questions
    placed = ask(prompt("spatial", Spec((ObjectSpec("ring"), ObjectSpec("star")), ((1, "above", 0),))))
    assert (placed.word, placed.things) == ("on the top of", ("star", "ring"))
    both = ask(prompt("complex", Spec((RED_RING, BLUE_STAR), ((1, "left of", 0),))))
    assert (both.kind, both.word, both.things) == ("spatial", "on the left of", ("star", "ring"))
    assert len(both.questions) == 2


def test_words_that_were_held_out_ask_the_same():
    spec = Spec((ObjectSpec("ring"), ObjectSpec("star")), ((1, "right of", 0),))
    rng = np.random.default_rng(0)
    plain, held_out = (make_example(spec, "compbench", "spatial", rng, held_out_words=held) for held in (False, True))
    assert plain.prompt.text != held_out.prompt.text and LabAsker()(plain.prompt) == LabAsker()(held_out.prompt)


def test_another_prompt_is_refused():
    with pytest.raises(UserError, match="is none of lab-compbench"):
        LabAsker()(Prompt("a red bench", tag="color"))


@pytest.mark.parametrize("split", ["test", "ood"])
def test_right_pictures_score_high_and_those_with_one_wrong_fact_lower_in_every_category(split):
    rng, examples = np.random.default_rng(0), prompt_set("compbench", split, 48)
    bench = CompBench(Knows(), LabDetector(), asker=LabAsker())
    scores = []
    for wrong in (False, True):
        scenes = [e.scene(rng) for e in examples]
        scenes = [change_one_fact(e.spec, s, rng) if wrong else s for e, s in zip(examples, scenes)]
        sets = [PictureSet(i, e.prompt, (0,), (draw(s),)) for i, (e, s) in enumerate(zip(examples, scenes))]
        report = report_on(bench, bench.judge(sets))
        scores.append({name: score.value for name, score in report.columns.items()})
    right, wrong = scores
    assert tuple(right) == COMPBENCH_TASKS
    assert all(right[task] == 1 for task in ("color", "shape", "texture", "numeracy"))
    # both things are found and nothing else counts against them: ¼ + ¼ of the confidence and ½ of the relation
    assert right["spatial"] > 0.95 and right["complex"] > 0.95
    assert all(wrong[task] < right[task] - 0.2 for task in COMPBENCH_TASKS)
