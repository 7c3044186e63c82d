"""Runs the kernels of `triton_kernels.py`: sizes of programs, memory for what passes between them.

Letters are those of `hybrid/__init__.py`; C counts chunks of tokens, G segments of chunks. Nothing
is checked here (`triton.py` does), and nothing here has a gradient of its own.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2
from triton.runtime import JITFunction

from hybrid.ops import triton_kernels as kernels

# Triton's interpreter (TRITON_INTERPRET=1, read when a kernel is defined) runs on any device.
INTERPRETED = not isinstance(kernels.scan_forward, JITFunction)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What one program has at a time: a tile of tokens and channels for its warps."""

    tokens: int
    channels: int
    warps: int


# Tokens between two saved states: saved, they take N / CHUNK floats per place of the input.
CHUNK = 32
# One warp, so that nothing waits for another, with as many tokens and channels for a thread as its
# registers hold. Chosen by what ptxas says for sm_90: nothing spilled forward, little backward, and
# with twice as many most of it. More channels are fewer sums over them, fewer are more programs.
# Not tuned on a card yet.
FORWARD = Program(tokens=8, channels=64, warps=1)
BACKWARD = Program(tokens=4, channels=128, warps=1)
SINGLE = Program(tokens=1, channels=128, warps=4)  # for kernels that have one token, or none
if INTERPRETED:  # it goes through a scan's places in Python: small tiles leave few of them unused
    CHUNK = 8
    FORWARD = Program(tokens=4, channels=8, warps=1)
    BACKWARD = Program(tokens=2, channels=8, warps=1)
    SINGLE = Program(tokens=1, channels=8, warps=1)

SCHEDULERS = 4  # warp schedulers of a multiprocessor, on every NVIDIA card since Volta
WARPS_EACH = 2  # as many as the registers of a scheduler hold


def room(device: torch.device) -> int:
    """Return how many programs of one warp a device runs at once."""
    if device.type != "cuda":
        return 1
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count * SCHEDULERS * WARPS_EACH


def segments(B: int, T: int, E: int, program: Program, device: torch.device) -> tuple[int, int]:
    """Return (chunks in a segment, segments): what is cut of time so that programs fill a card.

    One segment is one pass over the tokens. More need a second pass, with as many exponentials, so
    time is cut only where rows and channels alone would leave more than half of the card empty.
    """
    chunks, whole = cdiv(T, CHUNK), B * cdiv(E, program.channels)
    wanted = 1 if 2 * whole >= room(device) else min(chunks, cdiv(room(device), whole))
    per_segment = cdiv(chunks, wanted)
    return per_segment, cdiv(chunks, per_segment)


