"""Parity with transformers' Jamba, both ways, and the checkpoint folders that are refused.

Long because every refusal has its own damaged folder; a split by module would suit it.
"""

import gc
import json
import pickle
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybrid import cost, ops
from hybrid.generate import sample
from hybrid.jamba import jamba
from hybrid.model import HybridLM, build
from hybrid.presets import JAMBA_TINY_DEV, JAMBA_V0_1
from hybrid.spec import MLP, Attention, DtInit, Layer, Mamba, Mamba2, ModelSpec, MoE, Rope, stack
from sweeps.trial.data import tokenizer as byte_bpe

transformers = pytest.importorskip("transformers", reason="pip install 'hybrid-workbench[hf]'")
safetensors_torch = pytest.importorskip("safetensors.torch")
safe_open = safetensors_torch.safe_open

from hybrid import huggingface  # noqa: E402
from hybrid.huggingface import config as config_module  # noqa: E402
from hybrid.huggingface import reader, writer  # noqa: E402
from hybrid.layers.moe import Routing, balance_loss  # noqa: E402

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


GRID = {
    f"{ratio[0]}:{ratio[1]}-{name}-{kv_heads}kv-{'tied' if tied else 'untied'}": tiny(
        ratio, moe=moe, kv_heads=kv_heads, tied=tied
    )
    for ratio in [(1, 0), (1, 3), (1, 7)]
    for name, moe in MIXTURES.items()
    for kv_heads in [4, 2]
    for tied in [False, True]
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


def theirs_of(spec: ModelSpec):
    model = transformers.JambaForCausalLM(
        transformers.JambaConfig(**huggingface.config_of(spec))
    ).eval()
    disturb(model)
    return model


def opened(folder: Path):
    """The model that transformers finds in the folder; no tensor may be missing or left over."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


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


@pytest.fixture(scope="module", params=SPECS.values(), ids=SPECS)
def pair(request, tmp_path_factory):
    """(spec, our random model, its folder, the same opened with transformers)."""
    folder = tmp_path_factory.mktemp("ours") / "model"
    ours = ours_of(request.param)
    huggingface.save(ours, folder)
    return request.param, ours, folder, opened(folder)


# --- ours opened with theirs


def test_our_model_has_the_same_logits_in_theirs(pair):
    _, ours, _, theirs = pair
    close(ours(ids()).logits_BTV, theirs(ids(), use_cache=False).logits)


def test_our_model_has_the_same_losses_in_theirs(pair):
    spec, ours, _, theirs = pair
    routed = has_router(spec)
    output = theirs(ids(), labels=ids(), use_cache=False, output_router_logits=routed)
    loss = lm_loss(ours, ids())
    if routed:
        balance = huggingface.pooled_balance_loss(ours(ids()).routings)
        close(balance, output.aux_loss)
        loss = loss + theirs.config.router_aux_loss_coef * balance
    close(loss, output.loss)


def test_greedy_decoding_agrees_token_for_token(pair):
    spec, ours, _, theirs = pair
    cached = any(type(layer.mixer) is Attention for layer in spec.layers)  # theirs raises without
    chosen = theirs.generate(ids(), do_sample=False, max_new_tokens=8, use_cache=cached)
    mine = torch.stack([*sample(ours, ids(), tokens=8)], dim=1)
    assert torch.equal(mine, chosen[:, TOKENS:])


def test_single_steps_after_one_prefill_have_the_same_logits(pair):
    spec, ours, _, theirs = pair
    if not any(type(layer.mixer) is Attention for layer in spec.layers):
        return  # their cache raises
    cache, past = None, None
    for piece in ids().split([7] + [1] * (TOKENS - 7), dim=1):
        output = theirs(piece, past_key_values=past, use_cache=True)
        past = output.past_key_values
        logits_BTV, cache, _ = ours(piece, cache)
        close(logits_BTV, output.logits)


def test_both_have_the_parameters_that_were_predicted(pair):
    spec, ours, _, theirs = pair
    assert cost.params(spec) == sum(p.numel() for p in theirs.parameters())
    assert cost.params(spec) == sum(p.numel() for p in ours.parameters())


def test_saved_and_loaded_is_equal_bit_for_bit(pair):
    spec, ours, folder, _ = pair
    again = huggingface.load(folder, ops=ops.REFERENCE)
    assert again.spec == spec
    assert again.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], p) for name, p in ours.state_dict().items())
    assert (again.head.weight is again.embed.weight) == spec.tied
    assert all(p.requires_grad and p.dtype == torch.float32 for p in again.parameters())


def test_the_configuration_comes_back_from_theirs(pair):
    spec, _, folder, theirs = pair
    assert huggingface.spec_of(json.loads((folder / "config.json").read_text())) == spec
    assert huggingface.spec_of(theirs.config.to_dict()) == spec
    assert theirs.config.pad_token_id is None


# --- theirs opened with ours


@pytest.fixture(scope="module", params=SPECS.values(), ids=SPECS)
def their_pair(request, tmp_path_factory):
    """(the spec, their random model, its folder)."""
    folder = tmp_path_factory.mktemp("theirs")
    theirs = theirs_of(request.param)
    theirs.save_pretrained(folder)
    return request.param, theirs, folder


@pytest.mark.parametrize("backend", [ops.REFERENCE, ops.CPU], ids=lambda each: each.name)
def test_their_model_has_the_same_logits_in_ours(their_pair, backend):
    spec, theirs, folder = their_pair
    ours = huggingface.load(folder, ops=backend)
    assert ours.spec == spec
    close(ours(ids()).logits_BTV, theirs(ids(), use_cache=False).logits)


def test_their_tensors_come_back_bit_for_bit(their_pair, tmp_path):
    folder = their_pair[2]
    huggingface.save(huggingface.load(folder), tmp_path / "again")
    files = [path / "model.safetensors" for path in (folder, tmp_path / "again")]
    before, after = map(safetensors_torch.load_file, files)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    their_metadata, our_metadata = (safe_open(x, framework="pt").metadata() for x in files)
    assert our_metadata == their_metadata


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_the_whole_loss_agree(tied, tmp_path):
    spec = replace(HYBRID, tied=tied)
    theirs = theirs_of(spec)
    theirs.save_pretrained(tmp_path / "weights")
    theirs(ids(), labels=ids(), use_cache=False, output_router_logits=True).loss.backward()
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    theirs.save_pretrained(tmp_path / "gradients")
    gradients = dict(huggingface.load(tmp_path / "gradients").named_parameters())

    ours = huggingface.load(tmp_path / "weights", ops=ops.REFERENCE)
    balance = huggingface.pooled_balance_loss(ours(ids()).routings)
    (lm_loss(ours, ids()) + theirs.config.router_aux_loss_coef * balance).backward()
    for name, parameter in ours.named_parameters():
        assert parameter.grad.any()
        close(parameter.grad, gradients[name], allowed=2e-4)


def test_bf16_weights_are_read_as_fp32(tmp_path):
    theirs = theirs_of(HYBRID).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    ours = huggingface.load(tmp_path, ops=ops.REFERENCE)
    assert ours.embed.weight.dtype == torch.float32
    close(ours(ids()).logits_BTV, theirs.float()(ids()).logits)


# --- shards, tokenizer, memory


def test_shards_written_by_us_open_in_both(tmp_path):
    ours = ours_of(HYBRID)
    huggingface.save(ours, tmp_path / "m", max_shard_bytes=10_000)
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(shards) > 3
    assert all(shard.stat().st_size < 10_000 + 4_000 for shard in shards)  # names take room too
    logits = ours(ids()).logits_BTV
    assert torch.equal(
        huggingface.load(tmp_path / "m", ops=ops.REFERENCE)(ids()).logits_BTV, logits
    )
    close(logits, opened(tmp_path / "m")(ids()).logits)


def test_shards_written_by_them_open_in_ours(tmp_path):
    theirs = theirs_of(HYBRID)
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 3
    close(huggingface.load(tmp_path)(ids()).logits_BTV, theirs(ids()).logits)


def test_a_tokenizer_gives_the_same_tokens_in_theirs(tmp_path):
    text = "the cat's sat on 12 mats;\n\n  the Café's mats sat, " * 20
    trained = byte_bpe.train([text], vocab=280)
    tokenizer = huggingface.Tokenizer(json_text=trained.json_text, separator=byte_bpe.SEPARATOR)
    model = build(replace(HYBRID, vocab=280), ops=ops.REFERENCE)
    huggingface.save(model, tmp_path / "m", tokenizer=tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    for piece in [text, "é\t🙂 don't", f"quoted {byte_bpe.SEPARATOR} here", "", "  a  b .  c "]:
        assert theirs.encode(piece) == trained.encode(piece)
        assert theirs.decode(trained.encode(piece)) == trained.decode(trained.encode(piece))
    assert theirs.eos_token_id == theirs.bos_token_id == byte_bpe.SEPARATOR_ID
    assert len(theirs) == trained.vocab
    config = opened(tmp_path / "m").config
    assert config.bos_token_id == config.eos_token_id == byte_bpe.SEPARATOR_ID
    assert config.pad_token_id is None
    assert huggingface.load(tmp_path / "m").spec == model.spec


def test_a_tokenizer_without_its_separator_is_refused(tmp_path):
    trained = byte_bpe.train(["a b"], vocab=257)
    tokenizer = huggingface.Tokenizer(json_text=trained.json_text, separator="</s>")
    with pytest.raises(ValueError, match=r"separator='</s>' must be one of its special tokens"):
        huggingface.save(ours_of(HYBRID), tmp_path / "m", tokenizer=tokenizer)
    assert not (tmp_path / "m").exists()


def test_loading_holds_one_tensor_of_the_file_at_a_time(tmp_path, monkeypatch):
    alive: list[weakref.ref] = []
    reads = 0

    class Watched:
        def __init__(self, *args, **options):
            self.file = real(*args, **options)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error):
            self.file.__exit__(*error)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def get_tensor(self, name):
            nonlocal reads
            reads += 1
            assert not [ref for ref in alive if ref() is not None]
            tensor = self.file.get_tensor(name)
            alive.append(weakref.ref(tensor))
            return tensor

    gc.collect()
    huggingface.save(ours_of(HYBRID), tmp_path / "m", max_shard_bytes=10_000)
    real = reader.safe_open
    monkeypatch.setattr(reader, "safe_open", Watched)
    model = huggingface.load(tmp_path / "m")
    assert reads == len(huggingface.views(model))


# --- folders appear whole or not at all


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(FileExistsError, match="exists; give a folder that does not"):
        huggingface.save(ours_of(HYBRID), tmp_path / "m")
    assert [*(tmp_path / "m").iterdir()] == []


def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch):
    real, written = writer.save_file, []

    def fails_at_the_third(tensors, path, metadata):
        real(tensors, path, metadata=metadata)
        written.append(path)
        assert not (tmp_path / "m").exists()
        if len(written) == 3:
            raise OSError("disk full")

    monkeypatch.setattr(writer, "save_file", fails_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        huggingface.save(ours_of(HYBRID), tmp_path / "m", max_shard_bytes=10_000)
    assert [*tmp_path.iterdir()] == []


# --- the pooled balance loss


def test_pooled_and_separate_balance_differ_when_layers_excuse_each_other():
    first = Routing(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
    second = Routing(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert huggingface.pooled_balance_loss((first, second)) == 1
    assert balance_loss((first, second)) == 2
    assert huggingface.pooled_balance_loss((first,)) == balance_loss((first,)) == 2


def test_pooling_needs_routers_of_one_size():
    two = Routing(torch.ones(2), torch.ones(2))
    for routings in [(), (two, Routing(torch.ones(3), torch.ones(3)))]:
        with pytest.raises(ValueError, match="at least one router, all with the same number"):
            huggingface.pooled_balance_loss(routings)


# --- configurations

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


# --- checkpoints that are refused


@pytest.fixture
def folder(tmp_path) -> Path:
    huggingface.save(ours_of(HYBRID), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def sharded(tmp_path) -> Path:
    huggingface.save(ours_of(HYBRID), tmp_path / "sharded", max_shard_bytes=10_000)
    return tmp_path / "sharded"


def refused(folder: Path, message: str, monkeypatch) -> None:
    """Check that the folder is refused before any weight is allocated."""

    def never(*_args, **_options):
        raise AssertionError("memory for weights was allocated")

    monkeypatch.setattr(HybridLM, "to_empty", never)
    with pytest.raises(ValueError, match=message):
        huggingface.load(folder)


def rewrite(path: Path, change) -> None:
    tensors = safetensors_torch.load_file(path)
    change(tensors)
    safetensors_torch.save_file(tensors, path, metadata={"format": "pt"})


CHANGES = {
    r"model.layers.0.mamba.A_log: missing tensor": lambda t: t.pop("model.layers.0.mamba.A_log"),
    r"lm_head.weight: missing tensor": lambda t: t.pop("lm_head.weight"),
    r"experts.3.up_proj.weight: missing tensor": lambda t: t.pop(
        "model.layers.1.feed_forward.experts.3.up_proj.weight"
    ),
    r"model.layers.9.norm: surplus tensor in model.safetensors": lambda t: t.update(
        {"model.layers.9.norm": torch.ones(2)}
    ),
    r"self_attn.q_proj.bias: surplus tensor": lambda t: t.update(
        {"model.layers.2.self_attn.q_proj.bias": torch.ones(16)}
    ),
    r"conv1d.weight: shape \[32, 4\] must be \[32, 1, 4\]": lambda t: t.update(
        {"model.layers.0.mamba.conv1d.weight": torch.ones(32, 4)}
    ),
    r"k_proj.weight: shape \[16, 16\] must be \[8, 16\]": lambda t: t.update(
        {"model.layers.2.self_attn.k_proj.weight": torch.ones(16, 16)}
    ),
    r"model.embed_tokens.weight: dtype I64 must be one of": lambda t: t.update(
        {"model.embed_tokens.weight": torch.ones(64, 16, dtype=torch.long)}
    ),
    r"model.layers.0.mamba.D: dtype F64 must be one of": lambda t: t.update(
        {"model.layers.0.mamba.D": torch.ones(32, dtype=torch.float64)}
    ),
}


@pytest.mark.parametrize(("message", "change"), CHANGES.items(), ids=CHANGES)
def test_wrong_tensors_are_refused_by_name(message, change, folder, monkeypatch):
    rewrite(folder / "model.safetensors", change)
    refused(folder, message, monkeypatch)


def test_an_unembedding_of_its_own_is_surplus_where_it_is_tied(tmp_path, monkeypatch):
    huggingface.save(ours_of(replace(HYBRID, tied=True)), tmp_path / "m")
    new = {"lm_head.weight": torch.ones(VOCAB, WIDTH)}
    rewrite(tmp_path / "m" / "model.safetensors", lambda t: t.update(new))
    refused(tmp_path / "m", "lm_head.weight: surplus tensor", monkeypatch)


@pytest.mark.parametrize("cut", [0, 4, 300, -1, -5000])
def test_a_truncated_file_is_refused_by_name(cut, folder, monkeypatch):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    refused(folder, "^model.safetensors: not a whole safetensors file", monkeypatch)


def test_a_truncated_shard_is_refused_by_name(sharded, monkeypatch):
    path = sorted(sharded.glob("*.safetensors"))[2]
    path.write_bytes(path.read_bytes()[:-1])
    refused(sharded, f"^{path.name}: not a whole safetensors file", monkeypatch)


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
def test_a_pickle_is_refused_and_never_opened(name, zipped, folder, tmp_path, monkeypatch):
    (folder / "model.safetensors").unlink()
    if zipped:
        torch.save({"w": Bomb(tmp_path / "opened")}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "opened")))
    refused(folder, name, monkeypatch)
    assert not (tmp_path / "opened").exists()


def test_an_index_of_pickles_is_refused(folder, tmp_path, monkeypatch):
    (folder / "model.safetensors").unlink()
    (folder / "a.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "opened")))
    index = {"weight_map": {"lm_head.weight": "a.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "lm_head.weight is in 'a.bin', which must be a .safetensors", monkeypatch)
    assert not (tmp_path / "opened").exists()


def test_a_missing_shard_is_refused_by_name(sharded, monkeypatch):
    path = sorted(sharded.glob("*.safetensors"))[1]
    path.unlink()
    refused(sharded, f"^{path.name}: .* names this file, but", monkeypatch)


def change_index(folder: Path, change) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


INDICES = {
    "weight_map=None must be an object": lambda index: index.pop("weight_map"),
    r"weight_map=\{\} must be an object": lambda index: index["weight_map"].clear(),
    r"lm_head.weight is in '../x.safetensors', which must be": lambda index: index[
        "weight_map"
    ].update({"lm_head.weight": "../x.safetensors"}),
    r"lm_head.weight is in 3, which must be": lambda index: index["weight_map"].update(
        {"lm_head.weight": 3}
    ),
    r"A_log: .* says it is in model-00001-of-.*; it is in model-0000[2-9]": lambda index: index[
        "weight_map"
    ].update({"model.layers.3.mamba.A_log": index["weight_map"]["model.embed_tokens.weight"]}),
    r"absent: .* says it is in .*; it is in None": lambda index: index["weight_map"].update(
        {"absent": index["weight_map"]["lm_head.weight"]}
    ),
}


@pytest.mark.parametrize(("message", "change"), INDICES.items(), ids=INDICES)
def test_a_wrong_index_is_refused_by_name(message, change, sharded, monkeypatch):
    change_index(sharded, change)
    refused(sharded, message, monkeypatch)


def test_surplus_and_doubled_files_are_refused_by_name(folder, sharded, monkeypatch):
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shutil.copy(shard, folder / "spare.safetensors")
    refused(folder, "^spare.safetensors: surplus file", monkeypatch)
    rewrite(sharded / shard.name, lambda t: t.update({"lm_head.weight": torch.ones(64, 16)}))
    refused(sharded, "^lm_head.weight: in both", monkeypatch)


def test_folders_without_their_files_are_refused_by_name(folder, tmp_path, monkeypatch):
    refused(tmp_path / "nowhere", "^config.json: .* has no such file", monkeypatch)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    refused(folder, "^model.safetensors: .* has neither it nor", monkeypatch)
    (folder / "config.json").write_text("{")
    refused(folder, "^config.json: not JSON", monkeypatch)
    (folder / "config.json").write_text("[]")
    refused(folder, "^config.json: must be a JSON object", monkeypatch)


# --- without the libraries

WITHOUT = """
import sys
sys.modules.update(safetensors=None, transformers=None)
import hybrid.cost, hybrid.generate, hybrid.model, hybrid.presets
try:
    import hybrid.huggingface
except ImportError as error:
    print(error)
del sys.modules["safetensors"]
from hybrid.huggingface import load, save
save(load(sys.argv[1]), sys.argv[2])
"""


def test_only_the_exchange_needs_safetensors_and_nothing_transformers(folder, tmp_path):
    command = [sys.executable, "-c", WITHOUT, str(folder), str(tmp_path / "again")]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "needs safetensors: pip install 'hybrid-workbench[hf]'" in run.stdout
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
