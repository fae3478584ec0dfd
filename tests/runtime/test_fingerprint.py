"""Fingerprints of tensors: equal bits have equal ones, and nothing else has."""

import torch

from thinkdraw.runtime import fingerprint as module
from thinkdraw.runtime.fingerprint import fingerprint, fingerprints


def test_one_bit_anywhere_and_the_order_of_elements_change_it(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)  # three parts
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    seen = {fingerprint(weight), fingerprint(weight.flip(0)), fingerprint(weight.roll(8)), fingerprint(weight.t())}
    for place in range(20):
        other = weight.clone().flatten()
        other.view(torch.int32)[place] ^= 1
        seen.add(fingerprint(other))
    assert len(seen) == 24
    assert fingerprint(weight.clone()) == fingerprint(weight.flatten()) == fingerprint(weight)


def test_any_dtype_and_what_compares_oddly_is_told_by_its_bits():
    nan = torch.tensor([float("nan")])
    assert fingerprint(nan) == fingerprint(nan.clone())
    assert fingerprint(torch.zeros(1)) != fingerprint(-torch.zeros(1))
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool):
        ones, zeros = torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype)
        assert fingerprints({"a": ones, "b": zeros, "c": ones[:0]}).keys() == {"a", "b", "c"}
        assert fingerprint(ones) != fingerprint(zeros) == fingerprint(zeros.clone())
