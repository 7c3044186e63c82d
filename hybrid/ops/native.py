"""Ops for which torch has kernels, on any device. Meaning: `hybrid/ops/reference.py`.

They raise what `hybrid/ops/given.py` says, and compute in float64 if they are given that.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid.ops import given
from hybrid.ops.given import FLOATS, IGNORED
from hybrid.ops.reference import visible, wide

MASK_ELEMENTS = 1 << 20  # of a mask made at once
STRIDE_BYTES = 16  # torch's grouped product wants every row of a matrix to start at a multiple
GROUPED = (torch.float16, torch.bfloat16, torch.float32)  # what torch's grouped product takes


def attend(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None) -> Tensor:
    """Return causal grouped-query attention, (B, T, H, P); scores are scaled by 1/sqrt(P).

    Torch's kernel reads each key and value head once per group, and needs a mask only where a
    window or a cache hides something that "causal from the first key" does not describe. A mask is
    made for a piece of the queries at a time: for a whole chunk of a long prompt it would be larger
    than all else.
    """
    given.attend(q_BTHP, k_BSKP, v_BSKP, window, FLOATS)
    return attend_checked(q_BTHP, k_BSKP, v_BSKP, window)


def attend_checked(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None) -> Tensor:
    """Return what `attend` returns, of inputs that are checked already."""
    T, S = q_BTHP.shape[1], k_BSKP.shape[1]
    unbounded = window is None or window >= S
    if unbounded and T in (1, S):
        return _attend(q_BTHP, k_BSKP, v_BSKP, None, causal=T > 1)
    piece, ys = max(1, MASK_ELEMENTS // S), []
    for t in range(0, T, piece):
        stop = min(t + piece, T)
        low = 0 if window is None else max(0, S - T + t + 1 - window)
        keys = slice(low, S - T + stop)
        mask_TS = visible(stop - t, S - T + stop - low, window, q_BTHP.device)
        ys.append(_attend(q_BTHP[:, t:stop], k_BSKP[:, keys], v_BSKP[:, keys], mask_TS))
    return ys[0] if len(ys) == 1 else torch.cat(ys, dim=1)


def _attend(
    q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, mask_TS: Tensor | None, causal: bool = False
) -> Tensor:
    y_BHTP = F.scaled_dot_product_attention(
        q_BTHP.transpose(1, 2),
        k_BSKP.transpose(1, 2),
        v_BSKP.transpose(1, 2),
        attn_mask=mask_TS,
        is_causal=causal,
        enable_gqa=q_BTHP.shape[2] != k_BSKP.shape[2],
    )
    return y_BHTP.transpose(1, 2)


def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Return RMSNorm over the last dimension, in `dtype`."""
    given.norm(x, weight, dtype, FLOATS)
    return _norm(x, weight, eps, dtype)


def _norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return F.rms_norm(wide(x), weight.shape, weight, eps).to(dtype)


def norms(
    x: Tensor, weight: Tensor, sizes: Sequence[int], eps: float, dtype: torch.dtype
) -> Tensor:
    """Return the `norm` of each of the last dimension's parts, so wide, side by side."""
    given.norms(x, weight, sizes, dtype, FLOATS)
    parts = zip(x.split(sizes, dim=-1), weight.split(sizes), strict=True)
    return torch.cat([_norm(part, w, eps, dtype) for part, w in parts], dim=-1)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Return silu(first half) * second half of the last dimension, in the dtype given."""
    given.silu_and_mul(gate_up, FLOATS)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def grouped(x_nD: Tensor, weight_XFD: Tensor, count_X: Tensor) -> Tensor:
    """Return each row times the matrix of its group, (n, F), in one call.

    Rows are filled up with zeros where torch's kernel wants wider ones. On a GPU the counts are not
    waited for, so that counts that do not add up to n are not noticed there.
    """
    given.grouped(x_nD, weight_XFD, count_X, GROUPED)
    F_out, D = weight_XFD.shape[1:]
    wide_D, wide_F = (_whole(size, x_nD.dtype) for size in (D, F_out))
    if (wide_D, wide_F) != (D, F_out):
        x_nD = F.pad(x_nD, [0, wide_D - D])
        weight_XFD = F.pad(weight_XFD, [0, wide_D - D, 0, wide_F - F_out])
    ends_X = count_X.cumsum(0).to(torch.int32)
    product = _grouped_mm(x_nD.dtype)
    return product(x_nD, weight_XFD.transpose(1, 2), offs=ends_X)[:, :F_out]


def _grouped_mm(dtype: torch.dtype) -> Callable[..., Tensor]:
    """Return torch's grouped product, left out of a graph whose rules know bfloat16 alone."""
    if dtype is torch.bfloat16 or not torch.compiler.is_compiling():
        return F.grouped_mm
    excluded: Callable[..., Tensor] = torch.compiler.disable(F.grouped_mm)  # loads the compiler
    return excluded


def cross_entropy(logits_nV: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
    """Return (-log softmax at the target (n), its gradient by the logits (n, V))."""
    given.cross_entropy(logits_nV, target_n, FLOATS)
    log_nV = torch.log_softmax(logits_nV, dim=-1, dtype=given.WIDE[logits_nV.dtype])
    counted_n1 = (target_n != IGNORED)[:, None]
    column_n1 = target_n[:, None].where(counted_n1, 0)
    nats_n = -(log_nV.gather(1, column_n1) * counted_n1)[:, 0]
    gradient_nV = log_nV.exp_().scatter_add_(1, column_n1, -torch.ones_like(nats_n)[:, None])
    return nats_n, gradient_nV.mul_(counted_n1).to(logits_nV.dtype)


def _whole(size: int, dtype: torch.dtype) -> int:
    step = STRIDE_BYTES // dtype.itemsize
    return -(-size // step) * step
