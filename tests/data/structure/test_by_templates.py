import pytest

from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.data.structure.by_templates import parse_template, singular
from thinkdraw.data.structure.structure import Structure
from thinkdraw.types import Relation


@pytest.mark.parametrize(
    ("text", "structure"),
    [
        ("a photo of a dog", Structure(("dog",))),
        ("a red dog and a blue bell pepper", Structure(("dog", "bell pepper"), ("red dog", "blue bell pepper"))),
        ("An image of an orange.", Structure(("orange",))),
        ("there are two cups", Structure(("cup",), (), (("cup", 2),))),
        ("a purple orange", Structure(("orange",), ("purple orange",))),
        ("two dogs, one mouse and three wooden chairs",
         Structure(("dog", "mouse", "chair"), ("wooden chair",), (("dog", 2), ("mouse", 1), ("chair", 3)))),
        ("a photo of four couchs", Structure(("couch",), (), (("couch", 4),))),  # GenEval's plurals
        ("3 women", Structure(("woman",), (), (("woman", 3),))),
        ("a photo of a cup left of a wine glass",
         Structure(("cup", "wine glass"), relation=Relation("cup", "left of", "wine glass"))),
        ("a key on the bottom of a box", Structure(("key", "box"), relation=Relation("key", "on the bottom of", "box"))),
        ("The yellow lemon is on top of the green cutting board.",
         Structure(("lemon", "cutting board"), ("yellow lemon", "green cutting board"),
                   relation=Relation("lemon", "on top of", "cutting board"))),
        ("a cup hidden by a box", Structure(("cup", "box"), relation=Relation("cup", "hidden by", "box"))),
        ("a gray lamp beside a red velvet sofa, and three owls",
         Structure(("lamp", "sofa", "owl"), ("gray lamp", "red velvet sofa"), (("owl", 3),), Relation("lamp", "beside", "sofa"))),
        ("The cup is red and the door is made of wood.", Structure(("cup", "door"), ("red cup", "wooden door"))),
        ("fluffy clouds and leather gloves", Structure(("cloud", "glove"), ("fluffy cloud", "leather glove"))),
    ],
)  # fmt: skip
def test_a_prompt_of_a_template_is_understood(text, structure):
    assert parse_template(text) == structure


@pytest.mark.parametrize(
    "text",
    [
        "A person is kayaking down a calm river.",
        "an orange cat sleeping on top of a red car",  # what it does is no part of its name
        "The round ball bounced near the square block.",
        "four rabbits entertained us",
        "dogs and cats",  # bare words may be anything
        "a big house with a garden",
        "joy",
        "a",
        "two",
        "a photo of ",
        "left of a dog",
    ],
)
def test_a_prompt_that_does_not_fit_a_template_is_left_alone(text):
    assert parse_template(text) is None


@pytest.mark.parametrize(
    ("word", "one"),
    [
        ("dogs", "dog"), ("glasses", "glass"), ("vases", "vase"), ("buses", "bus"), ("boxes", "box"), ("houses", "house"),
        ("cherries", "cherry"), ("mice", "mouse"), ("women", "woman"), ("leaves", "leaf"), ("sheep", "sheep"),
        ("benches", "bench"), ("batterys", "battery"), ("axes", "axe"), ("fish", "fish"),
    ],
)  # fmt: skip
def test_the_singular_of_a_plural(word, one):
    assert singular(word) == one


def test_it_agrees_with_the_structure_that_t2i_r1_published(shared_dir):
    """Of its spatial prompts all but the seven whose own record takes "key" for no thing; of counts where it reads any."""
    prompts = read_prompts(shared_dir / "benchmarks" / "t2i_r1_train" / "geneval_and_t2i_data_final.jsonl")
    spatial = [(parse_template(p.text), p) for p in prompts if p.tag == "spatial"]
    wrong = [p for found, p in spatial if found is None or found.relation != p.relation]
    assert len(spatial) == 2195 and len(wrong) == 7 and all("key" in p.text for p in wrong)
    counted = [(found, p) for p in prompts if p.tag == "numeracy" and (found := parse_template(p.text))]
    assert len(counted) > 1000
    assert sum(sorted(found.counts) == sorted(p.counts) for found, p in counted) / len(counted) > 0.95
    colored = [(found, p) for p in prompts if p.tag == "color" and (found := parse_template(p.text))]
    assert sum(set(found.attributed) == set(p.attributed) for found, p in colored) / len(colored) > 0.98
