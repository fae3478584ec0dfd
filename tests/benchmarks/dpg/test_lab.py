"""The lab's dense prompts under DPG-Bench's rules."""

from thinkdraw.benchmarks.dpg.benchmark import aggregate
from thinkdraw.benchmarks.dpg.files import answer_record
from thinkdraw.benchmarks.dpg.lab import with_categories
from thinkdraw.lab.prompts import prompt_set


def test_every_question_has_a_category_of_dpg_bench_and_nothing_else_changes():
    (made,) = prompt_set("dense", "test", 1)
    prompt = with_categories(made.prompt)
    found = {question.text: question.category for question in prompt.questions}
    kinds = {"is there": "entity - whole", "is the background": "global"}
    for text, category in found.items():
        expected = next((kind for opening, kind in kinds.items() if text.startswith(opening)), None)
        assert expected == category or (expected is None and category.split(" - ")[0] in ("attribute", "relation"))
    assert {category.split(" - ")[0] for category in found.values()} == {"entity", "attribute", "relation", "global"}
    assert [(q.id, q.text, q.fact) for q in prompt.questions] == [(q.id, q.text, q.fact) for q in made.prompt.questions]


def test_a_wrong_place_lowers_the_column_relation_alone():
    prompts = [with_categories(example.prompt) for example in prompt_set("dense", "test", 4)]
    rows = [
        {"prompt_index": i, "prompt_id": p.id, "tag": "dpg", "sample": 0, "verdict": 0.9,
         "answers": [answer_record(q, p_yes=float(not q.category.startswith("relation"))) for q in p.questions]}
        for i, p in enumerate(prompts)
    ]  # fmt: skip
    columns = aggregate(rows, "x", "fixed").columns
    assert {name: score.value for name, score in columns.items()} == {
        "global": 1.0, "entity": 1.0, "attribute": 1.0, "relation": 0.0,
    }  # fmt: skip
