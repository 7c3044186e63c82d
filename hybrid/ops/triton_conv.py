"""Runs the kernels of `triton_conv_kernels.py`. Letters are those of `hybrid/__init__.py`.

Nothing is checked here (`triton.py` does), and nothing here has a gradient of its own.
"""

from torch import Tensor
from triton import cdiv, next_power_of_2

from hybrid.ops import triton_conv_kernels as kernels
from hybrid.ops.triton_scan import INTERPRETED, on, rows

# With twice as many tokens the backward pass spills registers (ptxas, sm_90). Not tuned on a card.
TOKENS, CHANNELS, WARPS = (8, 8, 1) if INTERPRETED else (16, 128, 4)


def forward(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (the activated convolution, the new tail)."""
    (B, T, E), W = x.shape, weight.shape[1]
    x, tokens = rows(x), min(TOKENS, next_power_of_2(T))
    y, new = x.new_empty(B, T, E), weight.new_empty(B, W - 1, E)
    with on(x.device):
        kernels.conv_forward[(cdiv(E, CHANNELS), cdiv(T, tokens), B)](
            x, weight, bias, weight if tail is None else tail, y, new,
            T, E, *x.stride()[:2],
            W=W, HAS_TAIL=tail is not None, BLOCK_T=tokens, BLOCK_E=CHANNELS, num_warps=WARPS,
        )  # fmt: skip
    return y, new


def backward(
    x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor | None, gy: Tensor, gnew: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and tail, that of no tail empty of meaning.

    `gnew` None stands for zeros.
    """
    (B, T, E), W = x.shape, weight.shape[1]
    x, gy = rows(x), rows(gy)
    gnew = None if gnew is None else gnew.contiguous()
    places = cdiv(T + W - 1, TOKENS)
    gx, gtail = x.new_empty(B, T, E), weight.new_empty(B, W - 1, E)
    gweight, gbias = weight.new_empty(B * places, E, W), weight.new_empty(B * places, E)
    with on(x.device):
        kernels.conv_backward[(cdiv(E, CHANNELS), places, B)](
            x, weight, bias, weight if tail is None else tail, gy, weight if gnew is None else gnew,
            gx, gweight, gbias, gtail, T, E, *x.stride()[:2], *gy.stride()[:2],
            W=W, HAS_TAIL=tail is not None, HAS_GNEW=gnew is not None,
            BLOCK_T=TOKENS, BLOCK_E=CHANNELS, num_warps=WARPS,
        )  # fmt: skip
    return gx, gweight.sum(0), gbias.sum(0), gtail
