"""Scan, convolution and attention through mamba-ssm, causal-conv1d and flash-attn: CUDA kernels.

Letters are those of `hybrid/__init__.py`; meanings are those of `hybrid/ops/reference.py`. The
packages are imported when an op is first called, and nothing stands in for one that is missing.
Attention has two implementations for such a machine, `attend` here and `native.attend`, which is
torch's own and needs no flash-attn: whoever makes the Ops object chooses, and names it accordingly.

What these kernels cannot do. They give no gradient of the last state: asking for one raises, and
`triton.py` has it. They start from zeros, so a state before is added in torch, which is slower.
Widths of the convolution are 2 to 4. torch.compile does not trace through scan and conv: it breaks
its graph at them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hybrid.ops import given
from hybrid.ops.given import ACTIVATIONS

WIDTHS = range(2, 5)  # causal_conv1d.cpp: "only supports width between 2 and 4"
STATES = 256  # selective_scan.cpp: "only supports state dimension <= 256"
STEP = 8  # causal_conv1d.cpp: channels side by side, in strides that are multiples of it
PIECE = 64  # tokens for which the effect of a state before is computed at once
HALVES = (torch.float16, torch.bfloat16)

INSTALL = """{package} cannot be imported: {error}.
The CUDA ops need, on a machine with a CUDA device and nvcc, in this order:
    pip install torch setuptools wheel packaging ninja
    pip install --no-build-isolation causal-conv1d
    MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm
    pip install --no-build-isolation flash-attn        # only for this module's `attend`
Without --no-build-isolation they are built against another torch. A plain `pip install mamba-ssm`
may leave out selective_scan_cuda, the kernel of Mamba-1: releases that want to be told keep it with
the variable above, others do not look at it. {package}_FORCE_BUILD=TRUE compiles where the prebuilt
wheel, tried first, does not fit. `hybrid/ops/triton.py` needs none of these packages."""


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The functions of other packages that this module calls."""

    conv: Callable[..., Any]
    conv_update: Callable[..., Any]
    scan: Callable[..., Any]
    scan_update: Callable[..., Any]


@cache
def kernels() -> Kernels:
    """Return the kernels; ImportError says how to install what is missing."""
    package = "CAUSAL_CONV1D"
    try:
        from causal_conv1d import causal_conv1d_fn, causal_conv1d_update

        package = "MAMBA"
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update
    except ImportError as error:
        raise ImportError(INSTALL.format(package=package, error=error)) from error
    return Kernels(
        conv=causal_conv1d_fn,
        conv_update=causal_conv1d_update,
        scan=selective_scan_fn,
        scan_update=selective_state_update,
    )


@cache
def flash() -> Callable[..., Any]:
    """Return flash-attn's function; ImportError says how to install it."""
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise ImportError(INSTALL.format(package="FLASH_ATTENTION", error=error)) from error
    return flash_attn_func


def attend(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None) -> Tensor:
    """Return causal grouped-query attention, (B, T, H, P), through flash-attn.

    The T queries are the last T of the S keys, as in flash-attn since its version 2.1; its windows
    leave out the query's own token, ours counts it. Raises TypeError for dtypes but float16 and
    bfloat16, which are all flash-attn takes, and ValueError for shapes that disagree.
    """
    if isinstance(q_BTHP, Tensor) and q_BTHP.dtype not in HALVES:
        raise TypeError(
            f"attend: q_BTHP is {q_BTHP.dtype}; flash-attn takes torch.float16 and torch.bfloat16, "
            "and hybrid.ops.native.attend takes others"
        )
    given.attend(q_BTHP, k_BSKP, v_BSKP, window, HALVES)
    left = -1 if window is None else window - 1
    right = -1 if window is None else 0
    return flash()(q_BTHP, k_BSKP, v_BSKP, causal=True, window_size=(left, right))


