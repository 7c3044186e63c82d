"""Jambas small enough to hold against transformers', and what the two are compared by."""

from dataclasses import replace
from itertools import cycle, product

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid import ops
from hybrid.jamba import jamba
from hybrid.model import HybridLM, build
from hybrid.spec import Attention, Mamba, ModelSpec, MoE

VOCAB, WIDTH, TOKENS = 64, 16, 11
MIXTURES = {
    "dense": None,
    "top1": MoE(hidden=24, n_experts=4, top_k=1),
    "top2": MoE(hidden=24, n_experts=4, top_k=2),
}


def tiny(
    ratio: tuple[int, int], *, moe: MoE | None = None, kv_heads: int = 2, tied: bool = False, **more
) -> ModelSpec:
    return jamba(
        vocab=VOCAB,
        width=WIDTH,
        hidden=24,
        blocks=1,
        l=2 if ratio == (1, 0) else sum(ratio),
        ratio=ratio,
        attention=Attention(heads=4, kv_heads=kv_heads),
        mamba=Mamba(d_state=4, dt_rank=3),
        moe=moe,
        tied=tied,
        **more,
    )


# Every ratio with every mixture, and among those each number of heads and each tying with either.
GRID = {
    f"{ratio[0]}:{ratio[1]}-{name}-{kv_heads}kv-{'tied' if tied else 'untied'}": tiny(
        ratio, moe=MIXTURES[name], kv_heads=kv_heads, tied=tied
    )
    for (ratio, name), kv_heads, tied in zip(
        product([(1, 0), (1, 3), (1, 7)], MIXTURES),
        cycle([4, 2]),
        cycle([False, False, True, True]),
    )
}
HYBRID = tiny((1, 3), moe=MIXTURES["top2"])
OTHERS = {
    "0:1": replace(HYBRID, layers=HYBRID.layers[:2]),
    "two-blocks": replace(HYBRID, layers=HYBRID.layers * 2),
    "attention-first": tiny((1, 3), attention_offset=0),
    "every-layer-moe": tiny((1, 3), moe=MIXTURES["top1"], e=1, moe_offset=0),
    "one-kv-head": tiny((1, 3), kv_heads=1),
    "other-mamba": replace(
        HYBRID,
        layers=tuple(
            replace(x, mixer=Mamba(d_state=3, d_conv=2, expand=3)) if i != 2 else x
            for i, x in enumerate(HYBRID.layers)
        ),
        norm_eps=1e-3,
    ),
}
SPECS = {**GRID, **OTHERS}


@torch.no_grad()
def disturb(model: torch.nn.Module) -> None:
    """Move every weight, so that no norm is one, no bias zero and no channel like another."""
    draws = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, generator=draws)


def ours_of(spec: ModelSpec, backend: ops.Ops = ops.REFERENCE) -> HybridLM:
    model = build(spec, ops=backend)
    disturb(model)
    return model


def ids(tokens: int = TOKENS) -> Tensor:
    return torch.randint(VOCAB, (2, tokens), generator=torch.Generator().manual_seed(1))


def close(ours: Tensor, theirs: Tensor, allowed: float = 3e-5) -> None:
    """Check that the largest difference is small beside the largest entry: fp32, many layers."""
    assert ours.shape == theirs.shape
    difference, scale = (ours - theirs).abs().max(), theirs.abs().max()
    assert difference <= allowed * scale, f"{difference:.1e} of {scale:.1e}"


def has_router(spec: ModelSpec) -> bool:
    return any(type(layer.feed_forward) is MoE for layer in spec.layers)


def lm_loss(model: HybridLM, ids_BT: Tensor) -> Tensor:
    logits_BTV = model(ids_BT).logits_BTV
    return F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())
