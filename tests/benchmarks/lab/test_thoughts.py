import numpy as np
import pytest
import torch
from tests.benchmarks.stub import StubPolicy, scene_of

from thinkdraw.benchmarks.lab.thoughts import draw_from_thoughts, swap_study, thought_precision
from thinkdraw.lab.claims import Claim, claims
from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.lab.rationales import write_rationale
from thinkdraw.lab.scenes import Scene, SceneObject, draw, random_scene
from thinkdraw.types import Prompt, Sampling

RING = {"size": "small", "texture": "striped", "color": "red", "shape": "ring"}
SCENE = Scene(
    (SceneObject("ring", "red", "small", "striped", 0, 0), SceneObject("cup", "blue", "large", "solid", 6, 3)), "gray"
)


@pytest.mark.parametrize(
    ("thought", "expected"),
    [
        ("a small striped red ring at the top left.", [Claim("thing", RING), Claim("place", RING, "top left")]),
        ("center: a cup.", [Claim("thing", {"shape": "cup"}), Claim("place", {"shape": "cup"}, "center")]),
        ("an orange arrow sits bottom center.", [
            Claim("thing", {"color": "orange", "shape": "arrow"}),
            Claim("place", {"color": "orange", "shape": "arrow"}, "bottom center"),
        ]),
        ("gray background.", [Claim("background", {}, "gray")]),
        ("on a sky background. the background is cream. behind it all white.", [
            Claim("background", {}, name) for name in ("sky", "cream", "white")
        ]),
        ("let me think. flat colors. two objects in view.", []),
        ("top left; a dog.", []),
    ],
)  # fmt: skip
def test_claims(thought, expected):
    assert list(claims(thought)) == expected


def test_precision_by_hand():
    # true: ring, its place, gray. false: a red cup, and so its place
    thought = "a small striped red ring, top left; a red cup, bottom center. gray background."
    found = thought_precision([thought], [detect_objects(draw(SCENE))])
    assert {kind: (score.value, score.pictures) for kind, score in found.items()} == {
        "all": (3 / 5, 5), "thing": (1 / 2, 2), "place": (1 / 2, 2), "background": (1, 1),
    }  # fmt: skip


def test_a_thing_in_another_place_keeps_its_own_claim():
    found = thought_precision(["a blue cup at the top left."], [detect_objects(draw(SCENE))])
    assert found["thing"].value == 1 and found["place"].value == 0


def test_thoughts_that_claim_nothing_are_left_out_and_kinds_without_claims_are_absent():
    found = thought_precision(["", "gray background."], [detect_objects(draw(SCENE))] * 2)
    assert found.keys() == {"all", "background"} and found["all"].prompts == 1
    assert thought_precision([""], [detect_objects(draw(SCENE))]) == {}


def test_the_stub_draws_what_a_thought_says():
    rng = np.random.default_rng(0)
    told = [write_rationale(random_scene(3, rng), rng) for _ in range(30)]
    found = thought_precision(told, [detect_objects(draw(scene_of(text))) for text in told])
    assert found["thing"].value == found["place"].value == found["background"].value == 1


EXAMPLES = prompt_set("geneval", "test", 12)
PROMPTS = [example.prompt for example in EXAMPLES]


def test_a_policy_that_draws_its_thought_is_right_from_its_own_and_wrong_from_anothers():
    report = swap_study(StubPolicy(EXAMPLES), PROMPTS, Sampling(), samples=2)
    assert report.correct["own"].value == 1 and report.correct["other"].value < 0.3
    assert report.differences["own-other"].value == pytest.approx(1 - report.correct["other"].value)
    assert report.differences["own-other"].low > 0 and report.differences["own-off"].low > 0
    assert report.followed["own"].value == report.followed["other"].value == 1
    assert report.facts["own"].value == 1 > report.facts["empty"].value
    assert set(report.summary()["correct"]) == {"own", "other", "empty", "off"}


def test_chunks_hold_at_least_two_prompts_and_own_thoughts_do_not_depend_on_them():
    policy = StubPolicy(EXAMPLES, mistakes=0.3)
    report = swap_study(policy, PROMPTS[:5], Sampling(), samples=2, chunk=2)
    assert sorted(set(policy.batches)) == [4, 6]  # 5 prompts: 2 and 3
    assert (
        report.correct["own"]
        == swap_study(StubPolicy(EXAMPLES, 0.3), PROMPTS[:5], Sampling(), samples=2).correct["own"]
    )


def test_swapping_needs_thoughts_and_another_prompt():
    with pytest.raises(ValueError, match="thought=off"):
        swap_study(StubPolicy(EXAMPLES), PROMPTS, Sampling(thought="off"))
    with pytest.raises(ValueError, match="1 prompts"):
        swap_study(StubPolicy(EXAMPLES), PROMPTS[:1], Sampling())


@pytest.fixture(scope="module")
def janus(tmp_path_factory):
    from thinkdraw.policies import load_policy
    from thinkdraw.policies.janus.tiny import random_janus

    return load_policy(random_janus(tmp_path_factory.mktemp("janus") / "tiny"))


@pytest.mark.parametrize("thought", ["inline", "rewrite"])
def test_janus_draws_from_given_thoughts(janus, thought):
    sampling = Sampling(thought=thought, max_thought_tokens=12)
    prompts = [Prompt("a red circle"), Prompt("a star")]
    drawn = draw_from_thoughts(janus, prompts, ["a small star", "a blue square"], sampling, [1, 2])
    assert drawn.thoughts == ("a small star", "a blue square") and drawn.pictures is not None
    again = draw_from_thoughts(janus, prompts, ["a small star", "two"], sampling, [1, 2])
    assert torch.equal(drawn.image_tokens()[0], again.image_tokens()[0])
    assert not torch.equal(drawn.image_tokens()[1], again.image_tokens()[1])


def test_janus_swaps(janus):
    report = swap_study(janus, PROMPTS[:3], Sampling(max_thought_tokens=12))
    assert report.correct.keys() == {"own", "other", "empty", "off"} and report.correct["own"].pictures == 3
