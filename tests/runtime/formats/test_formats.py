import json
import sqlite3

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from thinkdraw.errors import UserError, printable
from thinkdraw.runtime import formats

BOMB = "\n".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10) if i else '1'}]" for i in range(9))  # 10^8 values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "aliases that stand for more than 100,000 values"),
        ("a: &a [*a]", "an alias inside what it stands for"),
        ("a: " + "[" * 5000, "nested more than 64 levels"),
        ("a: " + "[" * 70 + "]" * 70, "nested more than 64 levels"),
        ("- " * 100_000, "nested more than 64 levels"),
        ("a" * (1 << 20) + ": 1", "1,048,579 characters"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!timestamp 2001-99-99", "could not determine a constructor"),
        ("a: 0x_", "invalid literal"),
        ("a: .inf", "where a finite number is needed"),
        ("a: 1e999", "where a finite number is needed"),
        ("a: 99999999999999999999", "more than 64 bits"),
        ("? [1, 2]\n: 3", "a key that is no word"),
        ('a: "\\ud800"', "a character that no text has"),
        ('a: "\\0"', "a character that no text has"),
        ("a: \x1b[31m", "unacceptable character"),
        ("a: 1\na: 2", "key 'a' is given twice"),
    ],
)
def test_yaml_that_is_large_deep_or_odd_is_one_line(text, says):
    with pytest.raises(ValueError) as caught:
        formats.parse_yaml(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_few_aliases_and_merges_are_read():
    assert formats.parse_yaml("x: &y {a: 1}\nz: {<<: *y, b: 2}\nd: 2024-01-01")["z"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[NaN]", "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ("1e999", "too large"),
        ('{"a": "\\uD800x"}', "half of a character"),
        ("[" * 100_000, "nested"),
        ("[" * 70 + "]" * 70, "nested more than 64"),
        ("9" * 5000, "4300 digits"),
        (b"\xff\xfe", "utf-8"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_is_not_json_is_refused_for_its_reason(text, says):
    with pytest.raises(ValueError, match=says):
        formats.parse_json(text)


@pytest.mark.parametrize("read", [formats.read_json, formats.read_yaml, formats.read_parquet, formats.read_safetensors])
@pytest.mark.parametrize("data", [b"", b"\x00\xff{[", b"- [PAR1" * 9, bytes(range(256)) * 5, None])
def test_whatever_a_reader_says_of_a_damaged_file_is_one_line_with_its_name(tmp_path, read, data):
    path = tmp_path / "file"
    if data is None:
        path.mkdir()
    else:
        path.write_bytes(data)
    if read is formats.read_yaml and data == b"":
        return
    with pytest.raises(UserError) as caught:
        read(path, "Restore it.")
    assert str(path) in str(caught.value) and str(caught.value).endswith(". Restore it.")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_page_of_parquet_is_found_where_pages_have_checksums(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"a": list(range(1000))}), path, compression="none", use_dictionary=False, write_page_checksum=True
    )
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"t\.parquet cannot be read"):
        formats.read_parquet(path, "Restore it.")


def test_good_files_are_read_as_they_are(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [1, 2.5, None, "é"]}))
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    assert formats.read_json_object(tmp_path / "a.json", "") == {"a": [1, 2.5, None, "é"]}
    assert formats.read_safetensors(tmp_path / "a.safetensors", "")["w"].tolist() == [1, 1]


def test_the_way_out_of_sqlite_follows_from_what_is_the_matter():
    def says(error):
        return str(formats.sqlite_problem("c.sqlite", error, "paid verdicts"))

    assert "free space" in says(sqlite3.OperationalError("database or disk is full"))
    assert "Another process" in says(sqlite3.OperationalError("database is locked"))
    assert "move it away" in says(sqlite3.DatabaseError("file is not a database"))
    assert "permissions" in says(OSError(13, "Permission denied"))


def test_what_strangers_wrote_is_printed_on_one_line_whatever_it_holds():
    assert printable("a\x1b[2Jb\nc\u202ed\ud800") == "a\\x1b[2Jb\\nc\\u202ed\\ud800"
    assert printable("ein Häschen 🐇") == "ein Häschen 🐇"
