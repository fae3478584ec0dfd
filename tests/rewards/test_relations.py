import pytest

from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.data.structure.by_templates import PLACES
from thinkdraw.rewards.objects.relations import NOT_IN_2D, RELATION_OF, WORDINGS, relation_of, relation_score

# Centres around (50, 50) in a picture of 100: 20 wide and high each.
MIDDLE = (40, 40, 60, 60)
LEFT, RIGHT, TOP, BOTTOM = (5, 42, 25, 62), (75, 38, 95, 58), (42, 5, 62, 25), (38, 75, 58, 95)
STANDS = {"left of": LEFT, "right of": RIGHT, "above": TOP, "below": BOTTOM}


@pytest.mark.parametrize("rule", ["t2i-compbench", "geneval"])
@pytest.mark.parametrize("word", [word for word, relation in RELATION_OF.items() if relation != "next to"])
def test_every_word_for_a_direction_holds_on_its_own_side_and_on_no_other(word, rule):
    scores = {side: relation_score(word, box, MIDDLE, 100, rule) for side, box in STANDS.items()}
    assert scores == {side: float(side == RELATION_OF[word]) for side in STANDS}


@pytest.mark.parametrize(
    ("word", "side"),
    [
        ("left of", "left of"), ("on the left of", "left of"), ("to the left of", "left of"),
        ("right of", "right of"), ("on the right of", "right of"), ("on the right side of", "right of"),
        ("above", "above"), ("on top of", "above"), ("on the top of", "above"), ("over", "above"),
        ("below", "below"), ("on the bottom of", "below"), ("under", "below"), ("beneath", "below"),
        ("next to", "next to"), ("near", "next to"), ("beside", "next to"), ("on side of", "next to"),
        ("On  Top of", "above"),
    ],
)  # fmt: skip
def test_a_word_stands_for_its_relation(word, side):
    assert relation_of(word) == side


@pytest.mark.parametrize("word", WORDINGS["next to"])
@pytest.mark.parametrize(
    ("box", "score"),
    [
        (LEFT, 1.0),  # beside it: the vertical offset is 2
        ((45, 5, 65, 25), 1.0),
        # offsets 40 and 40 of 100 are 191.6 of 479 pixels: 150 / 191.6
        ((0, 0, 20, 20), 150 / 191.6),
    ],
)
def test_every_word_for_nearness_holds_if_one_offset_is_small(word, box, score):
    assert relation_score(word, box, MIDDLE, 100) == pytest.approx(score)


@pytest.mark.parametrize("word", [*NOT_IN_2D, "riding", ""])
def test_a_word_that_boxes_cannot_decide_has_no_score(word):
    assert relation_of(word) is None
    assert relation_score(word, LEFT, MIDDLE, 100) is None


def test_genevals_rule_has_no_nearness():
    assert relation_score("next to", LEFT, MIDDLE, 100, "geneval") is None


@pytest.mark.parametrize(
    ("subject", "score"),
    [
        ((20, 40, 40, 60), 1.0),  # touches: IoU 0
        # 10 of 20 shared: 200 / (400 + 400 - 200) = 1/3 -> 0.1 / (1/3) = 0.3
        ((30, 40, 50, 60), 0.3),
        ((5, 5, 25, 25), 0.0),  # on the diagonal no direction is the larger one
        ((5, 0, 25, 20), 0.0),  # farther above than to the left
        (MIDDLE, 0.0),
    ],
)
def test_overlap_and_diagonals_lower_a_direction_as_t2i_compbench_does(subject, score):
    assert relation_score("left of", subject, MIDDLE, 100) == pytest.approx(score)


def test_every_word_of_t2i_r1s_training_prompts_has_a_relation(shared_dir):
    prompts = read_prompts(shared_dir / "benchmarks" / "t2i_r1_train" / "geneval_and_t2i_data_final.jsonl")
    words = {prompt.relation.word for prompt in prompts if prompt.relation}
    assert len(words) == 12 and all(relation_of(word) for word in words)
    assert relation_of("above") == relation_of("on top of") == "above"  # which its own code gives 0


def test_every_word_that_the_template_parser_finds_is_in_the_table():
    assert not [word for word in PLACES if word not in RELATION_OF and word not in NOT_IN_2D]