def on(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which kernels are launched on the tensors' device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def rows(x: Tensor) -> Tensor:
    """Return `x` with its channels side by side, as the kernels read it."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def scaled(a_EN: Tensor) -> Tensor:
    """Return a times log2(e), as (N, E)."""
    return (a_EN * math.log2(math.e)).t().contiguous()


def forward(
    u: Tensor,
    raw: Tensor,
    bias: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    gate: Tensor,
    h: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y, the last state, the states before each chunk (B, C, N, E), none unless `save`)."""
    (B, T, E), N = u.shape, a.shape[1]
    u, raw, gate, b, c = (rows(x) for x in (u, raw, gate, b, c))
    (per, G), C = segments(B, T, E, FORWARD, u.device), cdiv(T, CHUNK)
    y, last = u.new_empty(B, T, E), a.new_empty(B, E, N)
    state, start = a.new_empty(B, C if save else 0, N, E), a.new_empty(B, G, 3, N, E)
    with on(u.device):
        _enter(start[:, 0, 2], h)
        if save:
            state[:, 0] = start[:, 0, 2]
        a_NE = scaled(a)
        if G > 1:
            _across(start, False, u, raw, gate, bias, a_NE, b, per, G)
        kernels.scan_forward[(cdiv(E, FORWARD.channels), G, B)](
            u, raw, gate, bias, a_NE, b, c, d,
            y, state, last, start,
            T, E, N, C, per, G,
            *_strides(u, raw, gate, b, c), **_sizes(FORWARD), SAVE=save,
        )  # fmt: skip
    return y, last, state


def backward(
    u: Tensor,
    raw: Tensor,
    bias: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    gate: Tensor,
    state: Tensor,
    gy: Tensor,
    glast: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, raw, bias, a, b, c, d, gate and h; `glast` None is zeros."""
    (B, T, E), N = u.shape, a.shape[1]
    u, raw, gate, gy, b, c = (rows(x) for x in (u, raw, gate, gy, b, c))
    (per, G), C = segments(B, T, E, BACKWARD, u.device), cdiv(T, CHUNK)
    blocks = cdiv(E, BACKWARD.channels)
    gu, graw, ggate = (u.new_empty(B, T, E) for _ in range(3))
    ga, gstate = a.new_zeros(B, G, 2, N, E), a.new_empty(B, G, 3, N, E)
    gb, gc = (a.new_empty(blocks, B, C * CHUNK, N) for _ in range(2))
    gbias, gd = (a.new_empty(B, G, E) for _ in range(2))
    start = a.new_empty(B, G, CHUNK // BACKWARD.tokens, N, E)
    with on(u.device):
        _enter(gstate[:, -1, 2], glast)
        a_NE = scaled(a)
        if G > 1:
            _across(gstate, True, gy, raw, gate, bias, a_NE, c, per, G)
        kernels.scan_backward[(blocks, G, B)](
            u, raw, gate, gy, bias, a_NE, b, c, d, state,
            gu, graw, ggate, gbias, ga, gb, gc, gd, gstate, start,
            B, T, E, N, C, per, G,
            *_strides(u, raw, gate, gy, b, c), **_sizes(BACKWARD),
        )  # fmt: skip
    return (
        gu,
        graw,
        gbias.sum((0, 1)),
        ga[:, :, 0].sum((0, 1)).t().contiguous(),
        gb[:, :, :T].sum(0).to(b.dtype),
        gc[:, :, :T].sum(0).to(b.dtype),
        gd.sum((0, 1)),
        ggate,
        gstate[:, 0, 0].transpose(1, 2).contiguous(),
    )


def step(
    u: Tensor,
    raw: Tensor,
    bias: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    gate: Tensor,
    h: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return (y, the last state) of one token, T = 1, in one kernel."""
    (B, _, E), N = u.shape, a.shape[1]
    u, raw, gate, b, c = (rows(x) for x in (u, raw, gate, b, c))
    y, last = u.new_empty(B, 1, E), a.new_empty(B, E, N)
    block_n = next_power_of_2(N)
    # Channels such that a thread has a few states, whatever N is
    block = max(1, SINGLE.channels * 8 // block_n)
    with on(u.device):
        kernels.scan_step[(cdiv(E, block), B)](
            u, raw, gate, bias, a, b, c, d, a if h is None else h, y, last,
            E, N, *(x.stride(0) for x in (u, raw, gate, b, c)),
            BLOCK_E=block, BLOCK_N=block_n, HAS_H=h is not None, num_warps=SINGLE.warps,
        )  # fmt: skip
    return y, last


def _enter(to_BNE: Tensor, h_BEN: Tensor | None) -> None:
    """Write the state that a pass starts from."""
    if h_BEN is None:
        to_BNE.zero_()
    else:
        to_BNE.copy_(h_BEN.transpose(1, 2))


def _across(
    out: Tensor,
    back: bool,
    value: Tensor,
    raw: Tensor,
    gate: Tensor,
    bias: Tensor,
    a_NE: Tensor,
    key_BTN: Tensor,
    per: int,
    G: int,
) -> None:
    """Write into `out`, from what enters the first segment (backward, the last), what enters each.

    `out` is (B, G, 3, N, E); it stands in the last of the three.
    """
    (B, T, E), N = value.shape, len(a_NE)
    local, total = a_NE.new_zeros(B, G, 2, N, E), a_NE.new_empty(B, G, E)
    kernels.scan_segment[(cdiv(E, FORWARD.channels), G, B)](
        value, raw, gate, bias, a_NE, key_BTN, local, total,
        T, E, N, cdiv(T, CHUNK), per, G,
        *_strides(value, raw, gate, key_BTN), **_sizes(FORWARD), BACKWARD=back,
    )  # fmt: skip
    kernels.scan_carry[(cdiv(E, SINGLE.channels), N, B)](
        local, total, a_NE, out, E, N, G,
        BLOCK_E=SINGLE.channels, BACKWARD=back, num_warps=SINGLE.warps,
    )  # fmt: skip


def _strides(*tensors: Tensor) -> list[int]:
    """Return from row to row and from token to token, for each."""
    return [stride for x in tensors for stride in x.stride()[:2]]


def _sizes(program: Program) -> dict[str, int]:
    return {
        "CHUNK": CHUNK,
        "TILE": program.tokens,
        "BLOCK_E": program.channels,
        "num_warps": program.warps,
        "enable_fp_fusion": True,  # said, because Triton's default is about to change
    }
