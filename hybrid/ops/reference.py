"""Every op in plain torch: slow, short, and by definition right. The other files may only agree.

Letters are those of `hybrid/__init__.py`. Activations may be float32 or bfloat16; every op computes
in float32 at least (in float64 if it is given that) and returns the dtype its docstring names. What
an op refuses, and with which error, is in `hybrid/ops/given.py`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid.ops import given
from hybrid.ops.given import FLOATS, IGNORED


def wide(x: Tensor) -> Tensor:
    """Return `x` in the dtype ops compute in: float32, or float64 where that is given."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def visible(T: int, S: int, window: int | None, device: torch.device) -> Tensor:
    """Return the (T, S) mask that is True where query t may look at key s.

    The T queries are the last T of the S keys. `window` counts the tokens visible to the left,
    the query's own included; None sees all.
    """
    query_T1 = torch.arange(S - T, S, device=device)[:, None]
    distance_TS = query_T1 - torch.arange(S, device=device)
    seen_TS = distance_TS >= 0
    return seen_TS if window is None else seen_TS & (distance_TS < window)


def attention_weights(q_BTHP: Tensor, k_BSKP: Tensor, window: int | None) -> Tensor:
    """Return what each query head looks at, (B, H, T, S): at least float32, over S of sum 1."""
    T, H, P = q_BTHP.shape[1:]
    S, K = k_BSKP.shape[1:3]
    k_BSHP = wide(k_BSKP).repeat_interleave(H // K, dim=2)
    score_BHTS = torch.einsum("bthp,bshp->bhts", wide(q_BTHP), k_BSHP) / P**0.5
    hidden_TS = ~visible(T, S, window, q_BTHP.device)
    return score_BHTS.masked_fill(hidden_TS, float("-inf")).softmax(dim=-1)


def attend(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None) -> Tensor:
    """Return causal grouped-query attention, (B, T, H, P); scores are scaled by 1/sqrt(P)."""
    given.attend(q_BTHP, k_BSKP, v_BSKP, window, FLOATS)
    weight_BHTS = attention_weights(q_BTHP, k_BSKP, window)
    v_BSHP = wide(v_BSKP).repeat_interleave(q_BTHP.shape[2] // v_BSKP.shape[2], dim=2)
    return torch.einsum("bhts,bshp->bthp", weight_BHTS, v_BSHP).to(q_BTHP.dtype)


def conv(
    x_BTE: Tensor, weight_EW: Tensor, bias_E: Tensor, tail_BLE: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return (SiLU of the causal depthwise convolution (B, T, E), the new tail (B, W-1, E)).

    `tail_BLE` holds the L = W-1 inputs before `x_BTE`; None starts a sequence, with zeros. The last
    column of `weight_EW` multiplies the newest token, as in torch's and mamba-ssm's `Conv1d`. The
    result has the dtype of `x_BTE`, the tail that of the weights.
    """
    given.conv(x_BTE, weight_EW, bias_E, tail_BLE, FLOATS)
    (B, _, E), W = x_BTE.shape, weight_EW.shape[1]
    if tail_BLE is None:
        tail_BLE = weight_EW.new_zeros(B, W - 1, E)
    row_BSE = torch.cat([tail_BLE, wide(x_BTE)], dim=1)
    y_BET = F.conv1d(row_BSE.transpose(1, 2), weight_EW[:, None], bias_E, groups=E)
    new_tail_BLE = row_BSE[:, row_BSE.shape[1] - (W - 1) :].clone()
    return F.silu(y_BET).transpose(1, 2).to(x_BTE.dtype), new_tail_BLE


def recurrence(
    u_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    d_E: Tensor,
    h_BEN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return Mamba's recurrence: (y (B, T, E), the last state (B, E, N)).

    h_t = exp(dt_t a) h_{t-1} + dt_t u_t b_t and y_t = c_t . h_t + d u_t, per batch row and
    channel; `h_BEN` is the state before the first token, dt is positive and `a` negative.
    Source: Mamba (arXiv 2312.00752), equation 2a with the discretisation of its reference code.
    """
    ys_BE = []
    for t in range(u_BTE.shape[1]):
        decay_BEN = torch.exp(dt_BTE[:, t, :, None] * a_EN)
        drive_BE = dt_BTE[:, t] * u_BTE[:, t]
        h_BEN = decay_BEN * h_BEN + drive_BE[..., None] * b_BTN[:, t, None, :]
        ys_BE.append((h_BEN * c_BTN[:, t, None, :]).sum(-1) + d_E * u_BTE[:, t])
    return torch.stack(ys_BE, dim=1), h_BEN


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

    The `recurrence` with dt = softplus(raw + bias), its result times SiLU(gate). `h_BEN` None
    starts a sequence, with zeros. y has the dtype of `u_BTE`, the state that of `a_EN`.
    """
    given.scan(u_BTE, raw_BTE, bias_E, a_EN, b_BTN, c_BTN, d_E, gate_BTE, h_BEN, FLOATS)
    if h_BEN is None:
        h_BEN = a_EN.new_zeros(len(u_BTE), *a_EN.shape)
    # softplus as log(1 + exp x) without a threshold, which would break the gradient's gradient
    dt_BTE = torch.logaddexp(wide(raw_BTE) + bias_E, a_EN.new_zeros(()))
    y_BTE, h_BEN = recurrence(wide(u_BTE), dt_BTE, a_EN, wide(b_BTN), wide(c_BTN), d_E, h_BEN)
    return (y_BTE * F.silu(wide(gate_BTE))).to(u_BTE.dtype), h_BEN


def head_recurrence(
    u_BTHP: Tensor,
    dt_BTH: Tensor,
    a_H: Tensor,
    b_BTHN: Tensor,
    c_BTHN: Tensor,
    d_H: Tensor,
    h_BHPN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return Mamba-2's recurrence: (y (B, T, H, P), the last state (B, H, P, N)).

    The `recurrence` with one dt and one `a` for all channels and states of a head, and with b and c
    of its own. Source: Mamba-2 (arXiv 2405.21060), equation 2 with the discretisation of section 7.
    """
    ys_BHP = []
    for t in range(u_BTHP.shape[1]):
        decay_BH11 = torch.exp(dt_BTH[:, t] * a_H)[..., None, None]
        drive_BHP = dt_BTH[:, t, :, None] * u_BTHP[:, t]
        h_BHPN = decay_BH11 * h_BHPN + drive_BHP[..., None] * b_BTHN[:, t, :, None]
        read_BHP = (h_BHPN * c_BTHN[:, t, :, None]).sum(-1)
        ys_BHP.append(read_BHP + d_H[:, None] * u_BTHP[:, t])
    return torch.stack(ys_BHP, dim=1), h_BHPN


def ssd(
    u_BTHP: Tensor,
    raw_BTH: Tensor,
    bias_H: Tensor,
    a_H: Tensor,
    b_BTGN: Tensor,
    c_BTGN: Tensor,
    d_H: Tensor,
    h_BHPN: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return Mamba-2's state-space sequence map: (y (B, T, H, P), the last state (B, H, P, N)).

    The `head_recurrence` with dt = softplus(raw + bias); the H / G heads of a group share b and c.
    `h_BHPN` None starts a sequence, with zeros. y has the dtype of `u_BTHP`, the state that of
    `a_H`.
    """
    given.ssd(u_BTHP, raw_BTH, bias_H, a_H, b_BTGN, c_BTGN, d_H, h_BHPN, FLOATS)
    return ssd_by_tokens(u_BTHP, raw_BTH, bias_H, a_H, b_BTGN, c_BTGN, d_H, h_BHPN)


def ssd_by_tokens(
    u_BTHP: Tensor,
    raw_BTH: Tensor,
    bias_H: Tensor,
    a_H: Tensor,
    b_BTGN: Tensor,
    c_BTGN: Tensor,
    d_H: Tensor,
    h_BHPN: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return what `ssd` returns, of inputs that are checked already."""
    (B, _, H, P), (G, N) = u_BTHP.shape, b_BTGN.shape[2:]
    if h_BHPN is None:
        h_BHPN = a_H.new_zeros(B, H, P, N)
    dt_BTH = torch.logaddexp(wide(raw_BTH) + bias_H, a_H.new_zeros(()))
    b_BTHN, c_BTHN = (wide(x).repeat_interleave(H // G, dim=2) for x in (b_BTGN, c_BTGN))
    y_BTHP, h_BHPN = head_recurrence(wide(u_BTHP), dt_BTH, a_H, b_BTHN, c_BTHN, d_H, h_BHPN)
    return y_BTHP.to(u_BTHP.dtype), h_BHPN


def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Return RMSNorm over the last dimension (arXiv 1910.07467), in `dtype`."""
    given.norm(x, weight, dtype, FLOATS)
    x = wide(x)
    return (x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight).to(dtype)


def norms(
    x: Tensor, weight: Tensor, sizes: Sequence[int], eps: float, dtype: torch.dtype
) -> Tensor:
    """Return the `norm` of each of the last dimension's parts, so wide, side by side."""
    given.norms(x, weight, sizes, dtype, FLOATS)
    parts = zip(x.split(sizes, dim=-1), weight.split(sizes), strict=True)
    return torch.cat([norm(part, w, eps, dtype) for part, w in parts], dim=-1)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Return silu(first half) * second half of the last dimension, in the dtype given."""
    given.silu_and_mul(gate_up, FLOATS)
    gate, up = wide(gate_up).chunk(2, dim=-1)
    return (F.silu(gate) * up).to(gate_up.dtype)


def grouped(x_nD: Tensor, weight_XFD: Tensor, count_X: Tensor) -> Tensor:
    """Return each row times the matrix of its group, (n, F): the first count_X[0] rows times
    weight_XFD[0], the next count_X[1] times weight_XFD[1], and so on.

    `weight_XFD` has the dtype of `x_nD`, and so has the result; counts add up to n.
    """
    given.grouped(x_nD, weight_XFD, count_X, FLOATS)
    groups = x_nD.split(count_X.tolist())
    return torch.cat([x @ weight.T for x, weight in zip(groups, weight_XFD, strict=True)])


def cross_entropy(logits_nV: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
    """Return (-log softmax at the target (n), its gradient by the logits (n, V)).

    Both are 0 where the target is IGNORED. nats are float32, the gradient has the dtype of
    `logits_nV`, whose memory it may take.
    """
    given.cross_entropy(logits_nV, target_n, FLOATS)
    log_nV = wide(logits_nV).log_softmax(dim=-1)
    counted_n = target_n != IGNORED
    column_n = target_n.where(counted_n, 0)
    gradient_nV = log_nV.exp()
    gradient_nV[torch.arange(len(target_n)), column_n] -= 1
    nats_n = -log_nV.gather(1, column_n[:, None])[:, 0]
    gradient_nV = gradient_nV.where(counted_n[:, None], 0)
    return nats_n.where(counted_n, 0), gradient_nV.to(logits_nV.dtype)
