"""Published models as specs, each with its source. Free of torch.

Sources: Jamba, arXiv 2403.19887 and the released configuration ai21labs/Jamba-v0.1; Llama 2,
arXiv 2307.09288; Mistral 7B, arXiv 2310.06825; Mixtral, arXiv 2401.04088; Jamba-tiny-dev, the
released configuration ai21labs/Jamba-tiny-dev.
"""

from hybrid.jamba import jamba
from hybrid.spec import MLP, Attention, FeedForward, Layer, ModelSpec, MoE, Rope


def _transformer(
    *, vocab: int, width: int, depth: int, attention: Attention, feed_forward: FeedForward
) -> ModelSpec:
    layer = Layer(mixer=attention, feed_forward=feed_forward)
    return ModelSpec(vocab=vocab, width=width, layers=(layer,) * depth, norm_eps=1e-5)


LLAMA_2_7B = _transformer(
    vocab=32_000,
    width=4096,
    depth=32,
    attention=Attention(heads=32, kv_heads=32, positions=Rope()),
    feed_forward=MLP(hidden=11_008),
)
LLAMA_2_13B = _transformer(
    vocab=32_000,
    width=5120,
    depth=40,
    attention=Attention(heads=40, kv_heads=40, positions=Rope()),
    feed_forward=MLP(hidden=13_824),
)
LLAMA_2_70B = _transformer(
    vocab=32_000,
    width=8192,
    depth=80,
    attention=Attention(heads=64, kv_heads=8, positions=Rope()),
    feed_forward=MLP(hidden=28_672),
)
MISTRAL_7B = _transformer(
    vocab=32_000,
    width=4096,
    depth=32,
    attention=Attention(heads=32, kv_heads=8, window=4096, positions=Rope()),
    feed_forward=MLP(hidden=14_336),
)
MIXTRAL_8X7B = _transformer(
    vocab=32_000,
    width=4096,
    depth=32,
    attention=Attention(heads=32, kv_heads=8, positions=Rope(theta=1e6)),
    feed_forward=MoE(hidden=14_336, n_experts=8, top_k=2, renormalise=True),
)
JAMBA_V0_1 = jamba(
    vocab=65_536,
    width=4096,
    hidden=14_336,
    blocks=4,
    l=8,
    ratio=(1, 7),
    attention=Attention(heads=32, kv_heads=8),
    moe=MoE(hidden=14_336, n_experts=16, top_k=2),
)
JAMBA_TINY_DEV = jamba(
    vocab=65_536,
    width=512,
    hidden=2048,
    blocks=2,
    l=8,
    ratio=(1, 7),
    attention=Attention(heads=8, kv_heads=2),
    moe=MoE(hidden=2048, n_experts=8, top_k=2),
)

PRESETS = {
    "llama-2-7b": LLAMA_2_7B,
    "llama-2-13b": LLAMA_2_13B,
    "llama-2-70b": LLAMA_2_70B,
    "mistral-7b": MISTRAL_7B,
    "mixtral-8x7b": MIXTRAL_8X7B,
    "jamba-v0.1": JAMBA_V0_1,
    "jamba-tiny-dev": JAMBA_TINY_DEV,
}
