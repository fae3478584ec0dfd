import errno
import math
import os
import subprocess
import sys

import pytest

from thinkdraw.errors import UserError
from thinkdraw.runtime import files


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_written_file_holds_the_text_and_leaves_nothing_beside_it(tmp_path):
    files.atomic_write_text(tmp_path / "new" / "a.txt", "pelican ×")
    files.atomic_write_text(tmp_path / "new" / "a.txt", "heron")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "heron"
    assert names(tmp_path / "new") == ["a.txt"]


def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    files.atomic_write_bytes(path, b"old")
    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"a\.bin: No space left on device\. Free space"):
        files.atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_a_block_that_raises_keeps_the_old_file(tmp_path):
    files.atomic_write_text(tmp_path / "a", "old")
    with pytest.raises(KeyError), files.atomic_file(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        files.atomic_write_json(tmp_path / "a.json", {"loss": math.nan})
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_a_user_error(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="runs"):
        files.atomic_write_text(tmp_path / "runs" / "a", "x")
    with pytest.raises(UserError, match="runs"), files.atomic_directory(tmp_path / "runs" / "a"):
        pass


def test_a_directory_appears_only_when_the_block_ends(tmp_path):
    path = tmp_path / "step_000001"
    with files.atomic_directory(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_text("1")
        assert not path.exists()
    assert (path / "sub" / "weights").read_text() == "1" and names(tmp_path) == ["step_000001"]


def test_a_directory_replaces_an_existing_one_as_a_whole(tmp_path):
    path = tmp_path / "d"
    for name in ("first", "second"):
        with files.atomic_directory(path) as folder:
            (folder / name).write_text(name)
    assert names(path) == ["second"] and names(tmp_path) == ["d"]


def test_a_directory_whose_block_raises_leaves_the_old_one(tmp_path):
    path = tmp_path / "d"
    with files.atomic_directory(path) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), files.atomic_directory(path) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert (path / "a").read_text() == "old" and names(tmp_path) == ["d"]


def test_a_failed_rename_puts_the_old_directory_back(tmp_path, monkeypatch):
    path = tmp_path / "d"
    with files.atomic_directory(path) as folder:
        (folder / "a").write_text("old")
    rename = files.Path.rename

    def refuse_the_new_one(self, target):
        if self.name.endswith(".tmp"):
            full_disk()
        return rename(self, target)

    monkeypatch.setattr(files.Path, "rename", refuse_the_new_one)
    with pytest.raises(UserError, match="Free space"), files.atomic_directory(path) as folder:
        (folder / "a").write_text("new")
    assert (path / "a").read_text() == "old" and names(tmp_path) == ["d"]


def test_a_full_disk_inside_the_block_is_a_user_error_but_a_missing_input_is_not(tmp_path):
    with pytest.raises(UserError, match="Free space"), files.atomic_directory(tmp_path / "d"):
        full_disk()
    with pytest.raises(FileNotFoundError), files.atomic_directory(tmp_path / "d"):
        (tmp_path / "input").read_text()


def in_another_process(code, *args):
    """The same with a process of its own, as in another container: ids tell nothing about it."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)


WRITES_UNTIL_KILLED = """
import sys, time
from thinkdraw.runtime import files
with files.only_writer(sys.argv[1]), files.atomic_directory(sys.argv[1] + "/d") as folder:
    (folder / "half").write_text("")
    with files.atomic_file(sys.argv[1] + "/f") as file:
        file.write_text("half")
        print("writing", flush=True)
        time.sleep(60)
"""


def test_a_live_writer_is_spared_and_refuses_a_second_one_until_it_is_killed(tmp_path):
    writer = in_another_process(WRITES_UNTIL_KILLED, tmp_path)
    assert writer.stdout and writer.stdout.readline() == "writing\n"
    files.sweep_leftovers(tmp_path)
    with files.atomic_directory(tmp_path / "e"):
        pass
    suffixes = [".lock", ".lock", ".lock", ".tmp", ".tmp"]
    assert sorted(entry.suffix for entry in tmp_path.iterdir()) == ["", *suffixes]
    with pytest.raises(UserError, match=rf"written to by process {writer.pid} on .*Wait until it has ended"):
        with files.only_writer(tmp_path):
            pass
    writer.kill()
    writer.wait()
    with files.only_writer(tmp_path):
        assert names(tmp_path) == [".writer.lock", "e"]
    assert names(tmp_path) == ["e"]


def test_a_folder_has_one_writer_also_within_a_process_and_an_unused_one_is_removed(tmp_path):
    with files.only_writer(tmp_path / "a" / "b"):
        with pytest.raises(UserError, match="is being written to by process"), files.only_writer(tmp_path / "a" / "b"):
            pass
        assert names(tmp_path / "a" / "b") == [".writer.lock"]
    assert names(tmp_path) == []
    with files.only_writer(tmp_path / "a"):
        (tmp_path / "a" / "kept").touch()
    assert names(tmp_path / "a") == ["kept"]


def test_a_forked_child_does_not_hold_its_parents_folder(tmp_path):
    with files.only_writer(tmp_path):
        ready, go = os.pipe()
        if (child := os.fork()) == 0:
            os.read(ready, 1)
            os._exit(0)
    with files.only_writer(tmp_path):  # the child lives still
        pass
    os.write(go, b"x")
    os.waitpid(child, 0)


def test_a_disk_without_locks_is_told_of_and_written_to(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.warns(UserWarning, match="has no locks"), files.only_writer(tmp_path):
        with files.atomic_directory(tmp_path / "d"), files.atomic_file(tmp_path / "f") as file:
            files.sweep_leftovers(tmp_path)
            file.write_text("whole")
    assert names(tmp_path) == ["d", "f"] and (tmp_path / "f").read_text() == "whole"


def test_leftovers_of_earlier_versions_are_removed_whatever_process_has_their_number(tmp_path):
    (tmp_path / f".d.{os.getpid()}-0a.tmp").mkdir()
    (tmp_path / f".d.{os.getppid()}-0b.tmp").touch()
    (tmp_path / ".d.notes.tmp").touch()  # not ours
    with files.atomic_directory(tmp_path / "d"):
        pass
    assert names(tmp_path) == [".d.notes.tmp", "d"]


def test_a_directory_that_a_killed_writer_had_moved_aside_comes_back(tmp_path):
    aside = tmp_path / ".d.0a.old"
    aside.mkdir()
    (aside / "a").write_text("old")
    files.sweep_leftovers(tmp_path)
    assert names(tmp_path) == ["d"] and (tmp_path / "d" / "a").read_text() == "old"
