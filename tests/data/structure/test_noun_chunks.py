"""Noun chunks from a file or from a spaCy model, which is stood in for here."""

import json
import sys
from types import SimpleNamespace

import pytest

from thinkdraw.data.structure.noun_chunks import Parse, ParseFile, SpacyParser, open_parser, read_objects, write_parses
from thinkdraw.errors import UserError

BENCH = Parse(("a green bench",), (("a", "DET"), ("green", "ADJ"), ("bench", "NOUN")))


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def spacy(monkeypatch):
    """A module `spacy` that knows one model, which makes a chunk of all words and calls each a noun."""

    def nlp(text):
        tokens = [SimpleNamespace(text=word, pos_="NOUN") for word in text.split()]

        class Doc(list):
            noun_chunks = (SimpleNamespace(text=text),)

        return Doc(tokens)

    def load(name):
        if name != "en_core_web_sm":
            raise OSError(f"[E050] Can't find model '{name}'.")
        nlp.meta = {"name": "core_web_sm", "version": "3.7.1"}
        return nlp

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))


def test_rows_are_looked_up_by_their_prompt(tmp_path):
    file = write(
        tmp_path / "chunks.jsonl",
        {
            "prompt": "a green bench ",
            "chunks": ["a green bench"],
            "tokens": [["a", "DET"], ["green", "ADJ"], ["bench", "NOUN"]],
        },
        {"prompt": "a bowl", "chunks": ["a bowl"]},
    )
    parse = open_parser(file)
    assert parse("a green bench") == BENCH
    assert parse("a bowl") == Parse(("a bowl",))


def test_what_is_written_is_read_back(tmp_path):
    write_parses(tmp_path / "chunks.jsonl", ["a green bench", " a green bench\n"], lambda prompt: BENCH)
    parse = ParseFile(tmp_path / "chunks.jsonl")
    assert len(parse.rows) == 1 and parse("a green bench") == BENCH


def test_the_source_names_the_file_and_its_content(tmp_path):
    one = ParseFile(write(tmp_path / "chunks.jsonl", {"prompt": "a", "chunks": []})).source
    other = ParseFile(write(tmp_path / "chunks.jsonl", {"prompt": "b", "chunks": []})).source
    assert one.startswith("chunks.jsonl@") and one != other


def test_a_prompt_without_a_row_is_named(tmp_path):
    parse = ParseFile(write(tmp_path / "chunks.jsonl", {"prompt": "a bowl", "chunks": ["a bowl"]}))
    with pytest.raises(UserError, match="no row for prompt 'a cup'"):
        parse("a cup")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a"}, "`chunks`"),
        ({"prompt": "a", "chunks": "a"}, "`chunks`"),
        ({"prompt": "a", "chunks": [1]}, "`chunks`"),
        ({"prompt": "a", "chunks": [], "tokens": ["a"]}, "`tokens`"),
        ({"prompt": "a", "chunks": [], "tokens": [["a"]]}, "`tokens`"),
        ({"prompt": "a", "chunks": [], "tokens": [["a", 1]]}, "`tokens`"),
        ({"prompt": "a", "chunks": [], "tokens": {}}, "`tokens`"),
        ({"chunks": []}, "`prompt`"),
    ],
)
def test_a_malformed_row_is_named_with_its_line(tmp_path, row, words):
    file = write(tmp_path / "chunks.jsonl", {"prompt": "fine", "chunks": []}, row)
    with pytest.raises(UserError, match=f"line 2.*{words}"):
        ParseFile(file)


def test_two_different_rows_about_a_prompt_are_refused_and_equal_ones_are_not(tmp_path):
    row = {"prompt": "a", "chunks": ["a"]}
    assert len(ParseFile(write(tmp_path / "chunks.jsonl", row, row)).rows) == 1
    with pytest.raises(UserError, match=r"line 2.*another row"):
        ParseFile(write(tmp_path / "chunks.jsonl", row, {"prompt": "a", "chunks": ["b"]}))


def test_a_spacy_model_gives_chunks_tokens_and_its_version(spacy):
    parse = open_parser("en_core_web_sm")
    assert parse.source == "spacy:core_web_sm-3.7.1"
    assert parse("green bench") == Parse(("green bench",), (("green", "NOUN"), ("bench", "NOUN")))


def test_a_model_that_is_not_there_is_named(spacy):
    with pytest.raises(UserError, match=r"'xx_ent' cannot be loaded .*file of chunks"):
        SpacyParser("xx_ent")


def test_without_spacy_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match=r"pip install spacy.*file of chunks"):
        open_parser()


def test_a_file_that_is_not_there_is_not_taken_for_a_model(tmp_path):
    with pytest.raises(UserError, match=r"absent\.jsonl"):
        open_parser(tmp_path / "absent.jsonl")


def test_objects_are_singular_and_plural_in_lower_case_with_repetitions(tmp_path):
    file = tmp_path / "new_objects.txt"
    file.write_text("Bottle - bottles\n\ncup - cups\r\nbottle - bottles\n")
    assert read_objects(file) == [("bottle", "bottles"), ("cup", "cups"), ("bottle", "bottles")]


@pytest.mark.parametrize(("text", "words"), [("cup - cups\nbowl\n", "line 2"), ("\n", "no object")])
def test_a_broken_list_of_objects_is_named(tmp_path, text, words):
    (tmp_path / "new_objects.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        read_objects(tmp_path / "new_objects.txt")


def test_the_official_objects_are_101_lines_of_88(shared_dir):
    objects = read_objects(shared_dir / "benchmarks" / "t2i_compbench" / "new_objects.txt")
    assert (len(objects), len(set(objects))) == (101, 88)
