"""Specs check themselves, name what is wrong, and survive JSON."""

import subprocess
import sys

import pytest

from hybrid import codec
from hybrid.jamba import jamba, mixer_word, parse_ratio
from hybrid.presets import JAMBA_V0_1
from hybrid.spec import MLP, Attention, Layer, Mamba, Mamba2, ModelSpec, MoE, Rope, stack
from tests.models import SPECS

LAYER = Layer(mixer=Attention(heads=4, kv_heads=2), feed_forward=MLP(hidden=8))


def family(**changes) -> ModelSpec:
    dials = {
        "vocab": 64,
        "width": 16,
        "hidden": 32,
        "blocks": 1,
        "l": 8,
        "ratio": (1, 7),
        "attention": Attention(heads=4, kv_heads=2),
    }
    return jamba(**{**dials, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Attention(heads=4, kv_heads=3), "kv_heads=3 must divide heads=4"),
        (lambda: Attention(heads=0, kv_heads=1), "heads=0 must be an integer of 1 or more"),
        (lambda: Attention(heads=4, kv_heads=4, window=0), "window=0 must be"),
        (lambda: Attention(heads=2.0, kv_heads=1), "heads=2.0 must be an integer"),
        (lambda: Mamba(d_state=-1), "Mamba: d_state=-1 must be"),
        (lambda: Mamba(dt_init="lost"), "dt_init='lost' must be one of log_uniform, zero"),
        (lambda: Mamba2(groups=0), "Mamba2: groups=0 must be an integer of 1 or more"),
        (lambda: Mamba2(dt_init="lost"), "Mamba2: dt_init='lost' must be one of log_uniform, zero"),
        (
            lambda: family(mamba=Mamba2(head_width=24)),
            r"layers\[0\].mixer: head_width=24 must divide the inner width 32 \(expand=2 x",
        ),
        (
            lambda: family(mamba=Mamba2(head_width=16, groups=4)),
            r"layers\[0\].mixer: groups=4 must divide the 2 heads \(inner width 32 / head_width=16",
        ),
        (lambda: MoE(hidden=8, n_experts=4, top_k=5), r"top_k=5 must lie in 1..n_experts=4"),
        (lambda: MLP(hidden=True), "hidden=True must be an integer"),
        (lambda: Rope(theta=0.5), "theta=0.5 must be larger than 1"),
        (
            lambda: Layer(mixer=MLP(hidden=8), feed_forward=None),
            "must be an Attention, a Mamba or a Mamba2",
        ),
        (lambda: Layer(mixer=Mamba(), feed_forward=Mamba()), "must be an MLP, a MoE or None"),
        (
            lambda: ModelSpec(vocab=8, width=18, layers=(LAYER,)),
            r"layers\[0\].mixer: heads=4 must divide width=18",
        ),
        (lambda: ModelSpec(vocab=8, width=16, layers=()), "at least one Layer"),
        (lambda: ModelSpec(vocab=8, width=16, layers=(LAYER,), norm_eps=0), "norm_eps=0 must"),
        (
            lambda: ModelSpec(
                vocab=8,
                width=12,
                layers=(
                    Layer(
                        mixer=Attention(heads=4, kv_heads=4, positions=Rope()), feed_forward=None
                    ),
                ),
            ),
            "head width 3 .* must be even",
        ),
        (lambda: stack("MX", M=LAYER), r"uses \['X'\]; known letters are \['M'\]"),
        (lambda: stack("", M=LAYER), "at least one letter"),
        (lambda: family(ratio=(1, 2)), "ratio=1:2 needs a block length .* multiple of 3; got l=8"),
        (lambda: family(ratio=(0, 0)), r"ratio=\(0, 0\) must be two whole numbers"),
        (lambda: family(e=0), "jamba: e=0 must be an integer of 1 or more"),
        (lambda: family(moe_offset=2), r"moe_offset=2 must lie in 0..e-1=1 \(e=2\)"),
        (lambda: family(attention_offset=8), r"attention_offset=8 must lie in 0..7"),
        (lambda: family(blocks=0), "blocks=0 must be"),
        (lambda: parse_ratio("1/7"), "ratio '1/7' must be two whole numbers as in '1:7'"),
    ],
)
def test_a_spec_that_cannot_be_built_says_why(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_dial_is_an_error():
    with pytest.raises(TypeError, match="heads_kv"):
        Attention(heads=4, kv_heads=4, heads_kv=2)


@pytest.mark.parametrize(
    ("ratio", "word"),
    [
        ((1, 0), "AAAAAAAA"),
        ((0, 1), "MMMMMMMM"),
        ((1, 1), "MAMAMAMA"),
        ((1, 3), "MMAMMMAM"),
        ((1, 7), "MMMMAMMM"),
        ((3, 1), "AMAAAMAA"),
    ],
)
def test_ratios_become_words(ratio, word):
    assert mixer_word(l=8, ratio=ratio) == word
    for mamba in (Mamba(), Mamba2(head_width=8)):
        assert family(ratio=ratio, mamba=mamba).ratio == f"{ratio[0]}:{ratio[1]}"


def test_both_kinds_of_mamba_are_the_mamba_side_of_the_ratio():
    one, two = (Layer(mixer=m, feed_forward=None) for m in (Mamba(), Mamba2(head_width=8)))
    spec = ModelSpec(vocab=8, width=16, layers=stack("MAS", M=one, A=LAYER, S=two))
    assert spec.ratio == "1:2"


def test_the_released_jamba_has_its_layers_in_place():
    layers = JAMBA_V0_1.layers
    assert [i for i, x in enumerate(layers) if isinstance(x.mixer, Attention)] == [4, 12, 20, 28]
    sparse = [i for i, x in enumerate(layers) if isinstance(x.feed_forward, MoE)]
    assert sparse == [*range(1, 32, 2)]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_json_gives_the_same_spec(spec):
    assert codec.loads(ModelSpec, codec.dumps(spec)) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 3}, "ModelSpec: unknown key 'widht'; known keys are"),
        ({"width": "16"}, "ModelSpec.width: '16' must be of type int"),
        ({"kind": "Model"}, "must be an object with kind='ModelSpec'"),
        ({"layers": 3}, "ModelSpec.layers: 3 must be a list"),
    ],
)
def test_json_with_a_mistake_names_it(change, message):
    data = codec.encode(SPECS["hybrid"])
    with pytest.raises(ValueError, match=message):
        codec.decode(ModelSpec, {**data, **change})


def test_json_with_an_unknown_mixer_lists_those_that_exist():
    data = codec.encode(LAYER)
    data["mixer"]["kind"] = "Hyena"
    with pytest.raises(ValueError, match=r"Layer.mixer: kind='Hyena' must be one of \['Attention'"):
        codec.decode(Layer, data)


def test_json_without_a_key_says_which():
    data = codec.encode(LAYER)
    del data["mixer"]
    with pytest.raises(ValueError, match="Layer: key 'mixer' is missing"):
        codec.decode(Layer, data)


def test_specs_and_their_cost_do_not_import_torch():
    modules = "hybrid.spec, hybrid.jamba, hybrid.cost, hybrid.fit, hybrid.presets, hybrid.codec"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
