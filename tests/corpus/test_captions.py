import json
import os
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.corpus.helpers import picture_folder
from tests.corpus.test_sources import add, png

from thinkdraw.corpus.captions import BARE, SEVERAL, caption_of
from thinkdraw.corpus.files import HIDDEN, OUTSIDE
from thinkdraw.corpus.sources import DatasetSource, FolderSource, Item, WebdatasetSource
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt


def read(source):
    """What a source gives, and its counts without zeros."""
    counts = Counter()
    items = list(source.items(counts))
    return [(item.id, item.prompt.text) for item in items], {name: n for name, n in counts.items() if n}


def tar_of(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add(tar, name, data)
    return path


@pytest.mark.parametrize(
    ("value", "caption"),
    [
        (None, ""), ("", ""), ("  a cat\n", "a cat"), (b"a caf\xc3\xa9", "a café"), ("\ufeffa cat".encode(), "a cat"),
        ("a cat".encode("utf-16"), "a cat"), (["", "a cat", "a dog"], "a cat"), ([], ""), ((b"a cat",), "a cat"),
    ],
)  # fmt: skip
def test_a_caption_is_a_text_bytes_or_the_first_of_a_list(value, caption):
    counts = Counter()
    assert caption_of(value, "row 1", counts) == caption
    assert counts[SEVERAL] == (isinstance(value, list) and len(value) == 3)


@pytest.mark.parametrize(
    "value", [{"en": "a cat"}, 3, True, 1.5, [{"en": "a cat"}], "a\0cat", "caf\u00e9".encode("cp1252")]
)
def test_what_is_no_caption_is_refused_and_not_written_out(value):
    with pytest.raises(UserError, match="row 1"):
        caption_of(value, "row 1", Counter())


def test_every_file_of_a_folder_is_read_or_counted(tmp_path):
    folder = picture_folder(tmp_path / "p", 5)
    (folder / "000.TXT").write_bytes("\ufeffa cat".encode())
    (folder / "001.caption").write_text("a dog")
    (folder / "002.json").write_text('{"width": 3}')
    (folder / "003.txt").write_text(" \n")
    (folder / "003.json").write_text('{"caption": ["a ring", "a star"]}')
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "004.png", "text": "a cube"}\n{"file_name": "gone.png", "text": "x"}\n'
    )
    for name in ("._000.png", ".DS_Store", "README.txt", "notes.md", "LICENSE", "film.mp4"):
        (folder / name).write_bytes(b"x")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "a.png").write_bytes(png(1))
    items, counts = read(FolderSource(path=folder))
    assert items == [
        ("000.png", "a cat"), ("001.png", "a dog"), ("002.png", ""), ("003.png", "a ring"), ("004.png", "a cube"),
    ]  # fmt: skip
    assert counts == {
        "read": 5, BARE: 1, SEVERAL: 1, "rows of metadata.jsonl about no picture": 1, HIDDEN: 2, "texts of no picture": 1,
        "hidden folders left out": 1, ".md not read": 1, "without suffix not read": 1, ".mp4 not read": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_captions_of_a_metadata_file_are_read_in_each_of_its_forms(tmp_path, name):
    sub = picture_folder(tmp_path / "p" / "sub", 2)
    rows = [{"file_name": f"00{n}.png", "text": f"caption {n}"} for n in range(2)]
    if name.endswith("jsonl"):
        (sub / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith("csv"):
        (sub / name).write_text("file_name,text\n" + "".join(f"{r['file_name']},{r['text']}\n" for r in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), sub / name)
    items, _ = read(FolderSource(path=tmp_path / "p"))
    assert items == [("sub/000.png", "caption 0"), ("sub/001.png", "caption 1")]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("000.txt", "caf\u00e9".encode("cp1252"), r"000\.txt line 1 is not UTF-8 text"),
        ("000.json", b"{", r"000\.json is not JSON"),
        ("000.json", b'{"caption": {"en": "a cat"}}', r"000\.json: the caption is \{'en'"),
        ("metadata.jsonl", b'{"text": "a cat"}\n', "line 1 has no `file_name`"),
        ("metadata.jsonl", b'{"file_name": "000.png", "text": "a"}\n{"file_name": "000.png", "text": "b"}\n', "line 2"),
    ],
)
def test_a_caption_that_cannot_be_read_is_refused_with_its_file(tmp_path, file, content, says):
    folder = picture_folder(tmp_path / "p", 1)
    (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=says):
        read(FolderSource(path=folder))


