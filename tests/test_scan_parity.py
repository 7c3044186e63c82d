"""The scan against outsiders: mambapy, mamba-ssm's and transformers' formulas, and a closed form.

`tests/ops` holds every implementation against our own reference; here that reference, and
the CPU kernels, are held against what others published, forward and gradients, with the dt of real
models and with dt far outside. Letters are those of `hybrid/__init__.py`.
"""

import ast
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid import ops
from hybrid.ops import reference

Scan = Callable[..., tuple[Tensor, Tensor]]
NAMES = ("u", "dt", "a", "b", "c", "d", "h")

SHAPES_BTEN = [
    (1, 1, 1, 1),
    (2, 2, 3, 4),
    (2, 7, 5, 3),
    (1, 64, 8, 16),
    (3, 33, 17, 8),
    (1, 130, 4, 16),
    (2, 5, 16, 40),
]
# Smallest and largest dt, drawn log-uniformly between.
DTS = {
    "initial": (1e-3, 1e-1),  # Mamba, arXiv 2312.00752, section 3.6
    "trained": (1e-4, 5.0),
    "tiny": (1e-9, 1e-6),  # hardly decays, hardly writes
    "huge": (1e1, 1e4),  # forgets everything at every token: decay underflows to 0
    "mixed": (1e-9, 1e4),
}

OPEN = 1.278464542761073795  # where SiLU is one
TOLERANCE = 5e-6  # of the largest entry; all in fp32


def recurrence_of(each: ops.Ops) -> Scan:
    """Return the recurrence inside a scan: its dt through softplus, its gate open."""

    def recurrence(u, dt, a, b, c, d, h):
        raw = dt + torch.log(-torch.expm1(-dt))
        gate = torch.full_like(u, OPEN)
        return each.scan(u, raw, torch.zeros_like(d), a, b, c, d, gate, h)

    return recurrence


@pytest.fixture(params=[ops.REFERENCE, ops.CPU], ids=lambda each: each.name)
def scan(request) -> Scan:
    return recurrence_of(request.param)


@pytest.fixture(params=SHAPES_BTEN, ids=lambda shape: "x".join(map(str, shape)))
def shape(request) -> tuple[int, int, int, int]:
    return request.param


@pytest.fixture(params=DTS.values(), ids=DTS)
def inputs(request, shape) -> list[Tensor]:
    return draw(shape, request.param)


def draw(shape: tuple[int, int, int, int], dts: tuple[float, float]) -> list[Tensor]:
    """Return u, dt, a, b, c, d and the state before, in fp32."""
    B, T, E, N = shape
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws)

    low, high = torch.tensor(dts).log()
    dt_BTE = (low + (high - low) * torch.rand(B, T, E, generator=draws)).exp()
    a_EN = -torch.arange(1, N + 1) * (0.2 * normal(E, N)).exp()
    return [
        normal(B, T, E),
        dt_BTE,
        a_EN,
        normal(B, T, N),
        normal(B, T, N),
        normal(E),
        normal(B, E, N),
    ]


def at_rest(inputs: list[Tensor]) -> list[Tensor]:
    """The same inputs at the start of a sequence."""
    return [*inputs[:-1], torch.zeros_like(inputs[-1])]


# --- the outsiders, all with the signature of ours


