import math

import pytest
import torch
from tests.benchmarks.stub import rollouts
from tests.rewards.judges import Boxes

from thinkdraw.errors import OwnCodeError, UserError
from thinkdraw.rewards import load_reward
from thinkdraw.types import Prompt, Relation

NAN = math.nan
LEFT, RIGHT, TOP = (0, 4, 4, 8), (12, 4, 16, 8), (6, 0, 10, 4)


def batch(prompts, bytes_=None):
    firsts = torch.tensor(bytes_ if bytes_ is not None else range(len(prompts)), dtype=torch.uint8)
    return rollouts(prompts, firsts[:, None, None, None].expand(-1, 16, 16, 3).contiguous(), [""] * len(prompts))


DOG_CAT = Prompt("a dog and a cat", nouns=("dog", "cat"))
PLAIN = Prompt("something nice")


def test_objects_is_the_fraction_of_nouns_that_are_found():
    scenes = {
        0: [("dog", LEFT, 0.9), ("cat", RIGHT, 0.8)],
        1: [("dog", LEFT, 0.9), ("cat", RIGHT, 0.3)],  # at the threshold is not above it
        2: [("dog", LEFT, 0.31)],
        3: [],
        4: None,  # no verdict
    }
    values = load_reward("objects", detector=Boxes(scenes))(batch([DOG_CAT] * 5)).rewards
    assert values.tolist() == pytest.approx([1, 0.5, 0.5, 0, NAN], nan_ok=True)


def test_a_prompt_without_nouns_is_not_shown_to_the_detector_and_is_no_failure():
    judge = Boxes({0: [], 1: [("dog", LEFT, 0.9)]})
    reward, rows = load_reward("objects", detector=judge), batch([PLAIN, DOG_CAT])
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == pytest.approx([NAN, 0.5], nan_ok=True)
    assert verdicts.applies.tolist() == [False, True]
    assert judge.labels == [["dog", "cat"]]


@pytest.mark.parametrize(
    ("boxes", "value"),
    [
        ([LEFT, RIGHT], 1.0),
        ([LEFT], 0.0),
        ([LEFT, RIGHT, TOP], 0.0),
        ([LEFT, RIGHT, (0, 4, 4, 7)], 1.0),  # 3/4 of the first box: the same dog
        ([LEFT, (2, 4, 6, 8)], 1.0),  # IoU 8 / 24: another one
        ([], 0.0),
    ],
)
def test_a_count_is_exact_and_a_thing_counts_once(boxes, value):
    scene = [("dog", box, 0.9 - 0.1 * i) for i, box in enumerate(boxes)]
    prompt = Prompt("two dogs", counts=(("dog", 2),))
    assert load_reward("count", detector=Boxes({0: scene}))(batch([prompt])).rewards.item() == value


def test_count_is_the_mean_over_the_counted_nouns_and_a_wrong_number_may_count_something():
    # two dogs: right; three cats: one, so wrong; one cup: none
    prompt = Prompt("x", counts=(("dog", 2), ("cat", 3), ("cup", 1)))
    judge = Boxes({0: [("dog", LEFT, 0.9), ("dog", RIGHT, 0.9), ("cat", TOP, 0.9)]})
    assert load_reward("count", detector=judge)(batch([prompt])).rewards.item() == pytest.approx(1 / 3)
    assert load_reward("count", detector=judge, wrong_number=0.2)(batch([prompt])).rewards.item() == pytest.approx(
        1.2 / 3
    )
    assert load_reward("count", detector=judge)(batch([DOG_CAT])).applies.tolist() == [False]


@pytest.mark.parametrize(
    ("scene", "value"),
    [
        ([("dog", LEFT, 0.9), ("cat", RIGHT, 0.9)], 0.25 + 0.25 + 0.5),
        ([("dog", RIGHT, 0.9), ("cat", LEFT, 0.9)], 0.25 + 0.25),
        ([("dog", LEFT, 0.9)], 0.25),
        ([], 0.0),
        # of two cats the more confident one counts, and the dog is not left of it
        ([("dog", TOP, 0.9), ("cat", RIGHT, 0.5), ("cat", LEFT, 0.8)], 0.25 + 0.25),
        (None, NAN),
    ],
)
def test_a_relation_is_a_quarter_for_each_thing_and_a_half_for_their_place(scene, value):
    prompt = Prompt("x", relation=Relation("dog", "left of", "cat"))
    got = load_reward("relation", detector=Boxes({0: scene}))(batch([prompt])).rewards.item()
    assert got == pytest.approx(value, nan_ok=True)


def test_a_thing_stands_above_another_of_its_name():
    prompt = Prompt("x", relation=Relation("cup", "on top of", "cup"))
    judge = Boxes({0: [("cup", (6, 12, 10, 16), 0.9), ("cup", TOP, 0.8)], 1: [("cup", TOP, 0.9)]})
    assert load_reward("relation", detector=judge)(batch([prompt] * 2)).rewards.tolist() == [1.0, 0.25]


def test_a_relation_that_boxes_cannot_tell_does_not_apply():
    prompts = [PLAIN] + [Prompt("x", relation=Relation("a", word, "b")) for word in ("behind", "near", "above")]
    rows = batch(prompts)
    reward = load_reward("relation", detector=Boxes({first: [] for first in range(4)}))
    verdicts = reward(rows)
    assert verdicts.applies.tolist() == [False, False, True, True]
    assert verdicts.rewards.tolist() == pytest.approx([NAN, NAN, 0, 0], nan_ok=True)
    geneval = load_reward("relation", detector=Boxes({3: []}), rule="geneval")
    assert geneval(rows).applies.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"rule": "mine"}, "rule='mine' is unknown: choose t2i-compbench or geneval"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        load_reward("relation", detector=Boxes({}), **settings)


def test_a_detector_that_loses_a_picture_is_an_error():
    class Short(Boxes):
        def detect(self, pictures, labels=None):
            return []

    with pytest.raises(OwnCodeError, match=r"judge boxes\.detect gave 0 items\. .* for each picture: 1 here"):
        load_reward("objects", detector=Short({}))(batch([DOG_CAT]))
