"""Mamba-2's recurrence and layer: every implementation, the published minimal form, transformers.

The implementations of `hybrid.ops.ALL` are held against our reference in double precision,
gradients included; the reference and the form by chunks against what others published.

One file: the published forms that everything is held against are written out here.
"""

import ast
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid.layers import Mamba2
from hybrid.model import HybridLM, build
from hybrid.ops import ALL, CPU, REFERENCE, Ops, ssd
from hybrid.spec import Layer
from hybrid.spec import Mamba2 as Mamba2Spec
from tests.models import tiny
from tests.ops.samples import Tensors, assert_near, draws, results, strided, truth

NAMES = ("u_BTHP", "raw_BTH", "bias_H", "a_H", "b_BTGN", "c_BTGN", "d_H", "h_BHPN")
ACTIVATIONS = {0, 1, 4, 5}
# B, T, H, P, G, N and whether there is a state before: lengths around a chunk's, and odd sizes.
SHAPES = [
    (1, 1, 1, 1, 1, 1, False),
    (2, 1, 4, 3, 2, 5, True),
    (3, 2, 2, 4, 2, 3, True),
    (1, 63, 6, 8, 3, 16, False),
    (2, 64, 4, 5, 1, 4, True),
    (2, 65, 2, 16, 1, 17, False),
    (1, 130, 4, 8, 4, 1, True),
    (1, 200, 2, 1, 1, 8, True),
]


@pytest.fixture(params=ALL.values(), ids=list(ALL))
def ops(request: pytest.FixtureRequest) -> Ops:
    return request.param


def inputs_of(B: int, T: int, H: int, P: int, G: int, N: int, started: bool) -> Tensors:
    """Return what the op takes, of the sizes Mamba-2's initialisation gives it, roughly."""
    draw = draws()
    a_H = -1 - 15 * draw(H).sigmoid()
    given = [draw(B, T, H, P), draw(B, T, H), draw(H) - 3, a_H, draw(B, T, G, N), draw(B, T, G, N)]
    return [*given, draw(H), draw(B, H, P, N) if started else None]


def pulls_of(inputs: Tensors) -> Tensors:
    (B, _, H, P), N = inputs[0].shape, inputs[4].shape[3]
    draw = draws()
    return [draw(*inputs[0].shape), draw(B, H, P, N)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ssd_agrees(ops: Ops, shape: tuple) -> None:
    inputs = inputs_of(*shape)
    pulls = pulls_of(inputs)
    assert_near(results(ops.ssd, inputs, pulls), truth(REFERENCE.ssd, inputs, pulls))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ssd_takes_bfloat16(ops: Ops, shape: tuple) -> None:
    inputs = inputs_of(*shape)
    given = [x.bfloat16() if i in ACTIVATIONS else x for i, x in enumerate(inputs)]
    pulls = pulls_of(inputs)
    pulls[0] = pulls[0].bfloat16()
    found = results(ops.ssd, given, pulls)
    dtypes = [x.dtype for x in given if x is not None]
    assert [x.dtype for x in found] == [torch.bfloat16, torch.float32, *dtypes]
    assert_near(found, truth(REFERENCE.ssd, given, pulls), tolerance=2e-2)


@pytest.mark.parametrize("raw", [-80.0, -15.0, 50.0, 1e4])
def test_ssd_agrees_at_extreme_steps(ops: Ops, raw: float) -> None:
    inputs = inputs_of(2, 70, 4, 8, 2, 5, True)
    inputs[1].fill_(raw)
    inputs[2].zero_()
    pulls = pulls_of(inputs)
    assert_near(results(ops.ssd, inputs, pulls), truth(REFERENCE.ssd, inputs, pulls))


def test_one_huge_step_does_not_blur_the_small_ones_after_it(ops: Ops) -> None:
    """A sum of logarithms that holds both would keep nothing of the small ones."""
    inputs = inputs_of(1, 60, 2, 4, 1, 3, True)
    inputs[1].fill_(-6.0)
    inputs[1][:, 5] = 1e5
    pulls = pulls_of(inputs)
    found, wanted = results(ops.ssd, inputs, pulls), truth(REFERENCE.ssd, inputs, pulls)
    assert_near([found[0][:, 6:], found[1]], [wanted[0][:, 6:], wanted[1]])


@pytest.mark.parametrize("first", [1, 16, 64, 69])
def test_ssd_in_two_calls_is_one(ops: Ops, first: int) -> None:
    def in_two(u, raw, bias, a, b, c, d, h) -> tuple[Tensor, Tensor]:
        ys = []
        for part in (slice(None, first), slice(first, None)):
            y, h = ops.ssd(u[:, part], raw[:, part], bias, a, b[:, part], c[:, part], d, h)
            ys.append(y)
        return torch.cat(ys, dim=1), h

    inputs = inputs_of(2, 70, 4, 8, 2, 5, True)
    pulls = pulls_of(inputs)
    assert_near(results(in_two, inputs, pulls), results(ops.ssd, inputs, pulls))


@pytest.mark.parametrize("place", [0, 1])
def test_ssd_gradient_of_one_output_alone(ops: Ops, place: int) -> None:
    def gradients(op: Callable, inputs: Tensors, pull: Tensor) -> Tensors:
        leaves = [x.detach().requires_grad_() for x in inputs]
        return list(torch.autograd.grad(op(*leaves)[place], leaves, pull, materialize_grads=True))

    inputs = inputs_of(2, 5, 4, 8, 2, 3, True)
    pull = pulls_of(inputs)[place]
    wanted = gradients(REFERENCE.ssd, [x.double() for x in inputs], pull.double())
    assert_near(gradients(ops.ssd, inputs, pull), wanted)


def test_inputs_of_ssd_need_not_be_contiguous(ops: Ops) -> None:
    inputs = inputs_of(2, 70, 4, 8, 2, 5, True)
    pulls = pulls_of(inputs)
    moved = results(ops.ssd, [strided(x) for x in inputs], [strided(x) for x in pulls])
    assert_near(moved, results(ops.ssd, inputs, pulls))


@pytest.mark.parametrize("place", range(len(NAMES)))
def test_ssd_does_not_hide_a_nan(ops: Ops, place: int) -> None:
    inputs = inputs_of(1, 3, 2, 8, 1, 2, True)
    inputs[place].view(-1)[0] = float("nan")
    assert ops.ssd(*inputs)[0].isnan().any()


def test_one_head_is_mamba_1_with_one_decay() -> None:
    """The recurrence of one paper against that of the other."""
    u, raw, bias, a, b, c, d, h = inputs_of(2, 9, 1, 6, 1, 3, True)
    open_BTE = torch.full((2, 9, 6), 1.278464542761073795)  # where SiLU is one
    rows = u[:, :, 0], raw.expand(-1, -1, 6), bias.expand(6), a.expand(6, 3), b[:, :, 0]
    scanned = REFERENCE.scan(*rows, c[:, :, 0], d.expand(6), open_BTE, h[:, 0])
    y_BTHP, h_BHPN = REFERENCE.ssd(u, raw, bias, a, b, c, d, h)
    torch.testing.assert_close((y_BTHP[:, :, 0], h_BHPN[:, 0]), scanned)


@pytest.mark.parametrize("name", NAMES)
def test_what_ssd_does_not_take_is_named(name: str) -> None:
    given = dict(zip(NAMES, inputs_of(2, 5, 4, 8, 2, 3, True), strict=True))
    with pytest.raises(TypeError, match=rf"ssd: {name} is torch.float64 on cpu"):
        CPU.ssd(**given | {name: given[name].double()})
    if name not in ("u_BTHP", "b_BTGN"):
        with pytest.raises(ValueError, match=rf"ssd: {name} has shape .* must be"):
            CPU.ssd(**given | {name: torch.cat([given[name]] * 2)})


def test_groups_that_do_not_divide_the_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="ssd: b_BTGN has 3 groups, which must divide the 4 heads"):
        CPU.ssd(*inputs_of(1, 5, 4, 8, 3, 2, False))


