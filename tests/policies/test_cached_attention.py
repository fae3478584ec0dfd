"""The compiled attention finds what torch's finds, and rollouts are the same without a compiler."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from thinkdraw.policies import cached_attention, load_policy
from thinkdraw.policies.cached_attention import Kernel, kernel_for
from thinkdraw.policies.tiny import random_janus

from .suite import PROMPTS, SEEDS, assert_same_rollouts, sampling

CPU = torch.device("cpu")
ROWS, COLUMNS, BEGIN = 3, 24, 9
SEES = torch.tensor([[True] * BEGIN, [True] * 4 + [False] * 5, [True, False, True] * 3])  # of the columns before


def kernel_of(dtype: torch.dtype, width: int) -> Kernel:
    kernel = kernel_for(CPU, dtype, width)
    if kernel is None:
        pytest.skip("no C++ compiler with OpenMP here: the warning says which was tried")
    return kernel


def states(dtype: torch.dtype, *, tokens: int, key_heads: int, groups: int, width: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    turns = torch.randn(ROWS, tokens, width // 2).repeat(1, 1, 2)
    cos, sin = cached_attention.turning(turns.cos(), turns.sin())
    keys, values = torch.randn(2, ROWS, key_heads, COLUMNS, width)
    for buffer in (keys, values):  # what no row sees may be anything
        buffer[:, :, BEGIN:] = float("nan")
        buffer[:, :, :BEGIN].masked_fill_(~SEES[:, None, :, None], 1e30)
    heads = torch.randn(ROWS, tokens, (groups + 2) * key_heads, width)
    return {
        "heads": heads.to(dtype),
        "cos": cos,
        "sin": sin,
        "keys": keys.to(dtype),
        "values": values.to(dtype),
    }


def visible_in(tokens: int) -> Tensor:
    """(ROWS, COLUMNS) bool."""
    seen = torch.ones(ROWS, tokens, dtype=torch.bool)
    return torch.cat([SEES, seen, torch.zeros(ROWS, COLUMNS - BEGIN - tokens, dtype=torch.bool)], dim=1)


def by_torch(given: dict[str, Tensor], tokens: int, scale: float) -> Tensor:
    visible = visible_in(tokens)[:, None, : BEGIN + tokens].repeat(1, tokens, 1)
    visible[..., BEGIN:] &= torch.ones(tokens, tokens, dtype=torch.bool).tril()
    angles = (given["cos"], given["sin"])
    return cached_attention.attend(
        given["heads"], angles, given["keys"], given["values"], visible[:, None], BEGIN, scale
    )


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize(("key_heads", "groups", "width"), [(3, 1, 64), (2, 4, 128), (1, 2, 6)])
def test_it_finds_and_writes_what_torch_does(dtype, atol, tokens, key_heads, groups, width):
    kernel, shape = kernel_of(dtype, width), {"key_heads": key_heads, "groups": groups, "width": width}
    ours, theirs = states(dtype, tokens=tokens, **shape), states(dtype, tokens=tokens, **shape)
    wanted = by_torch(theirs, tokens, scale=0.3)
    angles = (ours["cos"], ours["sin"])
    found = kernel(ours["heads"], angles, ours["keys"], ours["values"], visible_in(tokens), BEGIN, None, 0.3)
    assert torch.allclose(found.float(), wanted.float(), atol=atol)
    for name in ("keys", "values"):
        written = (part[name][:, :, : BEGIN + tokens].float() for part in (ours, theirs))
        assert torch.allclose(*written, atol=atol, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5)
        assert ours[name][:, :, BEGIN + tokens :].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stem_is_columns_that_stand_before_the_others(dtype):
    kernel, given = kernel_of(dtype, 64), states(dtype, tokens=1, key_heads=2, groups=1, width=64)
    stem_keys, stem_values = torch.randn(2, 2, 7, 64).to(dtype)
    stem_lengths = torch.tensor([7, 3, 0])
    angles = (given["cos"], given["sin"])
    stem = (stem_keys, stem_values, stem_lengths)
    copied = {
        name: torch.cat([own.expand(ROWS, -1, -1, -1), given[name]], dim=2).contiguous()
        for name, own in (("keys", stem_keys), ("values", stem_values))
    }
    visible = torch.cat([torch.arange(7) < stem_lengths[:, None], visible_in(1)], dim=1)
    wanted = kernel(given["heads"], angles, copied["keys"], copied["values"], visible, BEGIN + 7, None, 0.3)
    found = kernel(given["heads"], angles, given["keys"], given["values"], visible_in(1), BEGIN, stem, 0.3)
    assert torch.allclose(found.float(), wanted.float(), atol=1e-6 if dtype == torch.float32 else 1e-2)


def test_what_is_not_a_number_stays_so_where_it_is_seen_and_seeing_nothing_is_zero():
    kernel, given = kernel_of(torch.float32, 64), states(torch.float32, tokens=1, key_heads=2, groups=1, width=64)
    given["keys"][0, 0, 2, 5] = float("nan")
    visible = visible_in(1)
    visible[1] = False
    found = kernel(
        given["heads"], (given["cos"], given["sin"]), given["keys"], given["values"], visible, BEGIN, None, 0.3
    )
    assert found[0, 0, 0].isnan().all() and found[0, 0, 1].isfinite().all()
    assert (found[1] == 0).all() and found[2].isfinite().all()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(random_janus(tmp_path_factory.mktemp("attention") / "policy"))


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_rollouts_are_the_same_without_a_compiler(checkpoint, thought, greedy, monkeypatch):
    policy = load_policy(checkpoint)
    kernel_of(torch.float32, policy.model.config.get_text_config().head_dim)
    settings = sampling(thought, guidance_scale=5.0, greedy=greedy)
    compiled = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    monkeypatch.setattr(cached_attention, "_kernel", lambda *_: None)
    assert_same_rollouts(policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS), compiled)


@pytest.fixture
def nothing_compiled():
    cached_attention._kernel.cache_clear()
    yield
    cached_attention._kernel.cache_clear()


@pytest.mark.parametrize("compiler", ["", "false", "missing"])
@pytest.mark.usefixtures("nothing_compiled")
def test_a_missing_or_failing_compiler_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str):
    failing = tmp_path / "false"
    failing.write_text("#!/bin/sh\necho 'unknown option' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / compiler) if compiler else "")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = {"": "no C\\+\\+ compiler found", "false": "unknown option", "missing": "No such file"}[compiler]
    with pytest.warns(UserWarning, match=said):
        assert kernel_for(CPU, torch.float32, 64) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernel_for(CPU, torch.float32, 64) is None


def test_only_a_cpu_and_only_its_numbers_have_a_kernel():
    assert kernel_for(torch.device("cuda"), torch.float32, 64) is None
    assert kernel_for(CPU, torch.float64, 64) is None and kernel_for(CPU, torch.float16, 64) is None
