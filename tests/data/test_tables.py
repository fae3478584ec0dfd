import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.data.tables import counts_line, resolve_inside, table_rows
from thinkdraw.errors import UserError

ROWS = [
    {"prompt": "a red apple left of a blue cup", "task_type": "spatial", "nouns": ["apple", "cup"],
     "spatial_info": {"obj1": "apple", "obj2": "cup", "locality": "left of"}, "numeracy_info": None},
    {"prompt": "three birds", "task_type": "numeracy", "nouns": ["birds"], "spatial_info": None,
     "numeracy_info": [{"obj_name": "birds", "num": 3}]},
]  # fmt: skip


def lines(path):
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def array(path):
    path.write_text(json.dumps(ROWS))


def tall_array(path):
    path.write_text("\n" + json.dumps(ROWS, indent=2) + "\n")


def parquet(path):
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def saved(path):
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(path))


def saved_splits(path):
    import datasets

    given = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": given, "test": given.select([0])}).save_to_disk(str(path))


def folder_of_parquet(path):
    (path / "data").mkdir(parents=True)
    parquet(path / "data" / "train-0.parquet")


FORMS = [
    (lines, "p.json"), (lines, "p.jsonl"), (array, "p.json"), (array, "p.jsonl"), (tall_array, "p.json"),
    (parquet, "p.parquet"), (saved, "saved"), (saved_splits, "splits"), (folder_of_parquet, "hub"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "name"), FORMS, ids=lambda x: getattr(x, "__name__", x))
def test_every_usual_form_gives_the_same_prompts(tmp_path, write, name):
    write(tmp_path / name)
    first, second = read_prompts(tmp_path / name)
    assert (first.text, first.tag, first.nouns) == (ROWS[0]["prompt"], "spatial", ("apple", "cup"))
    assert first.relation and second.counts == (("birds", 3),) and first.id != second.id


def test_a_table_of_texts_gives_prompts_with_their_ids(tmp_path):
    (tmp_path / "p.csv").write_text('id,prompt,tag\n007,"a red apple, and a cup",\n7,three birds,numeracy\n')
    prompts = read_prompts(tmp_path / "p.csv")
    assert [(p.id, p.text, p.tag) for p in prompts] == [
        ("007", "a red apple, and a cup", ""), ("7", "three birds", "numeracy"),
    ]  # fmt: skip


@pytest.mark.parametrize("ids", [("a", "a"), (1, "1"), ("00002", None)])
def test_two_prompts_with_one_id_are_refused_with_both_lines(tmp_path, ids):
    rows = [{"prompt": f"cat {n}", "id": id} for n, id in enumerate(ids)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"line 2 has the id .* line 1\. Give each"):
        read_prompts(tmp_path / "p.jsonl")


def test_zero_is_an_id_and_leading_zeros_stay(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "a", "id": 0}, {"prompt": "b", "id": "00"}]))
    assert [p.id for p in read_prompts(tmp_path / "p.json")] == ["0", "00"]


@pytest.mark.parametrize("id", [True, 1.0, ["a"], {"a": 1}])
def test_an_id_of_another_kind_is_refused(tmp_path, id):
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "a", "id": id}]))
    with pytest.raises(UserError, match=r"line 1: `id` is .*neither a text nor a whole number"):
        read_prompts(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", '[{"prompt": "a"},\n {"prompt": "b"}', "line 2 is not JSON"),
        ("a.json", '[{"prompt": "a"},\n\n 3]', "line 3 is not a JSON object, but 3"),
        ("a.json", '[{"prompt": "a"},\n {"prompt" "b"}]', "line 2 is not JSON"),
        ("a.json", '[{"prompt": "a"}]\n{}', "line 1 is not JSON .*more behind it"),
        ("a.json", '[{"prompt": "a"},]', "line 1 is not JSON"),
        ("a.json", "[]", "holds no prompt"),
        ("a.json", '{\n "prompt": "a"\n}', "line 1 begins an object of several lines"),
        ("a.json", '{"data": [{"prompt": "a"}]}', "line 1 has no `prompt`; its columns are data"),
        ("c.csv", "text\na cat\n", "line 2 has no `prompt`; its columns are text"),
    ],
)
def test_what_is_not_of_the_form_is_named_with_its_line(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        read_prompts(tmp_path / name)


def test_a_chat_as_prompt_says_what_is_wanted_and_shows_no_picture(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": "a" * 500}], "image": {"bytes": b"\x89PNG" * 99, "path": None}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chat.parquet")
    with pytest.raises(UserError, match="row 1 has no `prompt` that is a text") as raised:
        read_prompts(tmp_path / "chat.parquet")
    assert "PNG" not in str(raised.value) and len(str(raised.value)) < 400


def test_rows_can_be_read_without_their_pictures(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"prompt": "a", "image": b"x"}]), tmp_path / "p.parquet")
    (row,) = table_rows(tmp_path / "p.parquet", ("image",))
    assert row.cells == {"prompt": "a"} and row.where.endswith("p.parquet row 1")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "link", "loop", "a\0b", "folder/secret"])
def test_what_a_data_set_names_lies_inside_it_links_too(tmp_path, name):
    own = tmp_path / "set"
    own.mkdir()
    (tmp_path / "secret").write_text("s")
    (own / "link").symlink_to(tmp_path / "secret")
    (own / "loop").symlink_to(own / "loop")
    (own / "folder").symlink_to(tmp_path)
    with pytest.raises(UserError, match="outside the data set's folder"):
        resolve_inside(own, name, "row 1")
    (own / "fine").symlink_to(own / "sub" / "x")
    assert (
        resolve_inside(own, "fine", "row 1") == own / "fine"
        and resolve_inside(own, str(own / "x"), "row 1") == own / "x"
    )


def test_counts_are_one_line_that_leaves_out_what_did_not_happen():
    assert counts_line("p.txt", {"read": 0, "left out": 0}) == "p.txt: 0 read"
    assert counts_line("p.txt", {"read": 3, "left out": 1}) == "p.txt: 3 read, 1 left out"


def test_a_folder_with_files_of_several_splits_is_refused(tmp_path):
    for name in ("train-00000.parquet", "test-00000.parquet"):
        pq.write_table(pa.Table.from_pylist([{"prompt": name}]), tmp_path / name)
    with pytest.raises(UserError, match="the splits test, train"):
        read_prompts(tmp_path)


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"tag": ["x"]}, r"`tag` is \['x'\]"),
        ({"questions": [{"id": "1", "text": "is it?"}]}, "questions must have whole numbers"),
        ({"questions": [{"id": 1, "text": 3}]}, "questions must have whole numbers"),
        ({"include": [{"class": "cat", "count": True}]}, "`include` is not a list"),
    ],
)
def test_a_field_of_another_kind_is_not_made_a_text(tmp_path, field, says):
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "a", **field}]))
    with pytest.raises(UserError, match=says):
        read_prompts(tmp_path / "p.json")


def test_blank_lines_before_a_table_are_no_header(tmp_path):
    (tmp_path / "p.csv").write_text("\n\nprompt,tag\na cat,x\nb\n")
    with pytest.raises(UserError, match="line 5 has too few"):
        read_prompts(tmp_path / "p.csv")