@torch.compiler.disable
def conv(
    x_BTE: Tensor, weight_EW: Tensor, bias_E: Tensor, tail_BLE: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return (SiLU of the causal depthwise convolution (B, T, E), the new tail (B, W-1, E)).

    The kernel reads the tail in the dtype of `x_BTE`: a tail of its earlier inputs loses nothing.
    Raises TypeError and ValueError for dtypes, shapes and widths W the kernel does not take.
    """
    differentiable = given.conv(x_BTE, weight_EW, bias_E, tail_BLE, ACTIVATIONS)
    (B, T, E), W = x_BTE.shape, weight_EW.shape[1]
    if W not in WIDTHS:
        raise ValueError(f"conv: weight_EW has W={W}; causal-conv1d takes widths 2 to 4")
    before_BLE = weight_EW.new_zeros(B, W - 1, E) if tail_BLE is None else tail_BLE
    new_tail_BLE = torch.cat([before_BLE[:, T:], x_BTE[:, -(W - 1) :].float()], dim=1)
    if T == 1 and not differentiable:
        # A copy in any case: the kernel writes the state in place, and states are values here
        state_BEL = before_BLE.transpose(1, 2).to(x_BTE.dtype, copy=True).contiguous()
        y_BE = kernels().conv_update(x_BTE[:, 0], state_BEL, weight_EW, bias_E, "silu")
        return y_BE[:, None], new_tail_BLE
    return _convolved(x_BTE, weight_EW, bias_E, tail_BLE), new_tail_BLE


def _convolved(x_BTE: Tensor, weight_EW: Tensor, bias_E: Tensor, tail_BLE: Tensor | None) -> Tensor:
    """Return the activated convolution of many tokens."""
    run, tail_BLE = kernels().conv, None if tail_BLE is None else tail_BLE.to(x_BTE.dtype)
    if _channel_last(x_BTE):
        tail_BEL = None if tail_BLE is None else tail_BLE.contiguous().transpose(1, 2)
        y_BET = run(
            x_BTE.transpose(1, 2), weight_EW, bias_E, initial_states=tail_BEL, activation="silu"
        )
        return y_BET.transpose(1, 2)
    # With its tokens side by side the kernel takes any E, and no tail but as tokens
    row_BTE = x_BTE if tail_BLE is None else torch.cat([tail_BLE, x_BTE], dim=1)
    row_BET = row_BTE.transpose(1, 2).contiguous()
    y_BET = run(row_BET, weight_EW, bias_E, activation="silu")
    return y_BET[..., -x_BTE.shape[1] :].transpose(1, 2)


def _channel_last(x_BTE: Tensor) -> bool:
    """Say whether the kernel takes `x_BTE` with its channels side by side, as it is."""
    row, token, channel = x_BTE.stride()
    return channel == 1 < token and not any(n % STEP for n in (x_BTE.shape[2], row, token))


@torch.compiler.disable
def scan(
    u_BTE: Tensor,
    raw_BTE: Tensor,
    bias_E: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    d_E: Tensor,
    gate_BTE: Tensor,
    h_BEN: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return Mamba's selective scan, gated: (y (B, T, E), the last state (B, E, N)).

    Raises TypeError and ValueError for dtypes and shapes the kernel does not take; backward through
    the last state raises NotImplementedError.
    """
    inputs = (u_BTE, raw_BTE, bias_E, a_EN, b_BTN, c_BTN, d_E, gate_BTE, h_BEN)
    differentiable = given.scan(*inputs, ACTIVATIONS)
    (B, T, E), N = u_BTE.shape, a_EN.shape[1]
    if N > STATES:
        raise ValueError(f"scan: a_EN has N={N}; mamba-ssm's kernel takes at most {STATES}")
    if T == 1 and not differentiable:
        # A copy in any case: the kernel writes the state in place, and states are values here
        state_BEN = a_EN.new_zeros(B, E, N) if h_BEN is None else h_BEN.clone()
        first = (x[:, 0] for x in (u_BTE, raw_BTE))
        keys = (x[:, 0] for x in (b_BTN, c_BTN))
        y_BE = kernels().scan_update(
            state_BEN, *first, a_EN, *keys, d_E, z=gate_BTE[:, 0], dt_bias=bias_E, dt_softplus=True
        )
        return y_BE[:, None], state_BEN
    rows = [x.transpose(1, 2) for x in (u_BTE, raw_BTE)]
    keys_BNT = [x.transpose(1, 2) for x in (b_BTN, c_BTN)]
    y_BET, last_BEN = kernels().scan(
        *rows,
        a_EN,
        *keys_BNT,
        D=d_E,
        z=gate_BTE.transpose(1, 2) if h_BEN is None else None,
        delta_bias=bias_E,
        delta_softplus=True,
        return_last_state=True,
    )
    # The kernel's is a view of all states it saved; and without a gradient of its own
    y_BTE, last_BEN = y_BET.transpose(1, 2), NoGradient.apply(last_BEN.clone())
    if h_BEN is None:
        return y_BTE, last_BEN
    added_BTE, decayed_BEN = _of_state_before(raw_BTE, bias_E, a_EN, c_BTN, h_BEN)
    y_BTE = (y_BTE.float() + added_BTE) * F.silu(gate_BTE.float())
    return y_BTE.to(u_BTE.dtype), last_BEN + decayed_BEN


class NoGradient(torch.autograd.Function):
    """A tensor whose gradient the kernel leaves out: asking for it is an error, not zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise NotImplementedError(
            "scan: mamba-ssm's kernel gives no gradient of the last state; "
            "hybrid.ops.triton.scan and hybrid.ops.reference.scan do"
        )


def _of_state_before(
    raw_BTE: Tensor, bias_E: Tensor, a_EN: Tensor, c_BTN: Tensor, h_BEN: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what a state before adds to y before the gate, in float32, and what is left of it.

    The scan is linear in it: c_t . (exp(a (dt_1 + ... + dt_t)) h). States of a few tokens are there
    at a time, and in the backward pass are computed again.
    """
    added = []
    pieces = zip(raw_BTE.split(PIECE, dim=1), c_BTN.split(PIECE, dim=1), strict=True)
    for raw_BtE, c_BtN in pieces:
        added_BtE, h_BEN = checkpoint(
            _of_state_before_piece,
            raw_BtE,
            bias_E,
            a_EN,
            c_BtN,
            h_BEN,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        added.append(added_BtE)
    return torch.cat(added, dim=1), h_BEN


def _of_state_before_piece(
    raw_BTE: Tensor, bias_E: Tensor, a_EN: Tensor, c_BTN: Tensor, h_BEN: Tensor
) -> tuple[Tensor, Tensor]:
    dt_BTE = F.softplus(raw_BTE.float() + bias_E)
    left_BTEN = (dt_BTE.cumsum(dim=1)[..., None] * a_EN).exp() * h_BEN[:, None]
    return torch.einsum("bten,btn->bte", left_BTEN, c_BTN.float()), left_BTEN[:, -1]
