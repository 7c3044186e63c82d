"""Mamba-2's recurrence in matrix products, a chunk of tokens at a time, on any device.

Meaning: `reference.ssd`. Source: Mamba-2 (arXiv 2405.21060), section 6 and listing 1, with the
chunks one after another: what is made for one stays near the processor, and the backward pass makes
it again, so that only the states between chunks are kept. Letters are those of
`hybrid/__init__.py`, and Q tokens of a chunk, J the channels of a group (H P = G J).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybrid.ops import given, reference
from hybrid.ops.given import ACTIVATIONS
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

    Products are taken in the dtype of `u_BTHP`, all else in float32. Raises TypeError for dtypes it
    does not take and ValueError for shapes that disagree or are empty. There is no second
    derivative.
    """
    inputs = (u_BTHP, raw_BTH, bias_H, a_H, b_BTGN, c_BTGN, d_H, h_BHPN)
    save = given.ssd(*inputs, ACTIVATIONS)
    (B, T, H, P), N = u_BTHP.shape, b_BTGN.shape[3]
    if T == 1:
        return reference.ssd_by_tokens(*inputs)
    if h_BHPN is None:
        h_BHPN = a_H.new_zeros(B, H, P, N)
    dt_BTH = torch.logaddexp(wide(raw_BTH) + bias_H, a_H.new_zeros(()))
    return Chunks.apply(save, u_BTHP, dt_BTH, dt_BTH * a_H, b_BTGN, c_BTGN, d_H, h_BHPN)


class Chunk(NamedTuple):
    """What both passes make of a chunk."""

    u_BQHP: Tensor  # in float32
    dt_BQH1: Tensor
    left_BQH1: Tensor  # share of the state before the chunk in that after a token
    kept_BQH1: Tensor  # share of what a token writes in the state after the chunk
    decay_BHQQ: Tensor  # share of what the column's token writes in the state after the row's
    # In the dtype of products:
    drive_BHQP: Tensor  # dt u
    kept_BGQJ: Tensor  # dt u, as much as is kept
    b_BGQN: Tensor
    c_BGQN: Tensor
    score_BGQQ: Tensor  # c of the row's token times b of the column's

    def weights(self) -> Tensor:
        """Return the matrix (B, H, Q, Q) that takes what is written to what is read."""
        weight_BGIQQ = _by_group(self.decay_BHQQ, self.score_BGQQ) * self.score_BGQQ[:, :, None]
        return weight_BGIQQ.flatten(1, 2).to(self.drive_BHQP.dtype)


def _chunk(
    u_BQHP: Tensor, dt_BQH: Tensor, log_BQH: Tensor, b_BQGN: Tensor, c_BQGN: Tensor
) -> Chunk:
    G, kind = b_BQGN.shape[2], u_BQHP.dtype
    u_BQHP, dt_BQH1, sum_BQH = wide(u_BQHP), dt_BQH[..., None], log_BQH.double().cumsum(dim=1)
    kept_BQH1 = (sum_BQH[:, -1:] - sum_BQH).exp().to(dt_BQH.dtype)[..., None]
    b_BGQN, c_BGQN = b_BQGN.transpose(1, 2), c_BQGN.transpose(1, 2)
    return Chunk(
        u_BQHP=u_BQHP,
        dt_BQH1=dt_BQH1,
        left_BQH1=sum_BQH.exp().to(dt_BQH.dtype)[..., None],
        kept_BQH1=kept_BQH1,
        decay_BHQQ=_decay(sum_BQH, dt_BQH.dtype),
        drive_BHQP=(u_BQHP * dt_BQH1).transpose(1, 2).to(kind).contiguous(),
        kept_BGQJ=_groups((u_BQHP * (dt_BQH1 * kept_BQH1)).to(kind), G),
        b_BGQN=b_BGQN,
        c_BGQN=c_BGQN,
        score_BGQQ=c_BGQN @ b_BGQN.transpose(-1, -2),
    )


