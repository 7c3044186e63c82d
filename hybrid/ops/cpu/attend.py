"""Attention on the CPU. Meaning: `hybrid/ops/reference.py`."""

from typing import Any

import torch
from torch import Tensor

from hybrid.ops import given, native
from hybrid.ops.cpu import attention_kernels
from hybrid.ops.cpu.run import flat, operator, require_cpu, run
from hybrid.ops.given import ACTIVATIONS

# Tokens beyond which torch's kernel, which goes through keys block by block, is no slower.
LONGEST = 1024


def attend(q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None) -> Tensor:
    """Return causal grouped-query attention, (B, T, H, P); scores are scaled by 1/sqrt(P).

    A sequence that attends to itself while gradients are recorded goes through kernels of our own,
    unless it is long.
    Many queries after a cache see all of it, and each other causally: torch's kernel takes both
    parts without a mask and returns their log-sums, by which they are joined. It has no gradient
    for log-sums, so where gradients are recorded, and with a window, a mask it is. Raises TypeError
    for dtypes but float32 and bfloat16 and for another device, and ValueError for shapes that
    disagree.
    """
    require_cpu("attend", q_BTHP)
    given.attend(q_BTHP, k_BSKP, v_BSKP, window, ACTIVATIONS)
    T, S = q_BTHP.shape[1], k_BSKP.shape[1]
    bounded = window is not None and window < S
    if torch.is_grad_enabled():
        if T == S <= LONGEST and not bounded:
            return _attend(q_BTHP, k_BSKP, v_BSKP)[0]
        return native.attend_checked(q_BTHP, k_BSKP, v_BSKP, window)
    if T in (1, S) or bounded:
        return native.attend_checked(q_BTHP, k_BSKP, v_BSKP, window)
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


def _heads(x_BTHP: Tensor) -> tuple[Any, int, int, int, int]:
    """Return (flat memory, elements from row to row, token to token and head to head, heads)."""
    if x_BTHP.stride(3) != 1:
        x_BTHP = x_BTHP.contiguous()
    return flat(x_BTHP), x_BTHP.stride(0), x_BTHP.stride(1), x_BTHP.stride(2), x_BTHP.shape[2]


@operator("hybrid::attend_cpu")
def _attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return (attention of a sequence to itself, the logarithm of its sums of exponentials)."""
    B, T, H, P = q.shape
    y = q.new_empty(q.shape)
    log_sum = q.new_empty(B, T, H, dtype=torch.float32)
    arguments = (*(_heads(x) for x in (q, k, v, y)), log_sum.numpy())
    run(attention_kernels.attend_forward, B * k.shape[2], B * T * T * H * P, P, *arguments)
    return y, log_sum


@torch.library.register_fake("hybrid::attend_cpu")
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@operator("hybrid::attend_cpu_backward")
def _attend_backward(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_sum: Tensor, gy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v."""
    B, T, H, P = q.shape
    gradients = [x.new_empty(x.shape) for x in (q, k, v)]
    kept = (*(_heads(x) for x in (q, k, v, y)), log_sum.numpy())
    arguments = (*kept, *(_heads(x) for x in (gy, *gradients)))
    run(attention_kernels.attend_backward, B * k.shape[2], 2 * B * T * T * H * P, P, *arguments)
    return gradients[0], gradients[1], gradients[2]


@torch.library.register_fake("hybrid::attend_cpu_backward")
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _gradients(ctx: Any, gy: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _attend_backward(*ctx.saved_tensors, gy)


torch.library.register_autograd("hybrid::attend_cpu", _gradients, setup_context=_keep)
