"""The compiled kernels find what torch finds, and rollouts are the same without a compiler."""

import _ctypes
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.policies.suite import PROMPTS, SEEDS, assert_same_rollouts, sampling
from torch import Tensor

from thinkdraw.policies import load_policy
from thinkdraw.policies.fast import cpu_kernels as kernels
from thinkdraw.policies.fast.buffer_pool import BufferPool
from thinkdraw.policies.fast.cpu_cache import CpuCache
from thinkdraw.policies.fast.cpu_kernels import Kernels, kernels_for
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.sampling.cache import KVCache, Layers, Rotation, rotary_signs

CPU = torch.device("cpu")
ROWS, COLUMNS = 3, 24
BEGINS = torch.tensor([9, 4, 0])  # how much each row has read
DTYPES = [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)]


def kernels_of(dtype: torch.dtype, width: int) -> Kernels:
    made = kernels_for(CPU, dtype, width)
    if made is None:
        pytest.skip("no C++ compiler with OpenMP here: the warning says which was tried")
    return made


def cached(dtype: torch.dtype, made: Kernels | None, *, key_heads: int, width: int) -> KVCache:
    """What rows have read, and behind it what is never seen: NaN, and for torch, which multiplies it by 0, a number."""
    torch.manual_seed(0)
    keys, values = torch.randn(2, ROWS, key_heads, COLUMNS, width)
    behind = torch.arange(COLUMNS) >= BEGINS[:, None]
    for buffer in (keys, values):
        buffer.masked_fill_(behind[:, None, :, None], float("nan") if made else 1e30)
    layers = [(keys.to(dtype), values.to(dtype))]
    return KVCache(layers) if made is None else cpu_cache(layers, made)


def cpu_cache(layers: Layers, made: Kernels) -> CpuCache:
    return CpuCache(layers, made, BufferPool())