def _decay(sum_BQH: Tensor, dtype: torch.dtype) -> Tensor:
    """Return exp(sum of the row - sum of the column), 0 above the diagonal.

    A small difference of large sums would be lost in float32, so what rounding left of each sum is
    subtracted by itself.
    """
    sum_BHQ1 = sum_BQH.transpose(1, 2)[..., None]
    high_BHQ1 = sum_BHQ1.to(dtype)
    low_BHQ1 = (sum_BHQ1 - high_BHQ1).to(dtype)
    span_BHQQ = high_BHQ1 - high_BHQ1.transpose(-1, -2)
    span_BHQQ.add_(low_BHQ1).sub_(low_BHQ1.transpose(-1, -2))
    return span_BHQQ.exp_().tril_()


def _by_group(x_BHQQ: Tensor, score_BGQQ: Tensor) -> Tensor:
    """Return the view (B, G, heads of a group, Q, Q)."""
    return x_BHQQ.unflatten(1, (score_BGQQ.shape[1], -1))


def _groups(x_BQHP: Tensor, G: int) -> Tensor:
    """Return the view (B, G, Q, J)."""
    return x_BQHP.unflatten(2, (G, -1)).flatten(3).transpose(1, 2)


def _heads(x_BGQJ: Tensor, H: int) -> Tensor:
    """Return (B, Q, H, P)."""
    return x_BGQJ.transpose(1, 2).flatten(2).unflatten(-1, (H, -1))


def _forward(k: Chunk, d_H1: Tensor, h_BHPN: Tensor) -> tuple[Tensor, Tensor]:
    """Return (y (B, Q, H, P), the state after the chunk)."""
    (G, kind), H = (k.score_BGQQ.shape[1], k.drive_BHQP.dtype), len(d_H1)
    h_BGJN = h_BHPN.to(kind).reshape(len(h_BHPN), G, -1, h_BHPN.shape[-1])
    y_BQHP = wide(k.weights() @ k.drive_BHQP).transpose(1, 2)
    y_BQHP.addcmul_(k.left_BQH1, wide(_heads(k.c_BGQN @ h_BGJN.transpose(-1, -2), H)))
    written_BGJN = k.kept_BGQJ.transpose(-1, -2) @ k.b_BGQN
    h_BHPN = torch.addcmul(
        wide(written_BGJN).view(h_BHPN.shape), k.left_BQH1[:, -1, :, None], h_BHPN
    )
    return y_BQHP.addcmul_(k.u_BQHP, d_H1), h_BHPN


