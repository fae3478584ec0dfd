"""A user's own reward, a function or a class that gives numbers, is a reward like the shipped ones."""

from collections import Counter

import numpy as np
import pytest
import torch
from tests.benchmarks.stub import rollouts

from thinkdraw.errors import OwnCodeError, UserError
from thinkdraw.rewards import load_reward
from thinkdraw.rewards.combined import CombinedReward
from thinkdraw.rewards.opening import open_reward
from thinkdraw.rewards.user_rewards import UserReward, as_reward
from thinkdraw.types import Prompt, Verdicts

HERE = "tests.rewards.test_user_rewards"


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


class Uncallable:
    pass


class Lists:
    """Lists where a shipped reward has tensors."""

    def __call__(self, rollouts):
        return [0.5, 1]

    def applies(self, rollouts):
        return [True, False]

    def components(self, rollouts):
        return {"low": np.array([1.0, 2.0])}

    def component_applies(self, rollouts):
        return {"low": [1, 0]}


class Answer:
    def __init__(self, answer, **more):
        self.answer = answer
        for method, values in more.items():
            setattr(self, method, lambda rollouts, values=values: values)

    def __call__(self, rollouts):
        return self.answer


an_object = Bright()
a_number = 3


def unknown_types(rollouts: "NotImported") -> "Neither":  # type: ignore[name-defined]  # noqa: F821
    return [0.0, 1.0]


def other_word(pictures):
    return [0.0, 1.0]


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


def test_a_function_and_a_class_without_a_name_are_called_as_in_their_module():
    assert load_reward(f"{HERE}:dark").name == as_reward(dark).name == "dark"
    assert load_reward(f"{HERE}:Bright").name == as_reward(Bright()).name == "Bright"


def test_what_it_has_besides_is_read_in_one_place():
    reward = as_reward(Everything())
    verdicts = reward(ROWS)
    assert (reward.name, reward.weights, reward.revision, reward.elsewhere) == ("everything", {"low": 2.0}, "r1", True)
    assert verdicts.missing.tolist() == [False, False] and verdicts.parts["low"][0] == 0.25
    assert verdicts.part_applies["low"].tolist() == [True, False]


def test_verdicts_are_taken_as_they_are_and_what_cannot_be_called_is_refused():
    said = Verdicts.of(torch.zeros(2), notes=Counter({"too dark": 1}))
    assert as_reward(lambda rollouts: said)(ROWS).notes == said.notes
    with pytest.raises(TypeError, match="int cannot be called with rollouts"):
        as_reward(3)  # type: ignore[arg-type]


def test_lists_and_arrays_do_everywhere():
    verdicts = as_reward(Lists())(ROWS)
    assert verdicts.rewards.tolist() == [0.5, 1.0] and verdicts.applies.tolist() == [True, False]
    assert verdicts.parts["low"].tolist() == [1.0, 2.0] and verdicts.part_applies["low"].tolist() == [True, False]


@pytest.mark.parametrize("answer", [np.array([0.25, 0.5]), np.array([0.25, 0.5]).tolist(), (0.25, np.float64(0.5)),
                                    torch.tensor([0.25, 0.5], dtype=torch.float64, requires_grad=True),
                                    torch.tensor([0.25, 0.5], dtype=torch.bfloat16)])  # fmt: skip
def test_numbers_of_any_kind_become_float32_without_a_gradient(answer):
    rewards = as_reward(Answer(answer))(ROWS).rewards
    assert rewards.tolist() == [0.25, 0.5] and rewards.dtype == torch.float32 and not rewards.requires_grad


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (Answer([0.5]), r"Answer: rewards has shape \(1,\). Return one number for each of the 2 rollouts"),
        (Answer(0.5), r"rewards has shape \(\)"),
        (Answer(torch.zeros(2, 1)), r"rewards has shape \(2, 1\)"),
        (Answer(Verdicts.of(torch.zeros(3))), r"rewards has shape \(3,\)"),
        (Answer(None), "rewards is of type NoneType"),
        (Answer([None, 1.0]), "rewards is of type list"),
        (Answer({"low": [0.5, 0.5]}), "rewards is of type dict"),
        (Answer(torch.zeros(2, dtype=torch.complex64)), "complex numbers have no order"),
        (Answer([0, 1], applies=[True]), r"applies has shape \(1,\)"),
        (Answer([0, 1], components={"low": [1]}), r"components\[low\] has shape \(1,\)"),
    ],
)
def test_an_answer_that_is_no_number_for_each_rollout_is_refused_in_a_line(reward, says):
    with pytest.raises(UserError, match=says) as caught:
        as_reward(reward)(ROWS)
    assert "\n" not in str(caught.value)


def test_an_object_and_types_that_only_a_type_checker_knows_are_opened():
    assert open_reward(f"{HERE}:an_object")(ROWS).rewards.tolist() == pytest.approx([0, 0.2])
    assert open_reward(f"{HERE}:unknown_types")(ROWS).rewards.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Uncallable", "made a Uncallable, which cannot be called"),
        ("a_number", "has a int as a_number"),
        ("other_word", "needs pictures. Name that parameter rollouts"),
    ],
)
def test_what_is_no_reward_is_refused_in_a_line(name, says):
    with pytest.raises(UserError, match=says):
        open_reward(f"{HERE}:{name}")


@pytest.mark.parametrize("as_verdicts", [False, True])
def test_an_infinite_number_is_no_verdict_and_is_noted(as_verdicts):
    def odd(rollouts):
        values = torch.tensor([torch.inf, 0.5])
        return Verdicts.of(values) if as_verdicts else values

    verdicts = as_reward(odd)(ROWS)
    assert verdicts.rewards.isnan().tolist() == [True, False] and verdicts.rewards[1] == 0.5
    assert verdicts.notes == {"infinite number": 1}


def says(answer):
    def reward(rollouts):
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return reward


@pytest.mark.parametrize(
    "error", [KeyError("score"), RuntimeError("out of\nmemory"), StopIteration(), SystemExit("no")]
)
def test_what_a_reward_raises_is_one_line_with_its_name_and_line_also_within_a_sum(error):
    place, way_out = r"\(test_user_rewards\.py line \d+\)", r"Mend it\. Return one number for each of the 2"
    line = rf"^reward mine raised {type(error).__name__}.*{place}\. {way_out}"
    whole = CombinedReward({"low": lambda rollouts: torch.zeros(2), "mine": says(error)})
    for reward in (UserReward(says(error), "mine"), whole):
        with pytest.raises(OwnCodeError, match=line) as found:
            reward(ROWS)
        assert "\n" not in str(found.value)


ODD = [None, "good", {"a": 1}, object(), 1.0, [0.5], torch.rand(3), torch.rand(2, 1), [[0.5, 0.5]], iter([0.5, 0.5])]


@pytest.mark.parametrize("answer", ODD, ids=lambda answer: type(answer).__name__)
def test_whatever_it_returns_is_named_with_what_is_wanted(answer):
    rule = "Return one number for each of the 2 rollouts, NaN for no verdict"
    for odd in (answer, Verdicts(answer, torch.ones(2, dtype=torch.bool))):
        with pytest.raises(OwnCodeError, match=rule) as error:
            as_reward(says(odd))(ROWS)
        assert "reward" in str(error.value) and "\n" not in str(error.value)


def test_odd_parts_of_verdicts_are_named_too():
    good = torch.zeros(2)
    for parts in ({"low": [0.5]}, {"low": None}, [0.5, 0.5]):
        with pytest.raises(OwnCodeError, match=r"parts"):
            as_reward(says(Verdicts(good, good.bool(), parts)))(ROWS)
