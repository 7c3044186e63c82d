"""Mamba-2's recurrence in matrix products, a chunk of tokens at a time, on any device.

Meaning: `reference.ssd`. Source: Mamba-2 (arXiv 2405.21060), section 6 and listing 1, with the
chunks one after another: what is made for one stays near the processor, and the backward pass makes
it again, so that only the states between chunks are kept. Letters are those of
`hybrid/__init__.py`, and Q tokens of a chunk, I heads of a group (H = G I).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybrid.ops import reference
from hybrid.ops.given import sizes
from hybrid.ops.reference import wide

# Tokens of a chunk, by kind of device: so few that its matrices stay in a processor's nearer
# caches, so many that a GPU does not wait for launches.
CHUNK = {"cpu": 64, "cuda": 256}


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
    """Return (y (B, T, H, P), the last state (B, H, P, N)).

    Products are taken in the dtype of `u_BTHP`, all else in float32 at least. Raises ValueError for
    shapes that disagree or are empty. There is no second derivative.
    """
    (B, T, H, P), (G, N) = sizes("ssd", "u_BTHP", u_BTHP), sizes("ssd", "b_BTGN", b_BTGN)[2:]
    for name, tensor, wanted in (
        ("raw_BTH", raw_BTH, (B, T, H)),
        ("bias_H", bias_H, (H,)),
        ("a_H", a_H, (H,)),
        ("b_BTGN", b_BTGN, (B, T, G, N)),
        ("c_BTGN", c_BTGN, (B, T, G, N)),
        ("d_H", d_H, (H,)),
        ("h_BHPN", h_BHPN, (B, H, P, N)),
    ):
        if tensor is not None and tensor.shape != wanted:
            raise ValueError(
                f"ssd: {name} has shape {tuple(tensor.shape)}; beside u_BTHP it must be {wanted}"
            )
    if H % G:
        raise ValueError(f"ssd: b_BTGN has {G} groups, which must divide the {H} heads of u_BTHP")
    if T == 1:
        return reference.ssd(u_BTHP, raw_BTH, bias_H, a_H, b_BTGN, c_BTGN, d_H, h_BHPN)
    if h_BHPN is None:
        h_BHPN = a_H.new_zeros(B, H, P, N)
    dt_BTH = torch.logaddexp(wide(raw_BTH) + bias_H, a_H.new_zeros(()))
    return Chunks.apply(u_BTHP, dt_BTH, dt_BTH * a_H, b_BTGN, c_BTGN, d_H, h_BHPN)


class Chunk(NamedTuple):
    """What both passes make of a chunk."""

    u_BGIQP: Tensor  # in float32
    dt_BGIQ1: Tensor
    drive_BGIQP: Tensor  # dt u, in the dtype of products
    b_BGQN: Tensor
    c_BGQN: Tensor
    left_BGIQ1: Tensor  # share of the state before the chunk in that after a token
    kept_BGIQ1: Tensor  # share of what a token writes in the state after the chunk
    decay_BGIQQ: Tensor  # share of what the column's token writes in the state after the row's
    score_BGQQ: Tensor  # c of the row's token times b of the column's


def _chunk(
    u_BQHP: Tensor, dt_BQH: Tensor, log_BQH: Tensor, b_BQGN: Tensor, c_BQGN: Tensor
) -> Chunk:
    G = b_BQGN.shape[2]
    b_BGQN, c_BGQN = b_BQGN.transpose(1, 2).contiguous(), c_BQGN.transpose(1, 2).contiguous()
    u_BGIQP, dt_BGIQ1 = _by_head(wide(u_BQHP), G), _by_head(dt_BQH[..., None], G)
    sum_BGIQ1 = _by_head(log_BQH[..., None], G).double().cumsum(dim=3)
    last_BGI11 = sum_BGIQ1[:, :, :, -1:]
    return Chunk(
        u_BGIQP,
        dt_BGIQ1,
        (u_BGIQP * dt_BGIQ1).to(u_BQHP.dtype),
        b_BGQN,
        c_BGQN,
        sum_BGIQ1.exp().to(dt_BQH.dtype),
        (last_BGI11 - sum_BGIQ1).exp().to(dt_BQH.dtype),
        _decay(sum_BGIQ1, dt_BQH.dtype),
        c_BGQN @ b_BGQN.transpose(-1, -2),
    )


def _decay(sum_BGIQ1: Tensor, dtype: torch.dtype) -> Tensor:
    """Return exp(sum of the row - sum of the column), 0 above the diagonal.

    A small difference of large sums would be lost in float32, so what rounding left of each sum is
    subtracted by itself.
    """
    high_BGIQ1 = sum_BGIQ1.to(dtype)
    low_BGIQ1 = (sum_BGIQ1 - high_BGIQ1).to(dtype)
    span_BGIQQ = high_BGIQ1 - high_BGIQ1.transpose(-1, -2)
    span_BGIQQ.add_(low_BGIQ1).sub_(low_BGIQ1.transpose(-1, -2))
    return span_BGIQQ.exp_().tril_()


def _by_head(x_BQHP: Tensor, G: int) -> Tensor:
    B, Q, H, P = x_BQHP.shape
    return x_BQHP.reshape(B, Q, G, H // G, P).permute(0, 2, 3, 1, 4).contiguous()


def _by_token(x_BGIQP: Tensor) -> Tensor:
    return x_BGIQP.permute(0, 3, 1, 2, 4).flatten(2, 3)


class Chunks(torch.autograd.Function):
    """The recurrence of u, dt, log decay dt a, b, c, d and the state before."""

    @staticmethod
    def forward(
        ctx: Any,
        u_BTHP: Tensor,
        dt_BTH: Tensor,
        log_BTH: Tensor,
        b_BTGN: Tensor,
        c_BTGN: Tensor,
        d_H: Tensor,
        h_BHPN: Tensor,
    ) -> tuple[Tensor, Tensor]:
        G, I, kind = b_BTGN.shape[2], len(d_H) // b_BTGN.shape[2], u_BTHP.dtype  # noqa: E741
        d_GI11 = d_H.view(G, I, 1, 1)
        h_BGIPN, before, y_BTHP = h_BHPN.unflatten(1, (G, I)), [], torch.empty_like(u_BTHP)
        with torch.autocast(u_BTHP.device.type, enabled=False):
            for part in _parts(u_BTHP):
                k = _chunk(*(x[:, part] for x in (u_BTHP, dt_BTH, log_BTH, b_BTGN, c_BTGN)))
                before.append(h_BGIPN)
                weight_BGIQQ = (k.decay_BGIQQ * k.score_BGQQ[:, :, None]).to(kind)
                old_BGIQP = k.c_BGQN[:, :, None] @ h_BGIPN.to(kind).transpose(-1, -2)
                y_BGIQP = wide(weight_BGIQQ @ k.drive_BGIQP) + k.left_BGIQ1 * old_BGIQP
                y_BTHP[:, part] = _by_token(y_BGIQP.addcmul_(k.u_BGIQP, d_GI11))
                kept_BGIQP = (k.drive_BGIQP * k.kept_BGIQ1).to(kind)
                written_BGIPN = kept_BGIQP.transpose(-1, -2) @ k.b_BGQN[:, :, None]
                h_BGIPN = k.left_BGIQ1[:, :, :, -1:] * h_BGIPN + written_BGIPN
        ctx.save_for_backward(u_BTHP, dt_BTH, log_BTH, b_BTGN, c_BTGN, d_H, *before)
        return y_BTHP, h_BGIPN.flatten(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients, from the last chunk to the first.

        The gradient of a sum of logarithms is that of every decay it is in, times that decay.
        """
        (u_BTHP, dt_BTH, log_BTH, b_BTGN, c_BTGN, d_H, *before), (gy_BTHP, gh) = (
            ctx.saved_tensors,
            pulls,
        )
        G, I, kind = b_BTGN.shape[2], len(d_H) // b_BTGN.shape[2], u_BTHP.dtype  # noqa: E741
        d_GI11, gd_H = d_H.view(G, I, 1, 1), torch.zeros_like(d_H)
        gh_BGIPN = gh.unflatten(1, (G, I))
        gu, gdt, glog, gb, gc = (
            torch.empty_like(x) for x in (u_BTHP, dt_BTH, log_BTH, b_BTGN, c_BTGN)
        )
        with torch.autocast(u_BTHP.device.type, enabled=False):
            for part, h_BGIPN in reversed(list(zip(_parts(u_BTHP), before, strict=True))):
                k = _chunk(*(x[:, part] for x in (u_BTHP, dt_BTH, log_BTH, b_BTGN, c_BTGN)))
                gy_BGIQP = _by_head(gy_BTHP[:, part], G)
                # Inside the chunk
                gweight_BGIQQ = gy_BGIQP @ k.drive_BGIQP.transpose(-1, -2)
                gdecay_BGIQQ = k.decay_BGIQQ * gweight_BGIQQ
                gscore_BGQQ = gdecay_BGIQQ.sum(dim=2).to(kind)
                weight_BGIQQ = (k.decay_BGIQQ * k.score_BGQQ[:, :, None]).to(kind)
                gdecay_BGIQQ *= k.score_BGQQ[:, :, None]
                # In float64: what is in two sums leaves nothing in their difference.
                gdecay_BGIQQ = gdecay_BGIQQ.double()
                gsum_BGIQ = gdecay_BGIQQ.sum(dim=-1) - gdecay_BGIQQ.sum(dim=-2)
                # By the state before and the state after
                h_kind, gh_kind = h_BGIPN.to(kind), gh_BGIPN.to(kind)
                gold_BGIQP = (gy_BGIQP * k.left_BGIQ1).to(kind)
                kept_BGIQP = (k.drive_BGIQP * k.kept_BGIQ1).to(kind)
                old_BGIQP = k.c_BGQN[:, :, None] @ h_kind.transpose(-1, -2)
                gkept_BGIQP = k.b_BGQN[:, :, None] @ gh_kind.transpose(-1, -2)
                gkept_BGIQ = (wide(gkept_BGIQP) * kept_BGIQP).sum(dim=-1).double()
                gsum_BGIQ += (wide(gold_BGIQP) * old_BGIQP).sum(dim=-1) - gkept_BGIQ
                left_BGI11 = k.left_BGIQ1[:, :, :, -1:]
                gsum_BGIQ[..., -1] += gkept_BGIQ.sum(dim=-1)
                gsum_BGIQ[..., -1] += (gh_BGIPN * h_BGIPN * left_BGI11).sum(dim=(-1, -2))
                # By what was given
                gdrive_BGIQP = wide(weight_BGIQQ.transpose(-1, -2) @ gy_BGIQP)
                gdrive_BGIQP.addcmul_(wide(gkept_BGIQP), k.kept_BGIQ1)
                glog_BGIQ = gsum_BGIQ.flip(-1).cumsum(dim=-1).flip(-1)
                glog[:, part] = _by_token(glog_BGIQ[..., None])[..., 0]
                gdt_BGIQ = (gdrive_BGIQP * k.u_BGIQP).sum(dim=-1)
                gdt[:, part] = _by_token(gdt_BGIQ[..., None])[..., 0]
                gd_H += (gy_BGIQP * k.u_BGIQP).sum(dim=(0, 3, 4)).flatten()
                gu_BGIQP = (gdrive_BGIQP * k.dt_BGIQ1).addcmul_(wide(gy_BGIQP), d_GI11)
                gu[:, part] = _by_token(gu_BGIQP)
                gc_BGQN = gscore_BGQQ @ k.b_BGQN + (gold_BGIQP @ h_kind).sum(dim=2)
                gb_BGQN = gscore_BGQQ.transpose(-1, -2) @ k.c_BGQN
                gb_BGQN += (kept_BGIQP @ gh_kind).sum(dim=2)
                gc[:, part], gb[:, part] = gc_BGQN.transpose(1, 2), gb_BGQN.transpose(1, 2)
                gh_BGIPN = left_BGI11 * gh_BGIPN
                gh_BGIPN += gold_BGIQP.transpose(-1, -2) @ k.c_BGQN[:, :, None]
        return gu, gdt, glog, gb, gc, gd_H, gh_BGIPN.flatten(1, 2)


def _parts(u_BTHP: Tensor) -> list[slice]:
    T, size = u_BTHP.shape[1], CHUNK[u_BTHP.device.type]
    return [slice(t, min(t + size, T)) for t in range(0, T, size)]
