"""A spec as the configuration of transformers' Jamba, and back. Free of torch and transformers.

A configuration is the data of a `config.json`; that of a `JambaConfig` is its `to_dict()`. Theirs
says less than a spec: one attention, one Mamba, one feed-forward width and one mixture of experts
for all layers, each kind at every p-th layer. What cannot be said is refused by name, both ways.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from hybrid.spec import (
    MLP,
    Attention,
    DtInit,
    FeedForward,
    Layer,
    Mamba,
    Mamba2,
    Mixer,
    ModelSpec,
    MoE,
    require,
)

Part = TypeVar("Part", Attention, Mamba, MoE)

# Fields of our specs that have one value in transformers' Jamba.
ONLY: dict[type, dict[str, Any]] = {
    Attention: {"window": None, "positions": None},
    Mamba: {"inner_norm": True},
    MLP: {},
    MoE: {"renormalise": False},
}

# Their keys that say what a model is, with the type of each; all must be there.
MEANT: dict[str, type] = {
    "vocab_size": int,
    "hidden_size": int,
    "intermediate_size": int,
    "num_hidden_layers": int,
    "tie_word_embeddings": bool,
    "rms_norm_eps": float,
    "num_attention_heads": int,
    "num_key_value_heads": int,
    "attn_layer_period": int,
    "attn_layer_offset": int,
    "mamba_d_state": int,
    "mamba_d_conv": int,
    "mamba_expand": int,
    "mamba_dt_rank": int,
    "num_experts": int,
    "num_experts_per_tok": int,
    "expert_layer_period": int,
    "expert_layer_offset": int,
}

# Their keys that may be there, with the values our model can be.
FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("jamba",),
    "architectures": (["JambaForCausalLM"], None),
    "hidden_act": ("silu",),
    "mamba_conv_bias": (True,),
    "mamba_proj_bias": (False,),
    "attention_dropout": (0.0,),
    "is_encoder_decoder": (False,),
    "chunk_size_feed_forward": (0,),
    # Written by transformers before 5.
    "mamba_inner_layernorms": (True,),
    "sliding_window": (None,),
}

# Their keys that change no logits: names, initialisation, training, ways of computing. A
# `pad_token_id` zeroes its row of the embedding when a model is made, not when it is loaded.
IRRELEVANT = frozenset(
    (
        *("_name_or_path", "transformers_version", "dtype", "return_dict", "problem_type"),
        *("id2label", "label2id", "bos_token_id", "eos_token_id", "pad_token_id"),
        *("initializer_range", "router_aux_loss_coef", "output_router_logits"),
        *("output_attentions", "output_hidden_states", "max_position_embeddings"),
        *("use_cache", "use_mamba_kernels", "use_mambapy", "use_associative_scan"),
        # Written by transformers before 5.
        *("torch_dtype", "n_ctx", "num_logits_to_keep", "calc_logits_for_entire_prompt"),
    )
)


def config_of(spec: ModelSpec, *, separator_id: int | None = None) -> dict[str, Any]:
    """Return `spec` as the data of a `config.json` that transformers opens as Jamba.

    `separator_id` is the token between documents; it becomes the begin and the end of a text. There
    is no padding token: theirs would zero and freeze its row of the embedding. How dt's bias
    starts (`Mamba.dt_init`) is not said: no key of theirs holds it, and weights that are written
    have started. Raises ValueError, naming field and value, for what their Jamba cannot be.
    """
    hidden = _hidden(spec.layers)
    mixers = {f"layers[{i}].mixer": _plain(x.mixer, spec.width) for i, x in enumerate(spec.layers)}
    for where, mixer in mixers.items():
        require(
            not isinstance(mixer, Mamba2),
            f"{where}: {mixer!r} must be an Attention or a Mamba: "
            "transformers' Jamba has no Mamba-2",
        )
    feeds = {f"layers[{i}].feed_forward": x.feed_forward for i, x in enumerate(spec.layers)}
    # A kind that no layer has still fills its keys, with what disturbs their code least.
    attention = _shared(mixers, Attention) or Attention(heads=1, kv_heads=1)
    mamba = _shared(mixers, Mamba) or _plain(Mamba(), spec.width)
    moe = _shared(feeds, MoE) or MoE(hidden=hidden, n_experts=1, top_k=1)
    attention_at, moe_at = _places(mixers, Attention), _places(feeds, MoE)
    return {
        "architectures": ["JambaForCausalLM"],
        "model_type": "jamba",
        "dtype": "float32",
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "intermediate_size": hidden,
        "num_hidden_layers": len(spec.layers),
        "tie_word_embeddings": spec.tied,
        "rms_norm_eps": spec.norm_eps,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "attn_layer_period": attention_at[0],
        "attn_layer_offset": attention_at[1],
        "mamba_d_state": mamba.d_state,
        "mamba_d_conv": mamba.d_conv,
        "mamba_expand": mamba.expand,
        "mamba_dt_rank": mamba.dt_rank,
        "num_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
        "expert_layer_period": moe_at[0],
        "expert_layer_offset": moe_at[1],
        "bos_token_id": separator_id,
        "eos_token_id": separator_id,
        "pad_token_id": None,
    }


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec that `config` describes, the data of a `config.json` of transformers' Jamba.

    A rank of dt that is the default of its width is written as None. Raises ValueError for a key
    that is unknown or missing and for a value our model cannot be, naming key and value.
    """
    c = _checked(config)
    attention = Attention(heads=c["num_attention_heads"], kv_heads=c["num_key_value_heads"])
    rank = c["mamba_dt_rank"]
    mamba = Mamba(
        d_state=c["mamba_d_state"],
        d_conv=c["mamba_d_conv"],
        expand=c["mamba_expand"],
        dt_rank=None if rank == Mamba().rank(c["hidden_size"]) else rank,
    )
    hidden, n_experts = c["intermediate_size"], c["num_experts"]
    dense = MLP(hidden=hidden)
    # One expert is no mixture: theirs is then an MLP without a router.
    sparse = (
        dense
        if n_experts == 1
        else MoE(hidden=hidden, n_experts=n_experts, top_k=c["num_experts_per_tok"])
    )

    def at(i: int, kind: str) -> bool:
        return i % c[f"{kind}_layer_period"] == c[f"{kind}_layer_offset"]

    return ModelSpec(
        vocab=c["vocab_size"],
        width=c["hidden_size"],
        layers=tuple(
            Layer(
                mixer=attention if at(i, "attn") else mamba,
                feed_forward=sparse if at(i, "expert") else dense,
            )
            for i in range(c["num_hidden_layers"])
        ),
        tied=c["tie_word_embeddings"],
        norm_eps=c["rms_norm_eps"],
    )


