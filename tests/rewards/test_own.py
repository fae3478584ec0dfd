"""A user's own reward, a function or a class that gives numbers, is a reward like the shipped ones."""

from collections import Counter

import pytest
import torch
from tests.benchmarks.stub import rollouts

from thinkdraw.rewards import load_reward
from thinkdraw.rewards.own import as_reward
from thinkdraw.types import Prompt, Verdicts

HERE = "tests.rewards.test_own"


def dark(rollouts, scale=255.0):
    """How dark each picture is, 0..1."""
    return 1 - rollouts.pictures.float().mean((1, 2, 3)) / scale


class Bright:
    def __init__(self, scale=255.0):
        self.scale = scale

    def __call__(self, rollouts):
        return (rollouts.pictures.float().mean((1, 2, 3)) / self.scale).tolist()


class Everything:
    name, weights, revision, elsewhere = "everything", {"low": 2.0}, "r1", True

    def __call__(self, rollouts):
        return torch.tensor([0.5, torch.nan])

    def applies(self, rollouts):
        return torch.tensor([True, False])

    def components(self, rollouts):
        return {"low": torch.tensor([0.25, torch.nan])}

    def component_applies(self, rollouts):
        return {"low": torch.tensor([True, False])}


PICTURES = torch.tensor([0, 51], dtype=torch.uint8)[:, None, None, None].expand(2, 4, 4, 3)
ROWS = rollouts([Prompt("a"), Prompt("b")], PICTURES, ["", ""])


@pytest.mark.parametrize(
    ("path", "settings", "values"),
    [("dark", {}, [1.0, 0.8]), ("dark", {"scale": 102.0}, [1.0, 0.5]), ("Bright", {"scale": 51.0}, [0.0, 1.0])],
)
def test_a_function_and_a_class_work_by_their_dotted_path(path, settings, values):
    reward = load_reward(f"{HERE}:{path}", **settings)
    verdicts = reward(ROWS)
    assert verdicts.rewards.tolist() == pytest.approx(values) and verdicts.rewards.dtype == torch.float32
    assert verdicts.applies.all() and not verdicts.parts and not verdicts.notes
    assert (reward.weights, reward.revision, reward.elsewhere) == (None, None, False)


def test_a_function_is_named_as_it_is_and_a_class_without_a_name_by_its_path():
    assert load_reward(f"{HERE}:dark").name == as_reward(dark).name == "dark"
    assert load_reward(f"{HERE}:Bright").name == f"{HERE}:Bright" and as_reward(Bright()).name == "Bright"


def test_what_it_has_besides_is_read_in_one_place():
    reward = as_reward(Everything())
    verdicts = reward(ROWS)
    assert (reward.name, reward.weights, reward.revision, reward.elsewhere) == ("everything", {"low": 2.0}, "r1", True)
    assert verdicts.missing.tolist() == [False, False] and verdicts.parts["low"][0] == 0.25
    assert verdicts.part_applies["low"].tolist() == [True, False]


def test_verdicts_are_taken_as_they_are_and_what_cannot_be_called_is_refused():
    said = Verdicts.of(torch.zeros(2), notes=Counter({"too dark": 1}))
    assert as_reward(lambda rollouts: said)(ROWS) is said
    with pytest.raises(TypeError, match="int cannot be called with rollouts"):
        as_reward(3)  # type: ignore[arg-type]
