"""The adapters to mamba-ssm's and causal-conv1d's kernels, with those packages' formulas in place.

What the C++ of a kernel insists on, its stand-in insists on here; a `gpu` test runs the kernels.
"""

import ast
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid.ops import cuda, native, reference

SCAN_NAMES = ("u", "raw", "bias", "a", "b", "c", "d", "gate", "h")
CONV_NAMES = ("x", "weight", "bias", "tail")
# The packages' formulas compute in float32, as their kernels do.
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 2e-2}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cache
def mamba_ssm(path: str, name: str) -> Callable:
    """Return one function of mamba-ssm's source, which cannot be imported without its kernels.

    `tests/test_scan_parity.py` says how to get it.
    """
    found = importlib.util.find_spec("mamba_ssm")
    if found is None or found.origin is None:
        pytest.skip("mamba-ssm's source is not there; tests/test_scan_parity.py says how to get it")
    einops = pytest.importorskip("einops", reason="mamba-ssm's formulas need einops")
    tree = ast.parse((Path(found.origin).parent / path).read_text(encoding="utf-8"))
    function = next(x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == name)
    names = {"torch": torch, "F": F, "rearrange": einops.rearrange, "repeat": einops.repeat}
    exec(compile(ast.Module([function], []), name, "exec"), names)
    return names[name]


class LikeTheKernel(torch.autograd.Function):
    """One node with both outputs, which does not consider the gradient of the second."""

    @staticmethod
    def forward(ctx, y, last):
        return y.view_as(y), last.view_as(last)

    @staticmethod
    def backward(ctx, gy, *_):
        return gy, None


def scan_standin(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state):
    assert {x.dtype for x in (u, delta, B, C)} == {u.dtype}
    assert {x.dtype for x in (A, D, delta_bias)} == {torch.float32}
    published = mamba_ssm("ops/selective_scan_interface.py", "selective_scan_ref")
    y, last = published(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
    return LikeTheKernel.apply(y, last)


def scan_update_standin(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus):
    assert state.dtype == torch.float32
    path, name = "ops/triton/selective_state_update.py", "selective_state_update_ref"
    wide = (each.float() for each in (x, dt, A, B, C, D, z, dt_bias))
    return mamba_ssm(path, name)(state, *wide, dt_softplus).to(x.dtype)


def conv_standin(x, weight, bias, initial_states=None, activation=None):
    """causal_conv1d_ref, without what is not called, and the checks of causal_conv1d.cpp."""
    assert activation == "silu"
    channel_last = x.stride(1) == 1 < x.stride(2)
    if channel_last:
        assert not x.shape[1] % 8
        assert not x.stride(0) % 8
        assert not x.stride(2) % 8
    else:
        assert x.stride(2) == 1
    if initial_states is None:
        row = F.pad(x, (weight.shape[1] - 1, 0))
    else:
        assert channel_last
        assert initial_states.dtype == x.dtype
        assert initial_states.stride(1) == 1
        row = torch.cat([initial_states, x], dim=-1)
    y = F.conv1d(row.to(weight.dtype), weight[:, None], bias, groups=len(weight))
    return F.silu(y).to(x.dtype)


def conv_update_standin(x, conv_state, weight, bias, activation):
    """causal_conv1d_update_ref, without what is not called."""
    assert activation == "silu"
    assert conv_state.dtype == x.dtype
    row = torch.cat([conv_state, x[..., None]], dim=-1)
    conv_state.copy_(row[..., 1:])
    y = F.conv1d(row.to(weight.dtype), weight[:, None], bias, groups=len(weight))
    return F.silu(y)[..., 0].to(x.dtype)


@pytest.fixture
def standins(monkeypatch) -> None:
    found = cuda.Kernels(
        conv=conv_standin,
        conv_update=conv_update_standin,
        scan=scan_standin,
        scan_update=scan_update_standin,
    )
    monkeypatch.setattr(cuda, "kernels", lambda: found)


def drawer() -> Callable[..., Tensor]:
    draws = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=draws)


