"""A content hash tells contents apart, and a file is read once as long as nothing speaks of a change."""

import os
import time

import numpy as np
import torch

from thinkdraw.runtime.inputs import hashing
from thinkdraw.runtime.inputs.hashing import Digests, content_digest


def test_parts_are_told_apart_and_order_type_and_shape_count():
    contents = [
        ["ab", "c"],
        ["a", "bc"],
        ["c", "ab"],
        ["ab", "c", ""],
        [torch.zeros(4)],
        [torch.zeros(2, 2)],
        [torch.zeros(4, dtype=torch.int32)],
        [torch.zeros(4, dtype=torch.bfloat16)],
        [{"a": 1, "b": [None, 2.5]}],
        [{"a": 1, "b": [None, 2.6]}],
    ]
    assert len({content_digest(parts) for parts in contents}) == len(contents)
    assert content_digest([{"a": 1, "b": 2}]) == content_digest([{"b": 2, "a": 1}])
    assert content_digest([torch.arange(6).reshape(2, 3).T]) == content_digest(
        [torch.arange(6).reshape(2, 3).T.contiguous()]
    )


def aged(path, data: bytes, seconds: float = 60):
    path.write_bytes(data)
    past = time.time() - seconds
    os.utime(path, (past, past))
    return path


def test_a_file_is_read_again_only_where_its_size_times_or_inode_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "_SETTLED_S", -60.0)  # the inode's own time cannot be set back
    file, memory = aged(tmp_path / "a.bin", b"one"), tmp_path / "hashes.jsonl"
    first = Digests(memory)
    digest = first.of(file)
    first.keep()
    reads = []
    monkeypatch.setattr(hashing.hashlib, "file_digest", lambda *a: reads.append(a) or hashing.hashlib.sha256(b"again"))
    again = Digests(memory)
    assert again.of(file) == digest and not reads
    stat = file.stat()
    os.replace(aged(tmp_path / "b.bin", b"two"), file)  # as long, and of the same time, as a copy may keep it
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert again.of(file) != digest and len(reads) == 1


def test_a_file_that_has_only_just_changed_is_not_remembered(tmp_path):
    digests = Digests(tmp_path / "hashes.jsonl")
    (tmp_path / "a.bin").write_bytes(b"one")
    first = digests.of(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes(b"two")  # within the clock's tick
    assert digests.of(tmp_path / "a.bin") != first
    digests.keep()
    assert not (tmp_path / "hashes.jsonl").exists()


def test_a_memory_that_cannot_be_read_is_made_anew(tmp_path):
    memory = tmp_path / "hashes.jsonl"
    for damaged in (b"\xff\xfe", b"[1]\n", b'{"a": 1}\n', np.random.default_rng(0).bytes(99)):
        memory.write_bytes(damaged)
        assert len(Digests(memory).of(aged(tmp_path / "a.bin", b"one"))) == 64
