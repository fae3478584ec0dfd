import csv
import io
import json

import pytest

from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.data.text_files import csv_rows, json_rows, shorten, text_file, text_lines
from thinkdraw.errors import UserError

TEXT = "a café\nthe artist’s 猫\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_with_or_without_a_mark_is_read(tmp_path, encoding):
    path = tmp_path / "p.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert text_file(path) == TEXT


def test_big_endian_text_is_told_by_its_mark(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
    assert text_file(path) == TEXT


def test_a_mark_inside_joined_files_is_no_part_of_a_line(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n\xef\xbb\xbf{"prompt": "b"}\n')
    assert [prompt.text for prompt in read_prompts(path)] == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_three_ways_and_in_no_other(tmp_path, end):
    odd = "a\u2028cat\u2029in\x85the\x0bsun\x0c"
    path = tmp_path / "p.txt"
    path.write_bytes(end.join([odd, "", "a dog"]).encode())
    assert list(text_lines(path)) == [(1, odd), (2, ""), (3, "a dog")]
    assert [p.id for p in read_prompts(path)] == ["p-00000", "p-00002"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("fine\ncaf\u00e9 ".encode("cp1252"), r"line 2 is not UTF-8 text \(byte 0xe9\).*encoding UTF-8"),
        (b"one\r\ntwo\rthree\xff", "line 3 is not UTF-8 text"),
        ("abc".encode("utf-16-le"), "line 1 holds a NUL byte"),
        (b"one\ntwo\0", "line 2 holds a NUL byte"),
        (b"\xff\xfea", "line 1 is not UTF-16-LE text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs pointer"),
        (b"\n<!DOCTYPE HTML><title>404</title>", "page of HTML"),
    ],
)
def test_what_is_no_text_is_named_with_its_line_and_never_half_read(tmp_path, data, says):
    path = tmp_path / "p.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=says) as raised:
        read_prompts(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_the_reader_asks_no_locale(tmp_path, monkeypatch):
    import locale

    monkeypatch.setattr(locale, "getpreferredencoding", lambda *a: "cp1252")
    monkeypatch.setattr(locale, "getencoding", lambda: "cp1252")
    path = tmp_path / "p.txt"
    path.write_bytes(TEXT.encode())
    assert text_file(path) == TEXT


def rows_in(tmp_path, text, name="t.csv", columns=("id", "prompt")):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return [row for _, row in csv_rows(path, columns)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_in_every_dialect_and_its_ids_stay_as_they_are(tmp_path, separator, end):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "prompt"], ["007", 'a "red" cup, a fork; a\tknife'], ["7", "two\nlines"]])
    wanted = [{"id": "007", "prompt": 'a "red" cup, a fork; a\tknife'}, {"id": "7", "prompt": "two\nlines"}]
    assert rows_in(tmp_path, buffer.getvalue()) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,prompt\n1,a red cup, and a fork\n", "line 2 has too many columns, 3 and not 2"),
        ("id,prompt\n1,a\n2\n", "line 3 has too few columns"),
        ('id,prompt\n1,"a cup\n2,a fork\n', "is not CSV"),
        ("id,prompt,id\n1,a,2\n", "column 'id' twice"),
        ("id,text\n1,a\n", "no column prompt; its first line is 'id,text'"),
        ("", "no column id, prompt"),
    ],
)
def test_no_cell_of_a_table_is_lost(tmp_path, text, says):
    with pytest.raises(UserError, match=says):
        rows_in(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "a", "prompt": "b"}', "line 2 is not JSON .*'prompt' is given twice"),
        ("[" * 100_000, "line 2 is not JSON .*nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "line 2 is not JSON"),
        ('"' + "x" * 5000 + '"', "line 2 is not a JSON object"),
    ],
)
def test_odd_json_is_one_short_line(tmp_path, line, says):
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(UserError, match=says) as raised:
        list(json_rows(path))
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)


def test_a_message_shows_80_characters_and_no_bytes():
    assert len(shorten("x" * 5000)) == 80 and len(shorten(["y" * 50] * 9)) == 80
    assert shorten({"bytes": b"\x89PNG" * 9, "path": None}) == "{'bytes': <36 bytes>, 'path': None}"


@pytest.mark.parametrize("text", ["a\ud800cat", "a\0cat"])
def test_what_no_tokenizer_takes_is_refused_in_a_prompt(tmp_path, text):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": text}))
    with pytest.raises(UserError, match=r"line 1: `prompt` holds U\+"):
        read_prompts(path)


def test_a_spreadsheets_line_about_its_separator_is_no_header(tmp_path):
    assert rows_in(tmp_path, "sep=;\r\nid;prompt\r\n1;a, b\r\n") == [{"id": "1", "prompt": "a, b"}]
    with pytest.raises(UserError, match="line 3 has too few columns"):
        rows_in(tmp_path, "sep=;\nid;prompt\n1\n")


@pytest.mark.parametrize("text", ["a cat\r\n\x1a", "a \x1b[31mcat", "a\x08cat"])
def test_control_characters_are_no_part_of_a_prompt(tmp_path, text):
    (tmp_path / "p.txt").write_text(text, newline="")
    with pytest.raises(UserError, match=r"line \d holds U\+00"):
        read_prompts(tmp_path / "p.txt")