def draw_scan(B: int, T: int, E: int, N: int, state: bool, dtype: torch.dtype):
    normal = drawer()
    u_BTE, gate_BTE = normal(B, T, 2 * E).to(dtype).chunk(2, dim=-1)
    raw_BTE, b_BTN, c_BTN = (normal(B, T, n).to(dtype) for n in (E, N, N))
    a_EN = -torch.arange(1, N + 1) * (0.2 * normal(E, N)).exp()
    h_BEN = normal(B, E, N) if state else None
    return [u_BTE, raw_BTE, normal(E) - 1, a_EN, b_BTN, c_BTN, normal(E), gate_BTE, h_BEN]


def draw_conv(B: int, T: int, E: int, W: int, tail: bool, dtype: torch.dtype):
    normal = drawer()
    x_BTE = normal(B, T, 2 * E).to(dtype).chunk(2, dim=-1)[1]
    tail_BLE = normal(B, W - 1, E).to(dtype).float() if tail else None
    return [x_BTE, normal(E, W), normal(E), tail_BLE]


def with_gradients(op, names, inputs, with_last: bool) -> dict[str, Tensor]:
    leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
    y, last = op(*leaves)
    draws = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=draws).to(x.device) for x in (y, last)]
    total = (y.to(last.dtype) * weights[0]).sum()
    if with_last:
        total = total + (last * weights[1]).sum()
    given = {name: x for name, x in zip(names, leaves, strict=True) if x is not None}
    gradients = torch.autograd.grad(total, list(given.values()))
    results = zip(given, gradients, strict=True)
    return {"y": y.detach(), "last": last.detach()} | {f"d{name}": x for name, x in results}


def agree(given: dict[str, Tensor], right: dict[str, Tensor], dtype: torch.dtype) -> None:
    for name, wanted in right.items():
        scale = wanted.abs().max().clamp(min=1e-30)
        error = ((given[name].double() - wanted).abs().max() / scale).item()
        assert error <= TOLERANCE[dtype], f"{name}: {error:.1e}"


def other_dtype(inputs: list[Tensor | None]) -> list[Tensor | None]:
    """The same, raw in bfloat16."""
    return [inputs[0], inputs[1].bfloat16(), *inputs[2:]]


def shorter(inputs: list[Tensor | None]) -> list[Tensor | None]:
    """The same, b one token short."""
    return [*inputs[:4], inputs[4][:, 1:], *inputs[5:]]


def wide(inputs: list[Tensor | None]) -> list[Tensor | None]:
    return [None if x is None else x.double() for x in inputs]


def same_scan(shape, state: bool, dtype: torch.dtype, device: str = "cpu") -> None:
    inputs = [None if x is None else x.to(device) for x in draw_scan(*shape, state, dtype)]
    right = with_gradients(reference.scan, SCAN_NAMES, wide(inputs), with_last=False)
    agree(with_gradients(cuda.scan, SCAN_NAMES, inputs, with_last=False), right, dtype)
    with torch.no_grad():
        y, last = cuda.scan(*inputs)
    agree({"y": y, "last": last}, {name: right[name] for name in ("y", "last")}, dtype)
    assert (y.dtype, last.dtype) == (dtype, torch.float32)


def same_conv(shape, tail: bool, dtype: torch.dtype, device: str = "cpu") -> None:
    inputs = [None if x is None else x.to(device) for x in draw_conv(*shape, tail, dtype)]
    right = with_gradients(reference.conv, CONV_NAMES, wide(inputs), with_last=True)
    agree(with_gradients(cuda.conv, CONV_NAMES, inputs, with_last=True), right, dtype)
    with torch.no_grad():
        y, last = cuda.conv(*inputs)
    agree({"y": y, "last": last}, {name: right[name] for name in ("y", "last")}, dtype)
    assert (y.dtype, last.dtype) == (dtype, torch.float32)