def closed_form(
    u_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    d_E: Tensor,
    h_BEN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sum over all earlier tokens in float64, without a recurrence.

    h_t = exp(a s_t) h_0 + sum_{r <= t} exp(a (s_t - s_r)) dt_r u_r b_r, s_t = dt_1 + ... + dt_t.
    """
    T = u_BTE.shape[1]
    s_BTE = dt_BTE.cumsum(dim=1)
    earlier_TR = torch.ones(T, T, dtype=torch.bool).tril()[..., None]
    span_BTRE = (s_BTE[:, :, None] - s_BTE[:, None]).where(earlier_TR, 0.0)
    kept_BTREN = (span_BTRE[..., None] * a_EN).exp() * earlier_TR[..., None]
    write_BREN = (dt_BTE * u_BTE)[..., None] * b_BTN[:, :, None]
    h_BTEN = (kept_BTREN * write_BREN[:, None]).sum(dim=2)
    h_BTEN = h_BTEN + (s_BTE[..., None] * a_EN).exp() * h_BEN[:, None]
    return (h_BTEN * c_BTN[:, :, None]).sum(dim=-1) + d_E * u_BTE, h_BTEN[:, -1]


def mambapy_scan(u_BTE, dt_BTE, a_EN, b_BTN, c_BTN, d_E, h_BEN):
    """mambapy's parallel (Blelloch) scan, which starts at rest."""
    assert not h_BEN.any()
    pscan = pytest.importorskip("mambapy.pscan", reason="pip install mambapy").pscan
    decay_BTEN = (dt_BTE[..., None] * a_EN).exp()
    write_BTEN = (dt_BTE * u_BTE)[..., None] * b_BTN[:, :, None]
    h_BTEN = pscan(decay_BTEN, write_BTEN)
    return (h_BTEN @ c_BTN[..., None])[..., 0] + d_E * u_BTE, h_BTEN[:, -1]


def mamba_ssm_scan(u_BTE, dt_BTE, a_EN, b_BTN, c_BTN, d_E, h_BEN):
    """mamba-ssm's `selective_scan_ref`, which starts at rest."""
    assert not h_BEN.any()
    published = mamba_ssm("ops/selective_scan_interface.py", "selective_scan_ref")
    rows = (x.transpose(1, 2) for x in (u_BTE, dt_BTE))
    y_BET, last_BEN = published(
        *rows, a_EN, b_BTN.transpose(1, 2), c_BTN.transpose(1, 2), d_E, return_last_state=True
    )
    return y_BET.transpose(1, 2), last_BEN


def mamba_ssm_step(*args):
    """mamba-ssm's `selective_state_update_ref`; it writes the state in place."""
    return mamba_ssm("ops/triton/selective_state_update.py", "selective_state_update_ref")(*args)


def transformers_step(*args):
    """The step in plain torch of transformers' Jamba; it writes the state in place."""
    reason = "pip install 'hybrid-workbench[hf]'"
    pytest.importorskip("transformers", reason=reason)
    from transformers.models.jamba.modeling_jamba import mamba_selective_state_update

    return mamba_selective_state_update(*args)


@cache
def mamba_ssm(path: str, name: str) -> Callable:
    """Return one function of mamba-ssm's source, which cannot be imported without its kernels.

    `MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE pip install --no-deps --no-build-isolation
    mamba-ssm einops`, or the folder of its unpacked source on PYTHONPATH.
    """
    found = importlib.util.find_spec("mamba_ssm")
    if found is None or found.origin is None:
        pytest.skip("mamba-ssm's source is not there; mamba_ssm() in this file says how to get it")
    einops = pytest.importorskip("einops", reason="mamba-ssm's formulas need einops")
    tree = ast.parse((Path(found.origin).parent / path).read_text(encoding="utf-8"))
    function = next(x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == name)
    names = {"torch": torch, "F": F, "rearrange": einops.rearrange, "repeat": einops.repeat}
    exec(compile(ast.Module([function], []), name, "exec"), names)
    return names[name]


# --- comparing


def with_gradients(run: Scan, inputs: list[Tensor], dtype=torch.float32) -> dict[str, Tensor]:
    """Return what `run` makes of the inputs, and the gradients of a fixed sum of it, by name."""
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
    y_BTE, h_BEN = run(*leaves)
    draws = torch.Generator().manual_seed(1)
    y_weight, h_weight = (torch.randn(x.shape, generator=draws) for x in (y_BTE, h_BEN))
    ((y_BTE * y_weight).sum() + (h_BEN * h_weight).sum()).backward()
    # An outsider that always starts at rest leaves the state before without a gradient.
    gradients = {
        f"d{name}": leaf.grad
        for name, leaf in zip(NAMES, leaves, strict=True)
        if leaf.grad is not None
    }
    return {"y": y_BTE.detach(), "h": h_BEN.detach(), **gradients}


def error(given: Tensor, right: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    scale = right.abs().max().clamp(min=1e-30)
    return ((given - right).abs().max() / scale).item()


def agree(given: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    for name, tensor in right.items():
        assert given[name].isfinite().all(), name
        assert error(given[name], tensor) <= TOLERANCE, f"{name}: {error(given[name], tensor):.1e}"


def in_pieces(scan: Scan, length: int) -> Scan:
    """The same scan, `length` tokens at a time."""

    def run(u_BTE, dt_BTE, a_EN, b_BTN, c_BTN, d_E, h_BEN):
        ys = []
        pieces = (x.split(length, dim=1) for x in (u_BTE, dt_BTE, b_BTN, c_BTN))
        for u, dt, b, c in zip(*pieces, strict=True):
            y, h_BEN = scan(u, dt, a_EN, b, c, d_E, h_BEN)
            ys.append(y)
        return torch.cat(ys, dim=1), h_BEN

    return run


def test_the_closed_form_is_the_recurrence_in_float64(inputs):
    right = with_gradients(reference.recurrence, inputs, torch.float64)
    given = with_gradients(closed_form, inputs, torch.float64)
    for name in right:
        assert error(given[name], right[name]) < 1e-9, name


def test_scan_agrees_with_the_closed_form(scan, inputs):
    agree(with_gradients(scan, inputs), with_gradients(closed_form, inputs, torch.float64))


@pytest.mark.parametrize("length", [1, 5])
def test_scan_in_pieces_agrees_with_the_closed_form(scan, inputs, length):
    given = with_gradients(in_pieces(scan, length), inputs)
    agree(given, with_gradients(closed_form, inputs, torch.float64))


@pytest.mark.parametrize("published", [mambapy_scan, mamba_ssm_scan], ids=lambda f: f.__name__)
def test_scan_agrees_with_published_ones(scan, inputs, published):
    inputs = at_rest(inputs)
    agree(with_gradients(scan, inputs), with_gradients(published, inputs))


@pytest.mark.parametrize("step", [transformers_step, mamba_ssm_step], ids=lambda f: f.__name__)
def test_single_steps_agree_with_published_ones(scan, inputs, step):
    u, dt, a_EN, b, c, d_E, h_BEN = inputs
    theirs_BEN = h_BEN.clone()
    ys_BE = [
        step(theirs_BEN, u[:, t], dt[:, t], a_EN, b[:, t], c[:, t], d_E) for t in range(u.shape[1])
    ]
    y_BTE, h_BEN = in_pieces(scan, 1)(*inputs)
    agree({"y": y_BTE, "h": h_BEN}, {"y": torch.stack(ys_BE, dim=1), "h": theirs_BEN})
