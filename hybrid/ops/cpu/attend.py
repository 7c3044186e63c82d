"""Attention on the CPU without masks. Meaning: `hybrid/ops/reference.py`."""

import torch
from torch import Tensor

from hybrid.ops import native


def attend(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None) -> Tensor:
    """Return causal grouped-query attention, (B, T, H, P); scores are scaled by 1/sqrt(P).

    Many queries after a cache see all of it, and each other causally: torch's kernel takes both
    parts without a mask and returns their log-sums, by which they are joined. It has no gradient
    for log-sums, so where gradients are recorded, and with a window, a mask it is.
    """
    T, S = q_BTHP.shape[1], k_BSKP.shape[1]
    if torch.is_grad_enabled() or T in (1, S) or (window is not None and window < S):
        return native.attend(q_BTHP, k_BSKP, v_BSKP, window)
    old, new = slice(None, S - T), slice(S - T, None)
    y_BTHP, sum_BTH = _part(q_BTHP, k_BSKP[:, new], v_BSKP[:, new], causal=True)
    past_BTHP, past_sum_BTH = _part(q_BTHP, k_BSKP[:, old], v_BSKP[:, old], causal=False)
    share_BTH1 = torch.sigmoid(past_sum_BTH - sum_BTH)[..., None].to(y_BTHP.dtype)
    return y_BTHP.lerp_(past_BTHP, share_BTH1)


def _part(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Return (attention to these keys alone, the logarithm of its sum of exponentials)."""
    y_BHTP, sum_BHT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(x.transpose(1, 2) for x in (q_BTHP, k_BSKP, v_BSKP)), is_causal=causal
    )
    return y_BHTP.transpose(1, 2), sum_BHT.transpose(1, 2)
