"""Every op in plain torch: slow, short, and by definition right. The other files may only agree.

Letters are those of `hybrid/__init__.py`. Nothing here chooses a device or a precision: each op
computes in the dtype it is given.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def visible(T: int, S: int, window: int | None, device: torch.device) -> Tensor:
    """Return the (T, S) mask that is True where query t may look at key s.

    The T queries are the last T of the S keys. `window` counts the tokens visible to the left,
    the query's own included; None sees all.
    """
    query_T1 = torch.arange(S - T, S, device=device)[:, None]
    distance_TS = query_T1 - torch.arange(S, device=device)
    seen_TS = distance_TS >= 0
    return seen_TS if window is None else seen_TS & (distance_TS < window)


def attend(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None) -> Tensor:
    """Return causal grouped-query attention, (B, T, H, P); scores are scaled by 1/sqrt(P)."""
    T, H, P = q_BTHP.shape[1:]
    S, K = k_BSKP.shape[1:3]
    k_BSHP = k_BSKP.repeat_interleave(H // K, dim=2)
    v_BSHP = v_BSKP.repeat_interleave(H // K, dim=2)
    score_BHTS = torch.einsum("bthp,bshp->bhts", q_BTHP, k_BSHP) / P**0.5
    hidden_TS = ~visible(T, S, window, q_BTHP.device)
    weight_BHTS = score_BHTS.masked_fill(hidden_TS, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhts,bshp->bthp", weight_BHTS, v_BSHP)


def conv(
    x_BTE: Tensor, weight_EW: Tensor, bias_E: Tensor, tail_BLE: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (SiLU of the causal depthwise convolution (B, T, E), the new tail (B, W-1, E)).

    `tail_BLE` holds the L = W-1 inputs before `x_BTE`, zeros at the start of a sequence; the last
    column of `weight_EW` multiplies the newest token, as in torch's and mamba-ssm's `Conv1d`.
    """
    W = weight_EW.shape[1]
    row_BSE = torch.cat([tail_BLE, x_BTE], dim=1)
    y_BET = F.conv1d(row_BSE.transpose(1, 2), weight_EW[:, None], bias_E, groups=len(weight_EW))
    return F.silu(y_BET).transpose(1, 2), row_BSE[:, row_BSE.shape[1] - (W - 1) :].clone()


def scan(
    u_BTE: Tensor,
    dt_BTE: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    d_E: Tensor,
    h_BEN: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return Mamba's selective scan: (y (B, T, E), the last state (B, E, N)).

    h_t = exp(dt_t a) h_{t-1} + dt_t u_t b_t and y_t = c_t . h_t + d u_t, per batch row and
    channel; `h_BEN` is the state before the first token, dt is already positive and `a` negative.
    Source: Mamba (arXiv 2312.00752), equation 2a with the discretisation of its reference code.
    """
    ys_BE = []
    for t in range(u_BTE.shape[1]):
        decay_BEN = torch.exp(dt_BTE[:, t, :, None] * a_EN)
        drive_BE = dt_BTE[:, t] * u_BTE[:, t]
        h_BEN = decay_BEN * h_BEN + drive_BE[..., None] * b_BTN[:, t, None, :]
        ys_BE.append((h_BEN * c_BTN[:, t, None, :]).sum(-1) + d_E * u_BTE[:, t])
    return torch.stack(ys_BE, dim=1), h_BEN