def test_without_gradients_no_states_between_chunks_are_kept(monkeypatch) -> None:
    kept: list[int] = []
    save = torch.autograd.function.FunctionCtx.save_for_backward
    monkeypatch.setattr(
        torch.autograd.function.FunctionCtx,
        "save_for_backward",
        lambda ctx, *tensors: kept.append(len(tensors)) or save(ctx, *tensors),
    )
    inputs = [x if x is None else x.requires_grad_() for x in inputs_of(1, 200, 2, 4, 1, 3, False)]
    with torch.no_grad():
        ssd.ssd(*inputs)
    ssd.ssd(*inputs)
    assert kept == [6, 10]


# ---- outsiders -----------------------------------------------------------------------------------


@cache
def published() -> Callable[..., tuple[Tensor, Tensor]]:
    """Return listing 1 of the paper, from mamba-ssm's source, which needs kernels to be imported.

    `tests/test_scan_parity.py` says how to get it.
    """
    found = importlib.util.find_spec("mamba_ssm")
    if found is None or found.origin is None:
        pytest.skip("mamba-ssm's source is not there; tests/test_scan_parity.py says how to get it")
    einops = pytest.importorskip("einops", reason="mamba-ssm's formulas need einops")
    path = Path(found.origin).parent / "modules/ssd_minimal.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wanted = ("segsum", "ssd_minimal_discrete")
    functions: Any = [x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name in wanted]
    names = {"torch": torch, "F": F, "rearrange": einops.rearrange, "repeat": einops.repeat}
    exec(compile(ast.Module(functions, []), str(path), "exec"), names)
    return names["ssd_minimal_discrete"]