SCANS_BTEN = [(2, 1, 3, 4), (2, 7, 5, 3), (1, cuda.PIECE * 2 + 3, 4, 2)]
CONVS_BTEW = [(2, 1, 5, 4), (2, 2, 8, 4), (2, 9, 16, 4), (2, 9, 6, 2)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("state", [False, True], ids=["at rest", "with a state"])
@pytest.mark.parametrize("shape", SCANS_BTEN, ids=str)
def test_scan_agrees_with_the_reference(standins, shape, state, dtype):
    same_scan(shape, state, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("tail", [False, True], ids=["at rest", "with a tail"])
@pytest.mark.parametrize("shape", CONVS_BTEW, ids=str)
def test_conv_agrees_with_the_reference(standins, shape, tail, dtype):
    same_conv(shape, tail, dtype)


def test_a_step_leaves_the_states_it_is_given(standins):
    scan, conv = (draw(2, 1, 8, 4, True, torch.float32) for draw in (draw_scan, draw_conv))
    before = [scan[-1].clone(), conv[-1].clone()]
    with torch.no_grad():
        after = [cuda.scan(*scan)[1], cuda.conv(*conv)[1]]
    assert torch.equal(scan[-1], before[0])
    assert torch.equal(conv[-1], before[1])
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("state", [False, True], ids=["at rest", "with a state"])
def test_a_gradient_of_the_last_state_raises(standins, state):
    inputs = draw_scan(1, 3, 2, 2, state, torch.float32)
    with pytest.raises(NotImplementedError, match="no gradient of the last state"):
        with_gradients(cuda.scan, SCAN_NAMES, inputs, with_last=True)


@pytest.mark.parametrize(
    ("op", "inputs", "error", "message"),
    [
        (cuda.scan, draw_scan(1, 2, 3, 257, False, torch.float32), ValueError, "N=257"),
        (cuda.scan, draw_scan(1, 2, 3, 2, False, torch.float64), TypeError, "scan: u_BTE is"),
        (cuda.scan, other_dtype(draw_scan(1, 2, 3, 2, False, torch.float32)), TypeError, "raw_BTE"),
        (cuda.scan, draw_scan(1, 0, 3, 2, False, torch.float32), ValueError, "at least 1"),
        (
            cuda.scan,
            shorter(draw_scan(1, 2, 3, 2, False, torch.float32)),
            ValueError,
            r"\(1, 2, 2\)",
        ),
        (cuda.conv, draw_conv(1, 2, 3, 5, False, torch.float32), ValueError, "W=5"),
        (cuda.conv, draw_conv(1, 2, 3, 1, False, torch.float32), ValueError, "W=1"),
    ],
)
def test_what_a_kernel_does_not_take_is_named(standins, op, inputs, error, message):
    with pytest.raises(error, match=message):
        op(*inputs)


def test_flash_attention_is_given_our_window(monkeypatch):
    seen = []

    def standin(q, k, v, causal, window_size):
        """Flash-attn's own rule for its windows, as a mask."""
        seen.append((causal, window_size))
        window = None if window_size == (-1, -1) else window_size[0] + 1
        return native.attend(q, k, v, window)

    monkeypatch.setattr(cuda, "flash", lambda: standin)
    normal = drawer()
    q, k, v = (normal(1, n, h, 4).bfloat16() for n, h in ((3, 4), (6, 2), (6, 2)))
    for window in (None, 2):
        right = reference.attend(q, k, v, window)
        torch.testing.assert_close(cuda.attend(q, k, v, window), right, rtol=0.02, atol=0.02)
    assert seen == [(True, (-1, -1)), (True, (1, 0))]
    with pytest.raises(TypeError, match=r"torch\.float32; flash-attn takes .*native\.attend"):
        cuda.attend(q.float(), k.float(), v.float(), None)


@pytest.mark.parametrize("loader", ["kernels", "flash"])
def test_what_is_missing_is_said_with_the_commands(monkeypatch, loader):
    for package in ("causal_conv1d", "mamba_ssm", "flash_attn"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as caught:
        getattr(cuda, loader).__wrapped__()
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert "pip install --no-build-isolation causal-conv1d" in lines
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm" in lines


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_kernels_agree_with_the_reference_on_a_gpu(monkeypatch, dtype):
    try:
        cuda.kernels()
    except ImportError as error:
        pytest.skip(str(error))
    # The kernels are built with --use_fast_math
    monkeypatch.setitem(TOLERANCE, torch.float32, 1e-4)
    for state in (False, True):
        for shape in [(2, 1, 8, 16), (2, 77, 24, 16), (2, 2100, 16, 5)]:
            same_scan(shape, state, dtype, "cuda")
        for shape in [(2, 1, 8, 4), (2, 2, 16, 4), (2, 77, 24, 4), (2, 77, 10, 3)]:
            same_conv(shape, state, dtype, "cuda")
