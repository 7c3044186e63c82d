"""Configurations: the released one, every spacing of layers, and those that are refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybrid import cost, huggingface, ops
from hybrid.huggingface import config as config_module
from hybrid.model import build
from hybrid.presets import JAMBA_TINY_DEV, JAMBA_V0_1
from hybrid.spec import MLP, Attention, DtInit, Layer, Mamba, Mamba2, ModelSpec, MoE, Rope, stack
from tests.huggingface.jambas import HYBRID, MIXTURES, VOCAB, WIDTH
from tests.huggingface.theirs import transformers

RELEASED = {  # ai21labs/Jamba-v0.1, config.json
    "architectures": ["JambaForCausalLM"],
    "attention_dropout": 0.0,
    "attn_layer_offset": 4,
    "attn_layer_period": 8,
    "bos_token_id": 1,
    "calc_logits_for_entire_prompt": False,
    "eos_token_id": 2,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "mamba_conv_bias": True,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "mamba_dt_rank": 256,
    "mamba_expand": 2,
    "mamba_inner_layernorms": True,
    "mamba_proj_bias": False,
    "model_type": "jamba",
    "n_ctx": 262144,
    "num_attention_heads": 32,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "output_router_logits": False,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0",
    "use_cache": True,
    "use_mamba_kernels": True,
    "vocab_size": 65536,
}


def test_the_released_configuration_is_the_preset():
    assert huggingface.spec_of(RELEASED) == JAMBA_V0_1
    assert huggingface.spec_of(transformers.JambaConfig().to_dict()) == JAMBA_V0_1


@pytest.mark.parametrize("spec", [JAMBA_V0_1, JAMBA_TINY_DEV], ids=["v0.1", "tiny-dev"])
def test_presets_are_theirs_to_the_last_parameter(spec):
    config = transformers.JambaConfig(**huggingface.config_of(spec))
    with torch.device("meta"):
        theirs = transformers.JambaForCausalLM(config)
    assert sum(p.numel() for p in theirs.parameters()) == cost.params(spec)
    assert huggingface.spec_of(config.to_dict()) == spec


def test_an_automatic_rank_of_dt_is_the_default_one():
    config = {**huggingface.config_of(HYBRID), "mamba_dt_rank": "auto"}
    spec = huggingface.spec_of(config)
    assert spec.layers[0].mixer == Mamba(d_state=4)
    assert spec == huggingface.spec_of(transformers.JambaConfig(**config).to_dict())


def test_one_expert_is_an_mlp_as_in_theirs():
    every_layer = {"expert_layer_period": 1, "expert_layer_offset": 0, "num_experts": 1}
    config = {**huggingface.config_of(HYBRID), **every_layer}
    spec = huggingface.spec_of(config)
    assert {type(layer.feed_forward) for layer in spec.layers} == {MLP}
    theirs = transformers.JambaForCausalLM(transformers.JambaConfig(**config))
    assert cost.params(spec) == sum(p.numel() for p in theirs.parameters())


def test_every_key_of_the_installed_jamba_is_known():
    known = config_module.MEANT.keys() | config_module.FIXED.keys() | config_module.IRRELEVANT
    assert transformers.JambaConfig().to_dict().keys() <= known


@settings(deadline=None)  # the first draw builds their configuration class
@given(data=st.data(), depth=st.integers(1, 12))
def test_every_even_spacing_is_told_as_their_configuration_places_it(data, depth):
    periods = st.integers(1, 14)
    mixer_period, moe_period = data.draw(periods), data.draw(periods)
    config = {
        **huggingface.config_of(HYBRID),
        "num_hidden_layers": depth,
        "attn_layer_period": mixer_period,
        "attn_layer_offset": data.draw(st.integers(0, mixer_period - 1)),
        "expert_layer_period": moe_period,
        "expert_layer_offset": data.draw(st.integers(0, moe_period - 1)),
    }
    spec = huggingface.spec_of(config)
    given_places = transformers.JambaConfig(**config)
    told_places = transformers.JambaConfig(**huggingface.config_of(spec))
    assert told_places.layers_block_type == given_places.layers_block_type
    assert [n > 1 for n in told_places.layers_num_experts] == [
        n > 1 for n in given_places.layers_num_experts
    ]
    assert huggingface.spec_of(huggingface.config_of(spec)) == spec
    kinds = ["attention" if type(x.mixer) is Attention else "mamba" for x in spec.layers]
    assert kinds == given_places.layers_block_type


def test_how_dt_starts_is_not_part_of_a_finished_model():
    zero = replace(HYBRID.layers[0], mixer=replace(HYBRID.layers[0].mixer, dt_init=DtInit.ZERO))
    spec = replace(HYBRID, layers=(zero, *HYBRID.layers[1:]))
    assert huggingface.config_of(spec) == huggingface.config_of(HYBRID)


ATTENTION, MAMBA, DENSE = Attention(heads=4, kv_heads=2), Mamba(d_state=4), MLP(hidden=24)


def layered(*parts) -> ModelSpec:
    layers = tuple(Layer(mixer=mixer, feed_forward=feed) for mixer, feed in parts)
    return ModelSpec(vocab=VOCAB, width=WIDTH, layers=layers)


UNSAYABLE = {
    r"layers\[1\].mixer: window=5 must be None": layered(
        (MAMBA, DENSE), (Attention(heads=4, kv_heads=2, window=5), DENSE)
    ),
    r"layers\[0\].mixer: positions=Rope\(theta=10000.0\) must be None": layered(
        (Attention(heads=4, kv_heads=2, positions=Rope()), DENSE)
    ),
    r"layers\[0\].mixer: inner_norm=False must be True": layered((Mamba(inner_norm=False), DENSE)),
    r"layers\[0\].mixer: d_conv=None must be a width of 1 or more": layered(
        (Mamba(d_conv=None), DENSE)
    ),
    r"layers\[1\].mixer: Mamba2\(.*\) must be .*: transformers' Jamba has no Mamba-2": layered(
        (MAMBA, DENSE), (Mamba2(d_state=4, head_width=8), DENSE)
    ),
    r"layers\[1\]: feed_forward=None must be an MLP or a MoE": layered(
        (MAMBA, DENSE), (MAMBA, None)
    ),
    r"layers\[1\].feed_forward: hidden=32 must be 24 as in layers\[0\]": layered(
        (MAMBA, DENSE), (MAMBA, MoE(hidden=32, n_experts=4, top_k=1))
    ),
    r"layers\[0\].feed_forward: renormalise=True must be False": layered(
        (MAMBA, MoE(hidden=24, n_experts=4, top_k=2, renormalise=True))
    ),
    r"layers\[0\].feed_forward: n_experts=1 must be 2 or more": layered(
        (MAMBA, MoE(hidden=24, n_experts=1, top_k=1))
    ),
    r"layers\[1\].feed_forward: top_k=2 must be 1 as in layers\[0\].feed_forward": layered(
        (MAMBA, MIXTURES["top1"]), (MAMBA, MIXTURES["top2"])
    ),
    r"layers\[2\].mixer: kv_heads=4 must be 2 as in layers\[0\].mixer": layered(
        (ATTENTION, DENSE), (MAMBA, DENSE), (Attention(heads=4, kv_heads=4), DENSE)
    ),
    r"layers\[1\].mixer: dt_rank=5 must be 1 as in layers\[0\].mixer": layered(
        (MAMBA, DENSE), (Mamba(d_state=4, dt_rank=5), DENSE)
    ),
    r"layers: Attention at \[0, 1\] of 4 must be evenly spaced": replace(
        HYBRID,
        layers=stack(
            "AAMM",
            A=Layer(mixer=ATTENTION, feed_forward=DENSE),
            M=Layer(mixer=MAMBA, feed_forward=DENSE),
        ),
    ),
    r"layers: MoE at \[2, 3\] of 4 must be evenly spaced": layered(
        *[(MAMBA, DENSE)] * 2, *[(MAMBA, MIXTURES["top1"])] * 2
    ),
}


@pytest.mark.parametrize(("message", "spec"), UNSAYABLE.items(), ids=UNSAYABLE)
def test_what_their_jamba_cannot_be_is_refused_by_name(message, spec, tmp_path):
    with pytest.raises(ValueError, match=message):
        huggingface.config_of(spec)
    with pytest.raises(ValueError, match=message):
        huggingface.save(build(spec, ops=ops.REFERENCE), tmp_path / "m")
    assert [*tmp_path.iterdir()] == []


UNREADABLE = [
    ("sliding_windows", 3, "unknown key 'sliding_windows' with value 3"),
    ("head_dim", 8, "unknown key 'head_dim'"),
    ("rope_theta", 1e4, "unknown key 'rope_theta'"),
    ("quantization_config", {}, "unknown key 'quantization_config'"),
    ("hidden_act", "gelu", "hidden_act='gelu' must be 'silu'"),
    ("model_type", "mamba", "model_type='mamba' must be 'jamba'"),
    ("mamba_proj_bias", True, "mamba_proj_bias=True must be False"),
    ("mamba_conv_bias", False, "mamba_conv_bias=False must be True"),
    ("attention_dropout", 0.1, "attention_dropout=0.1 must be 0.0"),
    ("sliding_window", 64, "sliding_window=64 must be None"),
    ("architectures", ["JambaForSequenceClassification"], "architectures="),
    ("num_hidden_layers", 0, "num_hidden_layers=0 is too small"),
    ("hidden_size", "16", "hidden_size='16' must be of type int"),
    ("vocab_size", 64.0, "vocab_size=64.0 must be of type int"),
    ("tie_word_embeddings", 1, "tie_word_embeddings=1 must be of type bool"),
    ("num_key_value_heads", None, "num_key_value_heads=None must be of type int"),
    ("mamba_dt_rank", "auo", "mamba_dt_rank='auo' must be of type int"),
    ("attn_layer_offset", 4, "attn_layer_offset=4 must be below attn_layer_period=4"),
    ("expert_layer_offset", -1, "expert_layer_offset=-1 is too small"),
    ("num_attention_heads", 3, "kv_heads=2 must divide heads=3"),
    ("num_experts_per_tok", 9, "top_k=9 must lie in 1..n_experts=4"),
    ("rms_norm_eps", 0.0, "norm_eps=0.0 must be above 0"),
]


@pytest.mark.parametrize(("key", "value", "message"), UNREADABLE, ids=[x[0] for x in UNREADABLE])
def test_a_configuration_our_model_cannot_be_is_refused_by_key(key, value, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        huggingface.spec_of({**huggingface.config_of(HYBRID), key: value})


@pytest.mark.parametrize("key", config_module.MEANT)
def test_a_missing_key_is_refused_by_name(key):
    config = huggingface.config_of(HYBRID)
    del config[key]
    with pytest.raises(ValueError, match=f"key '{key}' is missing"):
        huggingface.spec_of(config)
