import json
from pathlib import Path

import pytest

from thinkdraw.data.prompt_files import FORMATS, read_prompts, write_prompts
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt, Question, Relation

DPG_HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_is_written_is_read_back_equal(tmp_path):
    clauses = ({"class": "cat", "count": 1}, {"class": "dog", "count": 2, "color": "red", "position": ["left of", 0]})
    questions = (Question(1, "is there a cat?"), Question(2, "is the cat\u2028red?", (1,), {"kind": "exists"}))
    prompts = [Prompt("two “red” dogs", "a-1", "position", clauses, ({"class": "dog", "count": 3},), questions)]
    prompts += [Prompt("a ring", "a-2")]
    place = Relation("cat", "on top of", "bed")
    prompts += [
        Prompt("two red cats", nouns=("cat",), attributed=("red cat",), counts=(("cat", 2),), relation=place, id="a-3")
    ]
    write_prompts(tmp_path / "p.jsonl", prompts)
    assert read_prompts(tmp_path / "p.jsonl") == prompts


def test_t2i_r1s_rows_are_read_under_their_published_names(tmp_path):
    row = {"prompt": "a photo of four coasters", "nouns": ["coaster"], "task_type": "numeracy"}
    row["numeracy_info"] = [{"obj_name": "coaster", "num": 4}]
    place = {"prompt": "a car below a zebra", "nouns": ["car", "zebra"], "task_type": "spatial"}
    place["spatial_info"] = {"obj1": "car", "obj2": "zebra", "locality": "below"}
    path = write(tmp_path / "p.jsonl", json.dumps(row), json.dumps(place))
    first, second = read_prompts(path)
    assert (first.tag, first.nouns, first.counts) == ("numeracy", ("coaster",), (("coaster", 4),))
    assert second.relation == Relation("car", "below", "zebra")


def test_text_lines_are_prompts_with_ids_and_empty_lines_are_skipped(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbfa cat\r\n\r\n  a dog \r\n")
    assert [(p.id, p.text) for p in read_prompts(path)] == [("mine-00000", "a cat"), ("mine-00002", "a dog")]


def test_genevals_metadata_keep_their_clauses_and_are_numbered_as_its_picture_folders(tmp_path):
    row = {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}]}
    path = write(tmp_path / "evaluation_metadata.jsonl", json.dumps({**row, "prompt": "a photo of two cats"}))
    (prompt,) = read_prompts(tmp_path)  # the folder, as upstream lays it out
    assert (prompt.id, prompt.tag, prompt.text) == ("00000", "counting", "a photo of two cats")
    assert prompt.metadata() == {**row, "prompt": "a photo of two cats"}
    write(path, json.dumps({"tag": "colors", "prompt": "a red cat"}))
    with pytest.raises(UserError, match="line 1 has no `include`"):
        read_prompts(path)


def test_compbench_categories_come_from_the_file_names_and_a_folder_gives_its_test_files(tmp_path):
    write(tmp_path / "color_val.txt", "a red cat and a blue dog")
    write(tmp_path / "3d_spatial_val.txt", "a cat behind a dog")
    write(tmp_path / "color_train.txt", "a red cat")
    assert [p.tag for p in read_prompts(tmp_path)] == ["color", "3d_spatial"]
    assert read_prompts(tmp_path / "color_train.txt")[0].tag == "color"
    with pytest.raises(UserError, match="does not say its T2I-CompBench category"):
        read_prompts(write(tmp_path / "mine.txt", "a cat"), "compbench")


def test_dpgs_table_gives_questions_with_their_parents(tmp_path):
    rows = [
        'x1,"A red dog, asleep. ",,1,0,entity,entity - whole,entity - whole (dog),Is there a dog?',
        'x1,"A red dog, asleep. ",,2,1,attribute,attribute - color,"attribute - color (dog, red)",Is the dog red?',
        'x1,"A red dog, asleep. ",,3,"1,2",other,other,other (x),"Is it asleep, and red?"',
        "x2,A cat,,1,0,entity,entity - whole,entity - whole (cat),Is there a cat?",
    ]
    path = write(tmp_path / "dpg_bench.csv", DPG_HEADER, *rows)
    first, second = read_prompts(tmp_path)
    assert (first.id, first.text, first.tag) == ("x1", "A red dog, asleep.", "dpg")
    assert [q.depends_on for q in first.questions] == [(), (1,), (1, 2)]
    assert second.questions == (Question(1, "Is there a cat?", category="entity"),)
    write(path, DPG_HEADER, rows[3].replace("1,0", "1,none"))
    with pytest.raises(UserError, match="line 2: proposition_id and dependency"):
        read_prompts(path)