def test_links_out_of_a_folder_are_left_out_and_counted(tmp_path):
    folder = picture_folder(tmp_path / "p", 1)
    (tmp_path / "secret.txt").write_text("private")
    (tmp_path / "secret.png").write_bytes(png(1))
    (folder / "000.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "001.png").symlink_to(tmp_path / "secret.png")
    (folder / "002.png").symlink_to(folder / "000.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "away").symlink_to(tmp_path)
    items, counts = read(FolderSource(path=folder))
    assert items == [("000.png", ""), ("002.png", "")]
    assert counts[OUTSIDE] == 3 and counts["linked folders left out"] == 1
    with pytest.raises(UserError, match="outside"):
        FolderSource(path=folder).picture(Item(0, "x", Prompt(""), True, "001.png"))


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    folder = picture_folder(tmp_path / "p", 1)
    try:
        os.rename(os.fsencode(folder / "000.png"), os.fsencode(folder) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UserError, match="not UTF-8"):
        read(FolderSource(path=folder))


def test_samples_whose_members_stand_apart_keep_their_captions(tmp_path):
    apart = tar_of(tmp_path / "a.tar", ("1.png", png(1)), ("2.png", png(2)), ("1.txt", b"one"), ("./2.txt", b"two"))
    items, counts = read(WebdatasetSource(path=apart))
    assert items == [("a.tar/1", "one"), ("a.tar/2", "two")] and counts == {"read": 2}


def test_every_member_of_a_tar_is_read_or_counted(tmp_path):
    link = tarfile.TarInfo("7.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = tar_of(
        tmp_path / "a.tar", ("._1.png", b"x"), ("1.png", png(1)), ("._1.txt", b"x"), ("1.TXT", "\ufeffone".encode()),
        ("1.cls", b"3"), ("2.txt", b"alone"), ("3.jpg", png(3)), ("3.png", png(4)), ("3.seg.png", png(5)),
        ("__MACOSX/1.png", b"x"), ("1.png", png(9)),
    )  # fmt: skip
    with tarfile.open(path, "a") as tar:
        tar.addfile(link)
    (tmp_path / "b.tar.gz").write_bytes(b"")
    items, counts = read(WebdatasetSource(path=tmp_path))
    assert items == [("a.tar/1", "one"), ("a.tar/3", ""), ("a.tar/3.png", "")]
    assert counts == {
        "read": 3, BARE: 2, HIDDEN: 3, "links and sparse members left out": 1,
        ".cls not read": 1, ".seg.png not read": 1, ".gz not read": 1,
        "texts of no picture": 1, "members replaced by later ones of the same name": 1,
    }  # fmt: skip


@pytest.mark.parametrize("damage", ["joined", "header"])
def test_a_tar_that_ends_early_is_refused_and_not_half_read(tmp_path, damage):
    path = tar_of(tmp_path / "a.tar", *((f"{n}.png", png(n)) for n in range(4)))
    data = path.read_bytes()
    path.write_bytes(data + data if damage == "joined" else data[:1024] + b"x" * 512 + data[1536:])
    with pytest.raises(UserError, match="goes on after its end"):
        read(WebdatasetSource(path=path))


def data_set(tmp_path, cells, captions=None):
    rows = {"image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    folder = tmp_path / "set"
    folder.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table(rows | ({"text": captions} if captions else {})), folder / "train-0.parquet")
    return folder


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_data_set_reads_pictures_of_its_own_folder_only(tmp_path, own_cache):
    (tmp_path / "set").mkdir()
    for name in ("secret.png", "set/own.png"):
        (tmp_path / name).write_bytes(png(1))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    paths = [
        "own.png",
        str(tmp_path / "set" / "own.png"),
        str(tmp_path / "secret.png"),
        "../secret.png",
        "link.png",
        "gone",
    ]
    source = DatasetSource(path=str(data_set(tmp_path, [{"bytes": None, "path": path} for path in paths])))
    items = list(source.items())
    assert [source.picture(item) for item in items[:2]] == [png(1)] * 2
    for item in items[2:]:
        with pytest.raises(OSError, match="is not a file of the data set"):
            source.picture(item)


def test_cells_of_captions_are_counted_or_refused(tmp_path, own_cache):
    cells = [{"bytes": png(n), "path": None} for n in range(3)]
    path = str(data_set(tmp_path, cells, [["a", "b"], [], None]))
    items, counts = read(DatasetSource(path=path, caption="text"))
    assert [text for _, text in items] == ["a", "", ""] and counts == {"read": 3, BARE: 2, SEVERAL: 1}
    path = str(data_set(tmp_path / "other", cells, [{"en": "a"}, None, None]))
    with pytest.raises(UserError, match=r"row 1, text: the caption is \{'en': 'a'\}"):
        read(DatasetSource(path=path, caption="text"))
