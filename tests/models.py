"""Tiny specs for the laws: every mixer and every feed-forward at least once, alone and mixed."""

from dataclasses import replace

from hybrid.spec import MLP, Attention, DtInit, Layer, Mamba, Mamba2, ModelSpec, MoE, Rope, stack

VOCAB = 32
WIDTH = 16

MIXERS = {
    "attention": Attention(heads=4, kv_heads=2),
    "attention_rope": Attention(heads=2, kv_heads=2, positions=Rope()),
    "attention_window": Attention(heads=4, kv_heads=1, window=5),
    "attention_window_rope": Attention(heads=4, kv_heads=4, window=3, positions=Rope(theta=100.0)),
    "mamba": Mamba(d_state=4),
    "mamba_plain": Mamba(d_state=3, inner_norm=False, d_conv=2, expand=1, dt_rank=3),
    "mamba_no_conv": Mamba(d_state=4, d_conv=None, dt_init=DtInit.ZERO),
    "mamba2": Mamba2(d_state=4, head_width=8),
    "mamba2_groups": Mamba2(d_state=3, head_width=4, groups=2, d_conv=2, expand=1),
    "mamba2_plain": Mamba2(
        d_state=4, head_width=16, d_conv=None, gated_norm=False, dt_init=DtInit.ZERO
    ),
}
FEED_FORWARDS = {
    "none": None,
    "mlp": MLP(hidden=24),
    "moe": MoE(hidden=8, n_experts=4, top_k=2),
    "moe_renormalised": MoE(hidden=8, n_experts=3, top_k=1, renormalise=True),
}


def tiny(*layers: Layer, tied: bool = False) -> ModelSpec:
    return ModelSpec(vocab=VOCAB, width=WIDTH, layers=layers, tied=tied)


ONE_MIXER = {
    name: tiny(Layer(mixer=mixer, feed_forward=FEED_FORWARDS["mlp"]))
    for name, mixer in MIXERS.items()
}
ONE_FEED_FORWARD = {
    name: tiny(Layer(mixer=MIXERS["mamba"], feed_forward=feed_forward))
    for name, feed_forward in FEED_FORWARDS.items()
}
HYBRID = ModelSpec(
    vocab=VOCAB,
    width=WIDTH,
    layers=stack(
        "MXAW",
        M=Layer(mixer=MIXERS["mamba"], feed_forward=FEED_FORWARDS["mlp"]),
        X=Layer(mixer=MIXERS["mamba_plain"], feed_forward=FEED_FORWARDS["moe"]),
        A=Layer(mixer=MIXERS["attention"], feed_forward=FEED_FORWARDS["none"]),
        W=Layer(mixer=MIXERS["attention_window_rope"], feed_forward=FEED_FORWARDS["moe"]),
    ),
)
SPECS = {
    **{f"mixer-{name}": spec for name, spec in ONE_MIXER.items()},
    **{f"feed_forward-{name}": spec for name, spec in ONE_FEED_FORWARD.items()},
    "hybrid": HYBRID,
    "hybrid-tied": replace(HYBRID, tied=True),
}
