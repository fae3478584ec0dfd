import pytest
import torch
from safetensors.torch import save_file

from thinkdraw.runtime.inputs.tensor_files import read_tensors, write_tensors

TOKENS = torch.arange(12, dtype=torch.int32).to(torch.uint16).view(3, 4)


def test_what_was_written_is_read(tmp_path):
    write_tensors(tmp_path / "kept", {"tokens": TOKENS}, {"made_of": "x"})
    tensors, about = read_tensors(tmp_path / "kept")
    assert torch.equal(tensors["tokens"].int(), TOKENS.int()) and about["made_of"] == "x"


def test_a_flipped_bit_in_a_cache_is_named_and_not_trained_on(tmp_path):
    file = tmp_path / "kept"
    write_tensors(file, {"tokens": TOKENS}, {"made_of": "x"})
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_tensors(file)


def test_a_file_that_is_cut_off_says_so_in_words(tmp_path):
    write_tensors(tmp_path / "kept", {"tokens": TOKENS}, {})
    (tmp_path / "kept").write_bytes((tmp_path / "kept").read_bytes()[:-5])
    with pytest.raises(ValueError, match="cannot be read"):
        read_tensors(tmp_path / "kept")


def test_an_older_file_without_a_digest_still_opens(tmp_path):
    save_file({"tokens": TOKENS}, tmp_path / "kept", {"made_of": "x"})
    assert read_tensors(tmp_path / "kept")[1] == {"made_of": "x"}
