"""Arithmetic against the published models and against allocated tensors."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hybrid import cost, generate, ops
from hybrid.dimensions import FREE
from hybrid.fit import QUANTITIES, fit, match
from hybrid.flops import training_flops
from hybrid.jamba import jamba
from hybrid.layers.mamba import MambaState
from hybrid.model import HybridLM, build
from hybrid.presets import PRESETS
from hybrid.published import COUNTS, TABLE_1, without_windows
from hybrid.spec import MLP, Attention, Layer, Mamba, Mamba2, ModelSpec, MoE, Rope, StateSpace
from tests.models import SPECS, WIDTH, tiny

CONTEXT = 262_144


def kv_bytes(spec: ModelSpec, tokens: int) -> int:
    return cost.cache_parts(spec, batch=1, tokens=tokens, itemsize=2).kv


@pytest.mark.parametrize("name", PRESETS)
def test_published_counts(name):
    spec, theirs = without_windows(PRESETS[name]), COUNTS[name]
    assert cost.params(spec) == theirs.params
    assert cost.active_params(spec) == theirs.active_params
    assert kv_bytes(spec, 101) - kv_bytes(spec, 100) == theirs.kv_bytes_per_token
    assert kv_bytes(spec, CONTEXT) == theirs.kv_bytes == CONTEXT * theirs.kv_bytes_per_token


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1_of_the_paper_within_its_rounding(name):
    spec, theirs = without_windows(PRESETS[name]), TABLE_1[name]
    # Jamba's figures are printed to the billion, the others to a tenth.
    digits = 0 if name == "jamba-v0.1" else 1
    assert round(cost.params(spec) / 1e9, digits) == theirs.params_b
    assert round(cost.active_params(spec) / 1e9, digits) == theirs.active_b
    assert kv_bytes(spec, CONTEXT) == theirs.kv_gib << 30


def test_a_window_bounds_the_cache_of_mistral():
    assert kv_bytes(PRESETS["mistral-7b"], CONTEXT) == kv_bytes(PRESETS["mistral-7b"], 4096)


@pytest.mark.parametrize("name", PRESETS)
def test_published_models_allocate_what_is_counted(name):
    with torch.device("meta"):
        model = HybridLM(PRESETS[name], ops.REFERENCE)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name].params


# Part of param_parts -> how the names of its parameters begin or what they hold.
PARTS = {
    "embedding": lambda name, module: name == "embed.weight",
    "unembedding": lambda name, module: name == "head.weight",
    "attention": lambda name, module: ".mixer." in name and module is Attention,
    "mamba": lambda name, module: ".mixer." in name and issubclass(module, StateSpace),
    "mlp": lambda name, module: ".feed_forward." in name and module is MLP,
    "router": lambda name, module: name.endswith("router_XD"),
    "experts": lambda name, module: (
        ".feed_forward." in name and module is MoE and not name.endswith("router_XD")
    ),
    "norms": lambda name, module: (
        name == "norm.weight" or name.endswith(("mixing.norm.weight", "feeding.norm.weight"))
    ),
}


def kind_of(spec: ModelSpec, name: str) -> type | None:
    """Return the class of the mixer or feed-forward that a parameter belongs to."""
    if not name.startswith("blocks."):
        return None
    layer = spec.layers[int(name.split(".")[1])]
    return type(layer.mixer if ".mixing." in name else layer.feed_forward)


@pytest.mark.parametrize("name", SPECS)
def test_parts_are_those_of_the_named_parameters(name):
    spec = SPECS[name]
    with torch.device("meta"):
        model = HybridLM(spec, ops.REFERENCE)
    held = dict.fromkeys(PARTS, 0)
    for parameter_name, parameter in model.named_parameters():
        kind = kind_of(spec, parameter_name)
        (part,) = (part for part, holds in PARTS.items() if holds(parameter_name, kind))
        held[part] += parameter.numel()
    assert vars(cost.param_parts(spec)) == held


def test_idle_experts_are_not_active_but_the_whole_router_is():
    def active(n_experts: int) -> int:
        moe = MoE(hidden=24, n_experts=n_experts, top_k=2)
        return cost.active_params(tiny(Layer(mixer=Mamba(), feed_forward=moe)))

    assert active(64) - active(4) == 60 * WIDTH
    dense = tiny(Layer(mixer=Mamba(), feed_forward=MLP(hidden=48)))
    assert active(2) == cost.active_params(dense) + 2 * WIDTH


@pytest.mark.parametrize("name", SPECS)
def test_cache_kinds_are_those_of_the_cache(name):
    spec = SPECS[name]
    _, cache = generate.prefill(build(spec, ops=ops.REFERENCE), torch.zeros(2, 7, dtype=torch.long))
    parts = cost.cache_parts(spec, batch=2, tokens=7, itemsize=4)
    mambas = [state for state in cache if isinstance(state, MambaState)]
    assert parts.ssm == sum(state.h_BEN.nbytes for state in mambas)
    assert parts.conv == sum(state.tail_BLE.nbytes for state in mambas)
    assert parts.total == generate.cache_bytes(cache)


ARITHMETIC = {
    *("activations", "cost", "devices", "dimensions", "docs", "fit", "flops", "law_grids", "laws"),
    *("memory", "plan", "plan_report", "published", "report", "roofline", "sheet", "units"),
    "__main__",
}


def test_arithmetic_imports_no_torch():
    modules = ", ".join(f"hybrid.{name}" for name in sorted(ARITHMETIC))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    torch_files = {"generate", "graph_steps", "huggingface", "init", "loss", "machine", "model"}
    torch_files |= {"cache", "int8", "steps"}
    others = {"codec", "console", "jamba", "presets", "spec", "__init__"}
    found = {path.stem for path in Path(cost.__file__).parent.glob("*.py")}
    assert found - torch_files - others == ARITHMETIC  # a new file is on one of these lists


# ---- fit -----------------------------------------------------------------------------------------


def of_ratio(ratio, hidden: int) -> ModelSpec:
    return jamba(
        vocab=512,
        width=64,
        hidden=hidden,
        blocks=1,
        l=8,
        ratio=ratio,
        attention=Attention(heads=4, kv_heads=2),
    )


@pytest.mark.parametrize("ratio", [(1, 0), (1, 1), (1, 3), (0, 1)])
def test_fit_meets_the_target_within_the_tolerance(ratio):
    target = cost.params(of_ratio((1, 7), 160))
    found = cost.params(fit(lambda hidden: of_ratio(ratio, hidden), cost.params, target))
    assert abs(found - target) <= 0.01 * target
    assert cost.params(of_ratio(ratio, 160)) != target  # there was something to solve


def test_fit_takes_the_roundest_width():
    def spec(hidden: int) -> ModelSpec:
        layer = Layer(mixer=Mamba(), feed_forward=MLP(hidden=hidden))
        return ModelSpec(vocab=64, width=16, layers=(layer,))

    exact = fit(spec, cost.params, cost.params(spec(192)), tolerance=0.0)
    loose = fit(spec, cost.params, cost.params(spec(192 + 3)), tolerance=0.1)
    assert exact == loose == spec(192)


def test_fit_says_how_near_it_came():
    target = 1000  # less than the embeddings alone
    with pytest.raises(ValueError, match=r"nearest to target=1,000 is .* wanted within 1.0%"):
        fit(lambda hidden: of_ratio((1, 7), hidden), cost.params, target)


def test_fit_ends_where_the_quantity_does_not_grow():
    def spec(hidden: int) -> ModelSpec:
        return of_ratio((1, 7), 8)

    with pytest.raises(ValueError, match=r"does not grow with the dimension: .*target=1,000,000"):
        fit(spec, cost.params, 1_000_000)


def test_fit_ends_where_the_quantity_grows_too_slowly():
    with pytest.raises(ValueError, match=r"target=1,000 is out of reach: .* is still below it"):
        fit(lambda x: of_ratio((1, 7), x), lambda spec: _hidden(spec).bit_length(), 1000)


def _hidden(spec: ModelSpec) -> int:
    feed_forward = spec.layers[0].feed_forward
    assert isinstance(feed_forward, MLP)
    return feed_forward.hidden


BASE = jamba(
    vocab=512,
    width=64,
    hidden=160,
    blocks=2,
    l=4,
    ratio=(1, 3),
    attention=Attention(heads=4, kv_heads=2),
    moe=MoE(hidden=96, n_experts=4, top_k=2),
)
REACHABLE = {  # quantity -> dimensions that move it
    "params": ("width", "periods", "mlp_hidden", "expert_hidden", "d_state", "n_experts", "expand"),
    "active_params": ("width", "periods", "mlp_hidden", "expert_hidden", "d_state", "top_k"),
    "training_flops": ("width", "periods", "mlp_hidden", "expert_hidden", "top_k", "window"),
    "cache_bytes": ("width", "periods", "d_state", "kv_heads", "expand", "window"),
}


@pytest.mark.parametrize(("quantity", "free"), [(q, f) for q, fs in REACHABLE.items() for f in fs])
def test_match_finds_a_model_back(quantity, free):
    """From a model with another value of the dimension, the target of a known one is met."""
    known = {"width": 128, "periods": 3, "top_k": 3, "expand": 3, "kv_heads": 4, "n_experts": 7}
    wanted = FREE[free].put(BASE, known.get(free, 224))
    target = QUANTITIES[quantity](wanted, 1024)
    found = match(BASE, free=free, quantity=quantity, target=target, context=1024)
    assert found.error <= 0.01
    assert found.reached == QUANTITIES[quantity](found.spec, 1024)
    assert found.spec == FREE[free].put(BASE, found.value)
    assert (found.quantity, found.free, found.target) == (quantity, free, target)


def test_match_takes_flops_of_the_context_asked_for():
    target = training_flops(BASE, tokens=8192)
    assert match(
        BASE, free="mlp_hidden", quantity="training_flops", target=target, context=8192
    ).error == pytest.approx(0, abs=0.01)
    assert training_flops(BASE, tokens=1024) < 0.99 * target


@pytest.mark.parametrize(
    ("free", "quantity", "target", "message"),
    [
        ("hidden", "params", 10**6, "free='hidden' must be one of width, mlp_hidden"),
        ("width", "size", 10**6, "quantity='size' must be one of params, active_params"),
        ("width", "params", 0, "target=0 must be above 0"),
        ("mlp_hidden", "cache_bytes", 10**6, "cache_bytes by mlp_hidden: .*does not grow"),
        ("kv_heads", "cache_bytes", 10**9, r"nearest to target=1,000,000,000 is .* at 4, off by"),
        ("window", "cache_bytes", 10**9, "does not grow with the dimension"),
        ("mlp_hidden", "params", 1000, "nearest to target=1,000 is .* wanted within 1.0%"),
    ],
)
def test_match_says_why_not(free, quantity, target, message):
    with pytest.raises(ValueError, match=message):
        match(BASE, free=free, quantity=quantity, target=target)


def test_match_says_that_there_is_no_such_layer():
    dense = of_ratio((1, 7), 64)
    with pytest.raises(ValueError, match="no layer with this dimension"):
        match(dense, free="n_experts", quantity="params", target=10**6)


def test_match_keeps_whole_heads_and_groups_of_mamba2():
    layer = Layer(mixer=Mamba2(d_state=8, head_width=24, groups=2), feed_forward=None)
    base = ModelSpec(vocab=32, width=24, layers=(layer,))
    for free, value in (("width", 24 * 5), ("expand", 4), ("d_state", 40)):
        target = cost.params(FREE[free].put(base, value))
        found = match(base, free=free, quantity="params", target=target)
        assert (found.value, found.reached) == (value, target)


def test_match_by_width_keeps_whole_heads_and_rotary_pairs():
    layer = Layer(mixer=Attention(heads=3, kv_heads=1, positions=Rope()), feed_forward=None)
    base = ModelSpec(vocab=32, width=12, layers=(layer,))
    target = cost.params(ModelSpec(vocab=32, width=6 * 5, layers=(layer,)))
    found = match(base, free="width", quantity="params", target=target)
    assert (found.value, found.reached) == (30, target)
