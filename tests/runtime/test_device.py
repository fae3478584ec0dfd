import pytest
import torch

from thinkdraw.errors import UserError
from thinkdraw.runtime.device import autocast, cpu_has_bf16, pick_device, set_threads


def test_auto_gives_a_device_that_computes():
    assert torch.ones(2, device=pick_device("auto")).sum().item() == 2


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_a_user_error(name):
    with pytest.raises(UserError, match=f"device={name}"):
        pick_device(name)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_matrix_products(precision, dtype):
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_an_unknown_precision_and_zero_threads_are_user_errors():
    with pytest.raises(UserError, match="precision=fp16"):
        autocast("cpu", "fp16")
    with pytest.raises(UserError, match="num_threads=0"):
        set_threads(0)


def test_bf16_support_is_false_where_torch_offers_no_probe(monkeypatch):
    monkeypatch.setattr(torch, "cpu", object())
    assert cpu_has_bf16() is False
