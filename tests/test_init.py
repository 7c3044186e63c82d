"""The initial weights are those of the sources, above all Mamba's."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hybrid.layers import Mamba, Mamba2
from hybrid.model import build
from hybrid.spec import DtInit, Init, Layer, ModelSpec, MoE
from hybrid.spec import Mamba as MambaSpec
from hybrid.spec import Mamba2 as Mamba2Spec
from tests.models import SPECS, tiny


def mamba_of(dt_init: DtInit) -> Mamba:
    layer = Layer(mixer=MambaSpec(dt_init=dt_init), feed_forward=None)
    return build(ModelSpec(vocab=8, width=512, layers=(layer,))).blocks[0].mixing.mixer


def test_mamba_starts_as_published():
    mamba = mamba_of(DtInit.LOG_UNIFORM)
    torch.testing.assert_close(-torch.exp(mamba.a_log_EN), -torch.arange(1.0, 17.0).repeat(1024, 1))
    assert (mamba.d_E == 1).all()
    dt_E = F.softplus(mamba.dt_bias_E.double())
    assert dt_E.min() > 0.99e-3
    assert dt_E.max() < 1.01e-1
    # Log-uniform: each half of the logarithmic range holds about half of the channels.
    assert 0.45 < (dt_E < 1e-2).double().mean() < 0.55
    assert mamba.dt_proj.weight.abs().max() <= 32**-0.5


def mamba2_of(dt_init: DtInit) -> Mamba2:
    layer = Layer(mixer=Mamba2Spec(head_width=1, dt_init=dt_init), feed_forward=None)
    return build(ModelSpec(vocab=8, width=512, layers=(layer,))).blocks[0].mixing.mixer


def test_mamba2_starts_as_published():
    mamba2 = mamba2_of(DtInit.LOG_UNIFORM)
    a_H, dt_H = torch.exp(mamba2.a_log_H), F.softplus(mamba2.dt_bias_H.double())
    assert a_H.min() >= 1
    assert a_H.max() <= 16
    assert abs(a_H.mean() - 8.5) < 0.5  # uniform, and not its logarithm
    assert (mamba2.d_H == 1).all()
    assert dt_H.min() > 0.99e-3
    assert dt_H.max() < 1.01e-1
    assert 0.45 < (dt_H < 1e-2).double().mean() < 0.55
    assert not mamba2_of(DtInit.ZERO).dt_bias_H.any()
    assert 0.01 < mamba2_of(DtInit.TORCH_LINEAR).dt_bias_H.abs().max() <= 512**-0.5


def test_the_lost_initialisations_can_be_chosen():
    zero, linear = mamba_of(DtInit.ZERO), mamba_of(DtInit.TORCH_LINEAR)
    assert not zero.dt_bias_E.any()
    assert linear.dt_bias_E.abs().max() <= 32**-0.5
    assert linear.dt_bias_E.std() > 0.05


def test_every_parameter_is_drawn():
    for spec in SPECS.values():
        for name, parameter in build(spec).named_parameters():
            assert torch.isfinite(parameter).all(), name


def test_models_share_the_weights_of_the_parts_they_share():
    spec = SPECS["hybrid"]
    other = replace(spec, layers=(*spec.layers[:1], *spec.layers))
    ours, theirs = build(spec).state_dict(), build(other).state_dict()
    same = [n for n in ours if n.startswith("blocks.0.") and n.endswith("in_proj.weight")]
    assert same
    for name in ["embed.weight", *same]:
        assert torch.equal(ours[name], theirs[name])


def test_residual_projections_start_smaller_in_deeper_models():
    layer = Layer(mixer=MambaSpec(), feed_forward=None)
    shallow, deep = build(tiny(layer)), build(tiny(*[layer] * 16))
    ratio = (
        shallow.blocks[0].mixing.mixer.out_proj.weight / deep.blocks[0].mixing.mixer.out_proj.weight
    )
    assert ratio.mean().item() == pytest.approx(4.0, rel=1e-3)


def test_a_parameter_without_a_rule_is_an_error():
    from hybrid.init import initialise

    model = build(SPECS["hybrid"])
    model.extra = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(LookupError, match="extra has no rule"):
        initialise(model, SPECS["hybrid"], 0)


def std_of(init: Init, width: int, name: str) -> float:
    layer = Layer(mixer=MambaSpec(), feed_forward=MoE(hidden=2 * width, n_experts=4, top_k=1))
    model = build(ModelSpec(vocab=512, width=width, layers=(layer,) * 2, init=init))
    return dict(model.named_parameters())[name].std().item()


@pytest.mark.parametrize(
    ("name", "normal", "fan_in", "mup"),
    [
        ("embed.weight", 0.02, 1 / 8, 1 / 8),
        ("head.weight", 0.02, 1 / 8, 1 / 64),
        ("blocks.0.mixing.mixer.in_proj.weight", 0.02, 1 / 8, 1 / 8),
        ("blocks.0.mixing.mixer.out_proj.weight", 0.01, 128**-0.5 / 2, 128**-0.5 / 2),
        ("blocks.1.feeding.feed_forward.gate_up_XFD", 0.02, 1 / 8, 1 / 8),
        ("blocks.1.feeding.feed_forward.down_XDF", 0.01, 128**-0.5 / 2, 128**-0.5 / 2),
        ("blocks.1.feeding.feed_forward.router_XD", 0.02, 1 / 8, 1 / 64),
    ],
)
def test_the_scale_of_a_matrix_is_the_one_asked_for(name, normal, fan_in, mup):
    wanted = {Init.NORMAL: normal, Init.FAN_IN: fan_in, Init.MUP: mup}
    for init, std in wanted.items():
        assert std_of(init, 64, name) == pytest.approx(std, rel=0.15)


def test_only_the_embedding_of_mup_does_not_depend_on_the_width():
    for name, power in (("embed.weight", 0), ("head.weight", -1)):
        ratio = std_of(Init.MUP, 128, name) / std_of(Init.MUP, 32, name)
        assert ratio == pytest.approx(4.0**power, rel=0.05)
    ratio = std_of(Init.FAN_IN, 128, "embed.weight") / std_of(Init.FAN_IN, 32, "embed.weight")
    assert ratio == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("init", list(Init))
def test_the_start_of_mamba_does_not_depend_on_the_matrices(init):
    plain, other = build(SPECS["mixer-mamba"]), build(replace(SPECS["mixer-mamba"], init=init))
    ours, theirs = dict(plain.named_parameters()), dict(other.named_parameters())
    ends = ("a_log_EN", "d_E", "dt_bias_E", "dt_proj.weight", "weight_EW", "bias_E")
    names = [name for name in ours if name.endswith(ends)]
    assert len(names) == 6
    assert all(torch.equal(ours[name], theirs[name]) for name in names)


def test_a_wrong_init_is_refused():
    with pytest.raises(ValueError, match="init='xavier' must be one of normal, fan_in, mup"):
        replace(SPECS["hybrid"], init="xavier")
    with pytest.raises(ValueError, match="init=mup must not be tied"):
        replace(SPECS["hybrid-tied"], init=Init.MUP)
