"""The metric rewards give what the benchmarks' own functions give."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tests.benchmarks.compbench.stand_ins import NO_VERDICT, Finds, Says, Scores, Slopes, parse, picture

from thinkdraw.benchmarks.base import PictureSet
from thinkdraw.benchmarks.compbench.asker import WordAsker
from thinkdraw.benchmarks.compbench.judge import CompBenchJudge
from thinkdraw.benchmarks.geneval.benchmark import GenEval
from thinkdraw.benchmarks.geneval.reward import GenEvalMetric
from thinkdraw.errors import UserError
from thinkdraw.judges.lab import LabDetector
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.lab.scenes import draw, random_scene
from thinkdraw.rewards import load_reward
from thinkdraw.rewards.opening import open_reward
from thinkdraw.types import Detection, Prompt, Question, Rollouts, Sampling


def rollouts(prompts, firsts):
    ones = torch.ones(len(prompts), 1)
    return Rollouts(
        prompts=tuple(prompts), prompt_ids=ones.long(), prompt_mask=ones.bool(), tokens=ones.long(), is_image=ones.bool(),
        segment=torch.zeros(len(prompts), 1, dtype=torch.int8), mask=ones.bool(), log_probs=ones,
        seeds=torch.zeros(len(prompts), dtype=torch.int64), sampling=Sampling.model_validate({}),
        pictures=torch.stack([picture(first) for first in firsts]),
    )  # fmt: skip


def test_compbench_is_the_judges_score_and_applies_to_its_categories_only():
    prompts = [
        Prompt("a red dog and a green cat", "", "color"),
        Prompt("a dog", "", "lab"),
        Prompt("a dog", "", "shape"),
    ]
    asker = WordAsker(parse)
    reward = load_reward("metric:compbench", asker=asker, questioner=Says())
    batch = rollouts(prompts, [50, 50, NO_VERDICT])
    assert reward(batch).applies.tolist() == [True, False, True]
    scores = reward(batch).rewards
    assert scores.dtype == torch.float32 and scores[0] == 0.25 and scores[1:].isnan().all()
    judged = CompBenchJudge(asker, Says())(batch.pictures[:1], prompts[:1])[0]
    assert scores[0] == judged.score


def test_compbench_asks_every_judge_that_a_batch_needs():
    prompts = [Prompt("a dog on the left of a cat", "", "spatial"), Prompt("a dog behind a cat", "", "3d_spatial")]
    prompts += [Prompt("a dog is looking at a cat", "", "non_spatial")]
    reward = load_reward(
        "metric:compbench", asker=WordAsker(parse), questioner=Says(), detector=Finds(), depth=Slopes(), scorer=Scores()
    )
    # spatial 0.4 + ½ · 0.3; behind fails, 0.4; the cosine 0.3
    assert reward(rollouts(prompts, [30] * 3)).rewards.tolist() == pytest.approx([0.55, 0.4, 0.3])


def test_compbench_has_nothing_to_say_about_a_batch_of_other_prompts():
    reward = load_reward("metric:compbench", asker=WordAsker())
    assert reward(rollouts([Prompt("a dog")], [50])).rewards.isnan().all()


QUESTIONS = (Question(1, "a dog?"), Question(2, "a red dog?", (1,)))


def test_dpg_is_the_share_of_questions_that_count():
    reward = load_reward("metric:dpg", questioner=Says())
    batch = rollouts([Prompt("a red dog", questions=QUESTIONS)] * 3 + [Prompt("a dog")], [60, 50, NO_VERDICT, 60])
    # 0.6 is a yes to both; 0.5 is none
    verdicts = reward(batch)
    assert verdicts.rewards.tolist() == pytest.approx([1.0, 0.0, math.nan, math.nan], nan_ok=True)
    assert verdicts.applies.tolist() == [True, True, True, False]


def test_dpg_refuses_a_question_that_depends_on_none_of_the_prompt():
    reward = load_reward("metric:dpg", questioner=Says())
    with pytest.raises(UserError, match="question 2 depends on question 1"):
        reward(rollouts([Prompt("a red dog", questions=QUESTIONS[1:])], [60]))


def test_a_judge_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="Questioner"):
        load_reward("metric:dpg", questioner=Finds())


class Dogs:
    """A dog whose colour the first byte tells: 1 red, 2 not known to it; none for 0, no verdict for 255."""

    name = "dogs"

    def detect(self, pictures, labels=None):
        scenes = {
            0: [],
            1: [Detection("dog", (0, 0, 9, 9), 0.9, {"color": "red"})],
            2: [Detection("dog", (0, 0, 9, 9), 0.9)],
        }
        return [scenes.get(int(p.flatten()[0])) for p in pictures]


class Namer:
    def __init__(self, color):
        self.color = color

    def color_of(self, picture):
        from thinkdraw.judges.detectors.colour import NoVerdict

        def named(label, objects):
            if self.color is None:
                raise NoVerdict("not finite")
            return [self.color] * len(objects)

        return named


RED_DOG = Prompt("a photo of a red dog", "", "colors", include=({"class": "dog", "count": 1, "color": "red"},))


def test_geneval_is_1_for_a_correct_picture_and_0_for_a_wrong_one():
    reward = load_reward("metric:geneval", detector=Dogs(), colors=Namer("blue"))
    batch = rollouts([RED_DOG] * 4 + [Prompt("a dog")], [1, 2, 0, NO_VERDICT, 1])
    # red as detected; blue by the colour judge; no dog; no verdict; no clauses
    verdicts = reward(batch)
    assert verdicts.rewards.tolist() == pytest.approx([1, 0, 0, math.nan, math.nan], nan_ok=True)
    assert verdicts.applies.tolist() == [True] * 4 + [False]


def test_geneval_without_the_colours_verdict_has_none_and_without_a_colour_judge_says_so():
    assert (
        load_reward("metric:geneval", detector=Dogs(), colors=Namer(None))(rollouts([RED_DOG], [2]))
        .rewards.isnan()
        .all()
    )
    with pytest.raises(UserError, match="colors"):
        load_reward("metric:geneval", detector=Dogs())(rollouts([RED_DOG], [2]))


def test_geneval_as_reward_and_as_benchmark_never_disagree_also_about_the_labs_small_striped_rings():
    rng, detector = np.random.default_rng(0), LabDetector()
    examples = prompt_set("geneval", "test", 60)
    pictures = [draw(e.scene(rng) if i % 2 else random_scene(3, rng)) for i, e in enumerate(examples)]
    drawn = torch.from_numpy(np.stack(pictures))
    sets = [PictureSet(i, e.prompt, (0,), (p,)) for i, (e, p) in enumerate(zip(examples, pictures))]
    rows = GenEval(detector).judge(sets)
    batch = dataclasses.replace(rollouts([e.prompt for e in examples], [0] * 60), pictures=drawn)
    assert GenEvalMetric(detector)(batch).rewards.tolist() == [row["verdict"] for row in rows]
    correct = {clause["class"] for e, row in zip(examples, rows) if row["verdict"] for clause in e.prompt.include}
    assert any(" " in name for name in correct) and not all(row["verdict"] for row in rows)


def test_a_detector_is_told_what_to_look_for_only_if_it_needs_it_and_a_class_it_calls_otherwise_is_an_error():
    class Open(Dogs):
        needs_labels = True

        def detect(self, pictures, labels=None):
            assert labels == [["dog"]] * len(pictures)
            return super().detect(pictures)

    assert GenEvalMetric(Open())(rollouts([RED_DOG, Prompt("a dog")], [1, 1])).rewards[0] == 1
    closed = Dogs()
    closed.names = ("hound", "cat")
    with pytest.raises(UserError, match="no class 'dog'"):
        GenEvalMetric(closed)(rollouts([RED_DOG], [1]))


def test_a_metric_reward_opens_with_its_judge_by_name():
    assert open_reward("metric:geneval", detector="lab-detector").detector.name == "lab-detector"


def test_compbench_opens_with_its_reader_of_prompts_by_path(tmp_path):
    (tmp_path / "chunks.jsonl").write_text('{"prompt": "a red dog", "chunks": ["a red dog"]}\n')
    reader = {"name": "thinkdraw.benchmarks.compbench:open_asker", "folder": str(tmp_path)}
    reward = open_reward(
        "metric:compbench", asker={**reader, "chunks": str(tmp_path / "chunks.jsonl")}, questioner=Says()
    )
    assert reward(rollouts([Prompt("a red dog", "", "color")], [40])).rewards.tolist() == pytest.approx([0.4])