def minimal(u, raw, bias, a, b, c, d, h) -> tuple[Tensor, Tensor]:
    """The published form with our arguments: it takes dt in, heads apart, and knows no skip."""
    dt = F.softplus(raw + bias)
    b, c = (x.repeat_interleave(u.shape[2] // b.shape[2], dim=2) for x in (b, c))
    y, last = published()(u * dt[..., None], dt * a, b, c, 16, h[:, None])
    return y + d[:, None] * u, last


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 16, 2, 4, 1, 3, True), (1, 144, 6, 8, 3, 16, True)], ids=str)
def test_ssd_agrees_with_the_published_minimal_form(ops: Ops, shape: tuple, dtype) -> None:
    """The published form in float32 and ours in `dtype`, on the same numbers."""
    inputs = inputs_of(*shape)
    given = [x.to(dtype) if i in ACTIVATIONS else x for i, x in enumerate(inputs)]
    pulls = pulls_of(inputs)
    wanted = results(minimal, [x.float() for x in given], [pulls[0].to(dtype).float(), pulls[1]])
    found = results(ops.ssd, given, [pulls[0].to(dtype), pulls[1]])
    rounding = 2e-2 if dtype is torch.bfloat16 else 2e-5
    assert_near([x.float() for x in found], [x.double() for x in wanted], tolerance=rounding)


MIXERS = {
    "one group": Mamba2Spec(d_state=4, head_width=8),
    "two groups": Mamba2Spec(d_state=6, head_width=4, groups=2, d_conv=3),
}


def model_and_theirs(mixer: Mamba2Spec) -> tuple[HybridLM, Any, Any]:
    """Return (a model of one of our layers, transformers' mixer with its weights, their cache)."""
    transformers = pytest.importorskip("transformers", reason="pip install 'hybrid-workbench[hf]'")
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    model = build(tiny(Layer(mixer=mixer, feed_forward=None)))
    ours: Any = model.blocks[0].mixing.mixer
    config = transformers.Mamba2Config(
        num_heads=mixer.heads(model.spec.width),
        head_dim=mixer.head_width,
        hidden_size=model.spec.width,
        state_size=mixer.d_state,
        conv_kernel=mixer.d_conv,
        expand=mixer.expand,
        n_groups=mixer.groups,
        layer_norm_epsilon=model.spec.norm_eps,
        num_hidden_layers=1,
        vocab_size=8,
        chunk_size=8,
    )
    theirs = Mamba2Mixer(config, layer_idx=0)
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in ours.parameters():  # all different, so that a mix-up shows
            parameter += 0.3 * torch.randn(parameter.shape, generator=draws)
    theirs.load_state_dict(weights_for_them(ours))
    return model, theirs, transformers.DynamicCache(config=config)


def weights_for_them(mixer: Mamba2) -> dict[str, Tensor]:
    given: Any = mixer
    return {
        "in_proj.weight": given.in_proj.weight,
        "conv1d.weight": given.short.weight_EW[:, None],
        "conv1d.bias": given.short.bias_E,
        "dt_bias": given.dt_bias_H,
        "A_log": given.a_log_H,
        "D": given.d_H,
        "norm.weight": torch.cat([norm.weight for norm in given.norm.norms]),
        "out_proj.weight": given.out_proj.weight,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MIXERS)
def test_the_layer_is_transformers(name: str, dtype: torch.dtype) -> None:
    """A prompt, one token after it, and the gradients of the prompt; theirs in float32."""
    model, theirs, cache_of_theirs = model_and_theirs(MIXERS[name])
    ours: Any = model.blocks[0].mixing.mixer
    x_BTD = torch.randn(2, 21, model.spec.width, generator=torch.Generator().manual_seed(1))
    tolerance = 4e-2 if dtype is torch.bfloat16 else 2e-5

    def near(found: Tensor, wanted: Tensor) -> None:
        assert_near([found.float()], [wanted.double()], tolerance)

    with torch.autocast("cpu", enabled=dtype is torch.bfloat16):
        y_BTD, state = ours(x_BTD[:, :20], None)
        with torch.no_grad():
            step_B1D, state = ours(x_BTD[:, 20:], state)
    wanted_BTD = theirs(x_BTD[:, :20])
    near(y_BTD, wanted_BTD)
    with torch.no_grad():
        theirs(x_BTD[:, :20], cache_params=cache_of_theirs)
        near(step_B1D, theirs(x_BTD[:, 20:], cache_params=cache_of_theirs))
    pull_BTD = torch.randn(y_BTD.shape, generator=torch.Generator().manual_seed(2))
    (y_BTD * pull_BTD).sum().backward()
    (wanted_BTD * pull_BTD).sum().backward()
    for mine, other in zip(ours.parameters(), _in_our_order(ours, theirs), strict=True):
        near(mine.grad, other)


def _in_our_order(ours: Any, theirs: Any) -> list[Tensor]:
    """Return their gradients as ours are laid out."""
    by_name = {name: p.grad for name, p in theirs.named_parameters()}
    norms = dict(
        zip(
            (f"norm.norms.{i}.weight" for i in range(len(ours.norm.norms))),
            by_name["norm.weight"].chunk(len(ours.norm.norms)),
            strict=True,
        )
    )
    found = norms | {
        "in_proj.weight": by_name["in_proj.weight"],
        "short.weight_EW": by_name["conv1d.weight"][:, 0],
        "short.bias_E": by_name["conv1d.bias"],
        "dt_bias_H": by_name["dt_bias"],
        "a_log_H": by_name["A_log"],
        "d_H": by_name["D"],
        "out_proj.weight": by_name["out_proj.weight"],
    }
    return [found[name] for name, _ in ours.named_parameters()]