def new_tokens(dtype: torch.dtype, *, tokens: int, key_heads: int, groups: int, width: int) -> tuple[Tensor, Rotation]:
    torch.manual_seed(1)
    turns = torch.randn(ROWS, tokens, width // 2).repeat(1, 1, 2)
    heads = torch.randn(ROWS, tokens, (groups + 2) * key_heads, width)
    return heads.to(dtype), rotary_signs(turns.cos(), turns.sin())


def found_in(cache: KVCache, begins: Tensor, new: tuple[Tensor, Rotation]) -> Tensor:
    positions = begins[:, None] + torch.arange(new[0].shape[1])
    cache.begin_pass(positions, int(positions.max()) + 1)
    return cache.attend(0, *new, 0.3)


@pytest.mark.parametrize(("dtype", "atol"), DTYPES)
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize(("key_heads", "groups", "width"), [(3, 1, 64), (2, 4, 128), (1, 2, 6)])
def test_attention_finds_and_writes_what_torchs_does(dtype, atol, tokens, key_heads, groups, width):
    ours = cached(dtype, kernels_of(dtype, width), key_heads=key_heads, width=width)
    theirs = cached(dtype, None, key_heads=key_heads, width=width)
    new = new_tokens(dtype, tokens=tokens, key_heads=key_heads, groups=groups, width=width)
    wanted, found = found_in(theirs, BEGINS, new), found_in(ours, BEGINS, new)
    assert torch.allclose(found.float(), wanted.float(), atol=atol)
    for one, other in zip(ours.layers[0], theirs.layers[0]):
        for row, end in enumerate((BEGINS + tokens).tolist()):
            written = (buffer[row, :, :end].float() for buffer in (one, other))
            assert torch.allclose(*written, atol=atol, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5)
            assert one[row, :, end:].isnan().all()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_a_shared_prefix_is_columns_that_stand_before_the_others(dtype, atol):
    made = kernels_of(dtype, 64)
    cache = cached(dtype, made, key_heads=2, width=64)
    new = new_tokens(dtype, tokens=1, key_heads=2, groups=1, width=64)
    prefix = cpu_cache([(torch.randn(1, 2, 7, 64).to(dtype), torch.randn(1, 2, 7, 64).to(dtype))], made)
    lengths = torch.tensor([0, 7, 3])
    both = []
    for before, own in zip(prefix.layers[0], cache.layers[0]):
        rows = [torch.cat([before[0, :, :n], own[r]], dim=1) for r, n in enumerate(lengths.tolist())]
        both.append(torch.stack([F.pad(row, (0, 0, 0, 7 + COLUMNS - row.shape[1])) for row in rows]))
    wanted = found_in(cpu_cache([(both[0], both[1])], made), BEGINS + lengths, new)
    cache.share_prefix(prefix, 1, lengths[1:])  # the first row has none
    found = found_in(cache, BEGINS + lengths, new)
    assert torch.allclose(found.float(), wanted.float(), atol=atol)


def test_what_is_not_a_number_stays_so_where_it_is_seen():
    cache = cached(torch.float32, kernels_of(torch.float32, 64), key_heads=2, width=64)
    cache.layers[0][0][0, 0, 2, 5] = float("nan")
    found = found_in(cache, BEGINS, new_tokens(torch.float32, tokens=1, key_heads=2, groups=1, width=64))
    assert found[0, 0, 0].isnan().all() and found[0, 0, 1].isfinite().all() and found[1:].isfinite().all()


@pytest.mark.parametrize("begins", [[-1, 0, 0], [0, 0, COLUMNS]])
def test_no_column_outside_of_the_cache_is_written(begins):
    cache = cached(torch.float32, kernels_of(torch.float32, 64), key_heads=2, width=64)
    with pytest.raises(IndexError, match="are outside of the cache"):
        found_in(cache, torch.tensor(begins), new_tokens(torch.float32, tokens=1, key_heads=2, groups=1, width=64))


@pytest.mark.parametrize(
    ("number", "stream", "normed"),
    [
        (torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.bfloat16, torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
    ],
)
def test_a_norm_is_torchs_of_the_sum(number, stream, normed):
    torch.manual_seed(0)
    one, change, weight = torch.randn(5, 48).to(stream), torch.randn(5, 48).to(number), torch.randn(48).to(stream)
    for added in (None, change):
        total, found = kernels_of(number, 64).norm(one, added, weight, 1e-3, normed)
        wanted = one if added is None else one + added
        assert total.dtype == stream and found.dtype == normed
        torch.testing.assert_close(total, wanted)
        exact = F.rms_norm(wanted.float(), (48,), weight.float(), 1e-3)
        torch.testing.assert_close(
            found.float(), exact, atol=2e-2 if torch.bfloat16 in (stream, normed) else 1e-6, rtol=1e-2
        )


@pytest.mark.parametrize(("dtype", "atol"), DTYPES)
def test_a_gate_is_silu_times_the_other_half(dtype, atol):
    both = torch.cat([torch.linspace(-100, 100, 300), torch.randn(300)])[None].repeat(4, 1).to(dtype)
    gate, up = both.chunk(2, dim=1)
    for one, other in ((gate, up), (gate.contiguous(), up)):
        found = kernels_of(dtype, 64).gate(one, other)
        wanted = F.silu(gate.float()) * up.float()
        assert found.dtype == dtype and torch.allclose(found.float(), wanted, atol=atol, rtol=1e-2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(random_janus(tmp_path_factory.mktemp("attention") / "policy"))


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_rollouts_are_the_same_without_a_compiler(checkpoint, thought, greedy, monkeypatch):
    policy = load_policy(checkpoint)
    kernels_of(torch.float32, policy.model.config.get_text_config().head_dim)
    settings = sampling(thought, guidance_scale=5.0, greedy=greedy)
    compiled = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    monkeypatch.setattr(kernels, "_kernels", lambda *_: None)
    assert_same_rollouts(policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS), compiled)


@pytest.fixture
def nothing_compiled():
    kernels._kernels.cache_clear()
    yield
    kernels._kernels.cache_clear()


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
        assert kernels_for(CPU, torch.float32, 64) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels_for(CPU, torch.float32, 64) is None


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, r"""CXX='g\+\+ "x' is no command"""),
        ("printf '\\377\\033[2J' >&2; exit 1", r"failed: .\\x1b\[2J"),
        (f'while [ "$1" != -o ]; do shift; done; /bin/cp {_ctypes.__file__} "$2"', "has no function attend"),
        (
            'while [ "$1" != -o ]; do shift; done; echo no library > "$2"',
            "invalid ELF header|file too short|not a mach-o",
        ),
    ],
)
@pytest.mark.usefixtures("nothing_compiled")
def test_an_odd_compiler_costs_time_and_no_run(tmp_path, monkeypatch, script, said):
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", 'g++ "x' if script is None else str(compiler))
    with pytest.warns(UserWarning, match=said):
        assert kernels_for(CPU, torch.float32, 64) is None


def test_only_a_cpu_and_only_its_numbers_have_kernels():
    assert kernels_for(torch.device("cuda"), torch.float32, 64) is None
    assert kernels_for(CPU, torch.float64, 64) is None and kernels_for(CPU, torch.float16, 64) is None