def _backward(
    k: Chunk, d_H1: Tensor, h_BHPN: Tensor, gy_BQHP: Tensor, gh_BHPN: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients by u, dt, log decay, b, c, d and the state before the chunk.

    `gh_BHPN` is that by the state after it. The gradient by a logarithm is that by every decay it
    is a part of, times that decay.
    """
    G, kind, H, last_BH11 = (
        k.score_BGQQ.shape[1],
        k.drive_BHQP.dtype,
        len(d_H1),
        k.left_BQH1[:, -1, :, None],
    )
    h_BGJN, gh_BGJN = (x.to(kind).reshape(len(x), G, -1, x.shape[-1]) for x in (h_BHPN, gh_BHPN))
    gy_BHQP, gy_BQHP = gy_BQHP.transpose(1, 2).contiguous(), wide(gy_BQHP)
    gscore_BGQQ, gsum_BQH = _back_through_decay(k, gy_BHQP)
    gold_BGQJ = _groups((gy_BQHP * k.left_BQH1).to(kind), G)
    old_BGQJ = k.c_BGQN @ h_BGJN.transpose(-1, -2)
    gkept_BQHP = wide(_heads(k.b_BGQN @ gh_BGJN.transpose(-1, -2), H))
    gkept_BQH = (gkept_BQHP * _heads(k.kept_BGQJ, H)).sum(dim=-1).double()
    gsum_BQH += _heads(wide(gold_BGQJ) * old_BGQJ, H).sum(dim=-1) - gkept_BQH
    gsum_BQH[:, -1] += gkept_BQH.sum(dim=1) + (gh_BHPN * h_BHPN * last_BH11).sum(dim=(-1, -2))
    gdrive_BQHP = wide(k.weights().transpose(-1, -2) @ gy_BHQP).transpose(1, 2)
    gdrive_BQHP.addcmul_(gkept_BQHP, k.kept_BQH1)
    gwritten_BGJN = gold_BGQJ.transpose(-1, -2) @ k.c_BGQN
    return (
        (gdrive_BQHP * k.dt_BQH1).addcmul_(gy_BQHP, d_H1),
        (gdrive_BQHP * k.u_BQHP).sum(dim=-1),
        gsum_BQH.flip(1).cumsum(dim=1).flip(1),
        (gscore_BGQQ.transpose(-1, -2) @ k.c_BGQN + k.kept_BGQJ @ gh_BGJN).transpose(1, 2),
        (gscore_BGQQ @ k.b_BGQN + gold_BGQJ @ h_BGJN).transpose(1, 2),
        (gy_BQHP * k.u_BQHP).sum(dim=(0, 1, 3)),
        torch.addcmul(wide(gwritten_BGJN).view(gh_BHPN.shape), last_BH11, gh_BHPN),
    )


def _back_through_decay(k: Chunk, gy_BHQP: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients by the scores, and by the sums (B, Q, H) inside the chunk."""
    gdecay_BHQQ = k.decay_BHQQ * (gy_BHQP @ k.drive_BHQP.transpose(-1, -2))
    gdecay_BGIQQ = _by_group(gdecay_BHQQ, k.score_BGQQ)
    gscore_BGQQ = gdecay_BGIQQ.sum(dim=2).to(k.score_BGQQ.dtype)
    gdecay_BGIQQ *= k.score_BGQQ[:, :, None]
    # In float64: what is in two sums leaves nothing in their difference.
    exact_BHQQ = gdecay_BHQQ.double()
    gsum_BHQ = exact_BHQQ.sum(dim=-1) - exact_BHQQ.sum(dim=-2)
    return gscore_BGQQ, gsum_BHQ.transpose(1, 2)


class Chunks(torch.autograd.Function):
    """The recurrence of u, dt, log decay dt a, b, c, d and the state before, all after `save`."""

    @staticmethod
    def forward(ctx: Any, save: bool, *given: Tensor) -> tuple[Tensor, Tensor]:
        *tokens, d_H, h_BHPN = given
        y_BTHP, before, d_H1 = torch.empty_like(tokens[0]), [], d_H[:, None]
        with torch.autocast(d_H.device.type, enabled=False):
            for part in _parts(y_BTHP):
                before += [h_BHPN] if save else []
                y_BTHP[:, part], h_BHPN = _forward(_made(tokens, part), d_H1, h_BHPN)
        ctx.save_for_backward(*tokens, d_H, *before)
        return y_BTHP, h_BHPN

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gy_BTHP: Tensor, gh_BHPN: Tensor) -> tuple[Tensor | None, ...]:
        tokens, (d_H, *before) = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        gradients, gd_H, d_H1 = (
            [torch.empty_like(x) for x in tokens],
            torch.zeros_like(d_H),
            d_H[:, None],
        )
        with torch.autocast(d_H.device.type, enabled=False):
            for part, h_BHPN in reversed(list(zip(_parts(gy_BTHP), before, strict=True))):
                k = _made(tokens, part)
                *pieces, gd, gh_BHPN = _backward(k, d_H1, h_BHPN, gy_BTHP[:, part], gh_BHPN)
                for whole, piece in zip(gradients, pieces, strict=True):
                    whole[:, part] = piece
                del k, pieces, piece  # before the next chunk's are made
                gd_H += gd
        return (None, *gradients, gd_H, gh_BHPN)


def _made(tokens: Sequence[Tensor], part: slice) -> Chunk:
    return _chunk(*(x[:, part] for x in tokens))


def _parts(u_BTHP: Tensor) -> list[slice]:
    T, size = u_BTHP.shape[1], CHUNK[u_BTHP.device.type]
    return [slice(t, min(t + size, T)) for t in range(0, T, size)]