def test_dpg_without_its_table_is_a_folder_of_texts_or_rows_with_item_ids(tmp_path):
    write(tmp_path / "prompts" / "b2.txt", "a dog ")
    write(tmp_path / "prompts" / "a1.txt", "a cat")
    assert [(p.id, p.text) for p in read_prompts(tmp_path / "prompts")] == [("a1", "a cat"), ("b2", "a dog")]
    path = write(tmp_path / "rows.jsonl", json.dumps({"item_id": "a1", "prompt": "a cat"}))
    assert read_prompts(path)[0] == Prompt("a cat", "a1", "dpg")


def test_unigenbench_tables_give_their_prompts(tmp_path):
    path = write(tmp_path / "test.csv", "index,prompt_en,sub_dims_en", '7,"a cat, asleep","{""not"" json"')
    assert read_prompts(path) == [Prompt("a cat, asleep", "7", "unigenbench")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": ', "line 2 is not JSON"),
        ("p.jsonl", '\n["a"]', "line 2 is not a JSON object"),
        ("p.jsonl", '{"text": "a"}', "line 1 has no `prompt`"),
        ("p.jsonl", '{"prompt": " "}', "line 1 has no `prompt`"),
        ("p.jsonl", '{"prompt": "a", "questions": [{"txt": "b"}]}', "line 1: questions are not of the form"),
        ("p.jsonl", '{"prompt": "a", "include": [{"class": "cat"}]}', "line 1: `include` is not a list of GenEval"),
        ("p.jsonl", '{"prompt": "a", "include": {"class": "cat", "count": 1}}', "line 1: `include` is not a list"),
        ("p.jsonl", '{"prompt": "a", "include": [{"class": "c", "count": 1, "position": ["above", 0]}]}', "earlier"),
        ("p.txt", " \n", "holds no prompt"),
        ("p.jsonl", '{"prompt": "a", "nouns": [1]}', "line 1: nouns and attr_nouns must be lists of texts"),
        ("p.jsonl", '{"prompt": "a", "spatial_info": {"obj1": "b"}}', "line 1: numeracy_info or spatial_info"),
        ("p.jsonl", '{"prompt": "a", "numeracy_info": [["b", 2]]}', "form, a list of {obj_name, num} and one"),
        ("p.jsonl", '{"prompt": "a", "nouns": "cat"}', "line 1: nouns and attr_nouns must be lists of texts"),
        (
            "p.jsonl",
            '{"prompt": "a", "numeracy_info": [{"obj_name": "cat", "num": "3"}]}',
            "line 1: numeracy_info must name",
        ),
        ("p.txt", b"\xff\xfe", "holds no prompt"),
        ("p.md", "a cat", "does not tell the prompt format"),
        ("p.parquet", "x", "cannot be read as a table"),
        ("t.csv", "item_id,prompt_en\n1,a", "has no column text, proposition_id"),
        ("t.csv", DPG_HEADER + "\nx1,a", "line 2 has too few columns"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_says_where(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=says) as raised:
        read_prompts(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_an_unknown_format_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(UserError, match="'genevl': one of table"):
        read_prompts(tmp_path, "genevl")
    for name in ("nothing.txt", "nothing.jsonl", "nothing"):
        with pytest.raises(UserError, match="cannot be read as a text file: No such file"):
            read_prompts(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="does not tell"):
        read_prompts(tmp_path / "empty")


@pytest.mark.parametrize(
    ("path", "count", "tags"),
    [
        ("geneval", 553, 6),
        ("t2i_compbench", 2400, 8),
        ("t2i_compbench/color_train.txt", 700, 1),
        ("dpg_bench", 1065, 1),
        ("unigenbench/test_prompts_en.csv", 600, 1),
        ("unigenbench/test_prompts_en_long.csv", 600, 1),
        ("geneval2/geneval2_data.jsonl", 800, 1),
        ("t2i_r1_train/geneval_and_t2i_data_final.jsonl", 7223, 8),
    ],
)
def test_the_published_files_are_read_whole(shared_dir, path, count, tags):
    file = shared_dir / "benchmarks" / path
    if not file.exists():
        pytest.skip(f"{file} is absent")
    prompts = read_prompts(file)
    assert len(prompts) == count and len({p.tag for p in prompts}) == tags
    assert all(p.text == p.text.strip() for p in prompts)
    assert len({(p.tag, p.id) for p in prompts}) == count


def test_every_format_has_a_reader_with_a_description():
    assert all(reader.__doc__ for reader in FORMATS.values())