def _hidden(layers: tuple[Layer, ...]) -> int:
    """Return the width of all feed-forwards."""
    widths = []
    for i, layer in enumerate(layers):
        require(
            layer.feed_forward is not None,
            f"layers[{i}]: feed_forward=None must be an MLP or a MoE: "
            "every layer of transformers' Jamba has one",
        )
        assert layer.feed_forward is not None
        widths.append(layer.feed_forward.hidden)
        require(
            widths[i] == widths[0],
            f"layers[{i}].feed_forward: hidden={widths[i]} must be {widths[0]} as in layers[0]: "
            "transformers' Jamba has one intermediate_size, also for experts",
        )
    return widths[0]


def _plain(mixer: Mixer, width: int) -> Any:
    """Return `mixer` with what two Mamba specs may spell differently spelt in one way."""
    match mixer:
        case Mamba():
            return replace(mixer, dt_rank=mixer.rank(width), dt_init=DtInit.LOG_UNIFORM)
        case _:
            return mixer


def _shared(parts: Mapping[str, Mixer | FeedForward | None], kind: type[Part]) -> Part | None:
    """Return what all parts of `kind` are, after checking that theirs can be that; None without."""
    found = {where: part for where, part in parts.items() if isinstance(part, kind)}
    first = next(iter(found.items()), None)
    if first is None:
        return None
    for where, part in found.items():
        _check(where, part)
        for name in (field.name for field in fields(kind)):
            value, right = getattr(part, name), getattr(first[1], name)
            require(
                value == right,
                f"{where}: {name}={value!r} must be {right!r} as in {first[0]}: "
                f"transformers' Jamba has one {kind.__name__} for all layers",
            )
    return first[1]


def _check(where: str, part: Attention | Mamba | MoE) -> None:
    for name, right in ONLY[type(part)].items():
        value = getattr(part, name)
        require(
            value == right,
            f"{where}: {name}={value!r} must be {right!r}: transformers' Jamba has nothing else",
        )
    match part:
        case Mamba(d_conv=None):
            raise ValueError(
                f"{where}: d_conv=None must be a width of 1 or more: "
                "transformers' Jamba always has the short convolution"
            )
        case MoE(n_experts=1):
            raise ValueError(
                f"{where}: n_experts=1 must be 2 or more: "
                "transformers' Jamba makes an MLP without a router of it"
            )


def _places(parts: Mapping[str, Mixer | FeedForward | None], kind: type) -> tuple[int, int]:
    """Return (period, offset) such that part i is a `kind` exactly where i % period == offset."""
    depth = len(parts)
    at = [i for i, part in enumerate(parts.values()) if isinstance(part, kind)]
    if not at:
        return depth + 1, depth
    period = depth if len(at) == 1 else at[1] - at[0]
    require(
        at[0] < period and at == list(range(at[0], depth, period)),
        f"layers: {kind.__name__} at {at} of {depth} must be evenly spaced, the first one sooner "
        "than one such space from the start: transformers' Jamba knows a period and an offset",
    )
    return period, at[0]


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `config` that are in MEANT, after checking all of them."""
    known = MEANT.keys() | FIXED.keys() | IRRELEVANT
    for key, value in config.items():
        require(
            key in known,
            f"config: unknown key {key!r} with value {value!r}; known keys are {sorted(known)}",
        )
        allowed = FIXED.get(key, (value,))
        right = " or ".join(map(repr, allowed))
        require(value in allowed, f"config: {key}={value!r} must be {right}")
    c = dict(config)
    if c.get("mamba_dt_rank") == "auto" and type(c.get("hidden_size")) is int:
        c["mamba_dt_rank"] = Mamba().rank(c["hidden_size"])  # as `JambaConfig` reads it
    for key, kind in MEANT.items():
        require(key in c, f"config: key {key!r} is missing")
        require(
            type(c[key]) is kind,
            f"config: {key}={c[key]!r} must be of type {kind.__name__}",
        )
        require(
            kind is not int or c[key] >= (0 if key.endswith("_offset") else 1),
            f"config: {key}={c[key]} is too small",
        )
    for place in ("attn_layer", "expert_layer"):
        offset, period = c[f"{place}_offset"], c[f"{place}_period"]
        require(
            offset < period,
            f"config: {place}_offset={offset} must be below {place}_period={period}",
        )
    return {key: c[key] for key in MEANT}
