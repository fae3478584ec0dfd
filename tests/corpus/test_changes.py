"""A corpus that goes on takes up what its source holds now, pays only for what is new, and never mixes two pictures."""

import logging
import os
import shutil
import tarfile

import pytest
from PIL import Image
from tests.corpus.helpers import picture_folder, rows_of, settings_of, write_with
from tests.corpus.teacher_stub import TeacherStub

from thinkdraw.corpus.queue import Queue
from thinkdraw.corpus.sources import FolderSource
from thinkdraw.corpus.teachers.endpoint import EndpointTeacher
from thinkdraw.corpus.writing import CONFIG, WORK, write
from thinkdraw.errors import HeldError, UserError


@pytest.fixture
def stub():
    with TeacherStub(canned=True).running() as running:
        yield running


def redrawn(file):
    Image.new("RGB", (20, 16), "red").save(file)


def ids(out):
    return [row["id"] for row in rows_of(out)]


def test_new_pictures_come_last_and_only_they_are_asked_about(tmp_path, stub, caplog):
    source = {"kind": "folder", "path": str(picture_folder(tmp_path / "pictures", 3))}
    write_with(stub, tmp_path / "out", source=source)
    redrawn(tmp_path / "pictures" / "000-new.png")
    with caplog.at_level(logging.WARNING):
        out = write_with(stub, tmp_path / "out", source=source)
    assert ids(out) == ["000.png", "001.png", "002.png", "000-new.png"] and len(stub.requests) == 4
    assert "1 new items come last: 000-new.png" in caplog.text


@pytest.mark.parametrize("change", ["picture", "caption"])
def test_what_changed_is_asked_about_again_and_the_row_has_the_new_picture(tmp_path, stub, caplog, change):
    folder = picture_folder(tmp_path / "pictures", 3)
    source = {"kind": "folder", "path": str(folder)}
    write_with(stub, tmp_path / "out", source=source)
    if change == "picture":
        stat = (folder / "001.png").stat()
        redrawn(folder / "001.png")
        os.utime(folder / "001.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        (folder / "001.txt").write_text("a caption")
    with caplog.at_level(logging.WARNING):
        out = write_with(stub, tmp_path / "out", source=source)
    assert len(stub.requests) == 4 and "1 items have changed and are asked about again: 001.png" in caplog.text
    assert rows_of(out)[1]["image"]["bytes"] == (folder / "001.png").read_bytes()
    with Queue(out / WORK) as queue:
        assert queue.counts().requests == 4  # what was paid stays counted
    caplog.clear()
    assert ids(write_with(stub, tmp_path / "out", source=source)) == ["000.png", "001.png", "002.png"]
    assert len(stub.requests) == 4 and "again" not in caplog.text


def test_times_and_places_of_files_alone_change_nothing(tmp_path, stub):
    folder = picture_folder(tmp_path / "pictures", 3)
    source = {"kind": "folder", "path": str(folder)}
    write_with(stub, tmp_path / "out", source=source)
    for file in folder.iterdir():
        os.utime(file)
    write_with(stub, tmp_path / "out", source=source)
    assert len(stub.requests) == 3


def packed(tar, folder, names):
    with tarfile.open(tar, "w") as opened:
        for name in names:
            opened.add(folder / name, name)
    return {"kind": "webdataset", "path": str(tar)}


def test_a_tar_that_is_packed_anew_gives_each_row_its_own_picture(tmp_path, stub):
    folder, tar = picture_folder(tmp_path / "pictures", 3), tmp_path / "a.tar"
    write_with(stub, tmp_path / "out", source=packed(tar, folder, ["000.png", "001.png", "002.png"]))
    out = write_with(stub, tmp_path / "out", source=packed(tar, folder, ["002.png", "000.png", "001.png"]))
    assert len(stub.requests) == 3
    for row, name in zip(rows_of(out), ("000.png", "001.png", "002.png"), strict=True):
        assert row["image"]["bytes"] == (folder / name).read_bytes()


def test_items_that_are_gone_are_named_and_nothing_changes(tmp_path, stub):
    folder = picture_folder(tmp_path / "pictures", 3)
    source = {"kind": "folder", "path": str(folder)}
    out = write_with(stub, tmp_path / "out", source=source)
    before = rows_of(out)
    (folder / "001.png").unlink()
    with pytest.raises(HeldError, match=r"lacks 1 items that it had before: 001\.png\. Put them back"):
        write_with(stub, tmp_path / "out", source=source)
    assert rows_of(out) == before and (out / CONFIG).exists() and (out / WORK).exists()


def test_a_picture_that_changes_while_it_is_written_about_stops_the_run_which_asks_again(tmp_path, stub):
    folder = picture_folder(tmp_path / "pictures", 2)
    source = {"kind": "folder", "path": str(folder)}

    def change(status):
        if not status.counts.waiting:
            redrawn(folder / "000.png")

    settings = settings_of(tmp_path / "out", stub.url, source=source)
    with pytest.raises(HeldError, match=r"000\.png changed while the teacher wrote about it"):
        write(settings, EndpointTeacher(settings.teacher), show=change)
    out = write_with(stub, tmp_path / "out", source=source)
    assert rows_of(out)[0]["image"]["bytes"] == (folder / "000.png").read_bytes() and len(stub.requests) == 3


def test_a_start_without_an_answer_holds_nobody_and_leaves_nothing(tmp_path, stub):
    first = {"kind": "folder", "path": str(picture_folder(tmp_path / "first", 2))}
    with TeacherStub(statuses=(401,) * 9).running() as refusing, pytest.raises(UserError, match="Check key"):
        write_with(refusing, tmp_path / "out", source=first)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with Queue(tmp_path / "out" / WORK) as queue:  # killed before the first answer
        queue.fill(FolderSource(path=picture_folder(tmp_path / "killed", 4)).items())
    second = {"kind": "folder", "path": str(picture_folder(tmp_path / "second", 3))}
    assert len(rows_of(write_with(stub, tmp_path / "out", source=second))) == 3


def test_a_queue_of_before_knows_no_contents_and_goes_on(tmp_path, stub):
    folder = picture_folder(tmp_path / "pictures", 2)
    source = {"kind": "folder", "path": str(folder)}
    out = write_with(stub, tmp_path / "out", source=source)
    with Queue(out / WORK) as queue:
        queue._db.execute("DROP TABLE seen")
    shutil.copy(folder / "000.png", folder / "002.png")
    assert ids(write_with(stub, tmp_path / "out", source=source)) == ["000.png", "001.png", "002.png"]
    assert len(stub.requests) == 3
