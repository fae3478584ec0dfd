"""Rewards and the judges that they ask, opened by name."""

import inspect
import math

import pytest
import torch
from tests.benchmarks.stub import rollouts

from thinkdraw.errors import UserError
from thinkdraw.judges import JUDGES, load_judge
from thinkdraw.judges.lab import LabDetector, PolicyQuestioner
from thinkdraw.lab.scenes import Scene, SceneObject, draw
from thinkdraw.rewards import opening as rewards
from thinkdraw.rewards.opening import on_device, open_judge, open_reward
from thinkdraw.runtime.registry import find
from thinkdraw.types import Prompt

HERE = "tests.rewards.test_opening"
RING = SceneObject("ring", "red", "small", "solid", 0, 0)
PROMPT = Prompt("a ring and a cup", nouns=("ring", "cup"), counts=(("ring", 1),))


class Says:
    """A questioner and a writer, of the test's own."""

    sees = True

    def __init__(self, value=0.5):
        self.value = value

    def answer(self, pictures, questions):
        return torch.full((len(questions),), float(self.value))

    def write(self, requests):
        return [f"Final Score: {self.value}"] * len(requests)


class Policy(Says):
    """Stands for a loaded checkpoint."""

    frozen = False

    def freeze(self):
        Policy.frozen = True


@pytest.fixture
def loaded(monkeypatch):
    """The names of the checkpoints that were loaded."""
    names = []
    monkeypatch.setattr(rewards, "load_trained", lambda name, device: names.append(name) or Policy(0.25))
    Policy.frozen = False
    return names


def batch():
    return rollouts([PROMPT], torch.from_numpy(draw(Scene((RING,), "gray")))[None], [""])


def test_a_judge_is_opened_by_its_name():
    reward = open_reward("objects", detector="lab-detector")
    assert reward(batch()).rewards.item() == 0.5  # the ring is there, the cup is not


def test_a_judges_settings_stand_beside_its_name():
    reward = open_reward("unified-reward", writer={"name": f"{HERE}:Says", "value": 4})
    assert reward(batch()).rewards.item() == 4


def test_a_judge_that_is_there_already_is_taken_as_it_is():
    judge = LabDetector()
    assert open_reward("count", detector=judge).detector is judge


def test_optional_judges_of_an_ensemble_are_opened_too():
    reward = open_reward("t2i-r1", grounding="lab-detector", orm={"name": f"{HERE}:Says", "value": 0.125})
    # one counted ring is right: 1; the ORM says 0.125
    assert reward(batch()).rewards.item() == pytest.approx(1 + 0.125)


def test_combined_opens_its_rewards_and_their_judges():
    parts = {
        "objects": {"detector": "lab-detector"},  # named as the reward
        "looks": {"name": "unified-reward", "writer": {"name": f"{HERE}:Says", "value": 3}},
        "thought-format": "thought-format",
        "mine": open_reward("count", detector="lab-detector"),
    }
    reward = open_reward("combined", rewards=parts, weights={"looks": 0.5})
    values = {name: value.item() for name, value in reward(batch()).parts.items()}
    assert values == {"objects": 0.5, "looks": 3, "thought-format": 0, "mine": 1}
    assert reward(batch()).rewards.item() == 0.5 + 1.5 + 0 + 1


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vqa-yes", {"questioner": "lab-detector"}, "reward 'vqa-yes': questioner=lab-detector: this judge is no Questioner"),
        ("vqa-yes", {"questioner": "wlm"}, "unknown judge 'wlm': did you mean vlm"),
        ("vqa-yes", {"questioner": {"path": "x"}}, "questioner has no name of a judge. Write it as {name: …}"),
        ("objects", {"detector": {"name": "lab-detector", "size": 3}}, "judge 'lab-detector': got an unexpected keyword"),
        ("objects", {}, "missing a required argument: 'detector'"),
        ("combined", {"rewards": {"a": {"name": 3}}}, "reward 'a' has no name of a reward"),
        ("vqa-yes", {"questioner": "self"}, "judge 'self' is the policy that a run trains, and no policy is trained here"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_said_in_a_line(name, settings, message):
    with pytest.raises(UserError, match=message) as error:
        open_reward(name, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("questioner", "path"), [(None, "lab"), ("lab", "lab"), ("runs/x", "runs/x")])
def test_the_labs_judge_asks_a_frozen_policy_named_by_its_checkpoint(questioner, path, loaded):
    reward = open_reward("lab-judge", **({} if questioner is None else {"questioner": questioner}))
    assert loaded == [path] and Policy.frozen
    assert reward.questioner.answer(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), ["a?"]).item() == 0.25


def test_a_policy_is_a_judge_by_its_checkpoint(loaded):
    reward = open_reward("orm", questioner={"name": "policy", "policy": "runs/x", "max_pairs": 3})
    assert loaded == ["runs/x"] and reward.questioner.max_pairs == 3
    assert reward(batch()).rewards.item() == 0.25


def test_self_is_a_copy_of_the_policy_in_training(loaded):
    own = Says(0.75)
    reward = open_reward("combined", own, rewards={"vqa-yes": {"questioner": "self"}})
    own.value = 0.0  # it learns
    assert reward(batch()).rewards.item() == 0.75 and loaded == []


def test_judges_open_without_a_reward():
    assert isinstance(open_judge("lab-detector"), LabDetector)
    assert isinstance(load_judge("policy", policy=Says()), PolicyQuestioner)
    assert math.isclose(load_judge(f"{HERE}:Says", value=0.5).value, 0.5)


def test_every_judge_computes_where_the_machine_is_fastest_unless_it_is_told_otherwise():
    for name in JUDGES:
        device = inspect.signature(find("judge", JUDGES, name)).parameters.get("device")
        assert device is None or device.default == "auto", name
        given = {"device": "cpu"} if device or name == "policy" else {}
        assert on_device(name, {}, "cpu") == given
        assert on_device(name, {"device": "cuda:1"}, "cpu") == {"device": "cuda:1"}


def test_where_a_judge_computes_and_in_which_precision_is_said_in_a_line(capsys, monkeypatch):
    open_judge("lab-clip", device="cpu")
    open_judge("lab-detector")
    assert capsys.readouterr() == ("", "judge lab-clip: on cpu, float32\n")
    monkeypatch.setenv("RANK", "1")
    open_judge("lab-clip", device="cpu")
    assert capsys.readouterr() == ("", "")
