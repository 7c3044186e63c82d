"""The seed's formulas against exact counts, over grids in the size of the released Jamba model.

Free of torch. `moe_verdicts`, `mamba_verdicts` and `layer_verdicts` are computed, never typed;
beside each formula stands what holds better. `docs/cost.md` shows them.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

from hybrid.cost import Weights, active_params, cache_parts, param_parts, params
from hybrid.devices import Device, find_device
from hybrid.flops import forward_flops
from hybrid.jamba import jamba
from hybrid.laws import Verdict, judge, least_cost, memory_share, moe_cost, throughput_share
from hybrid.memory import KV_BYTES, serving_bytes
from hybrid.roofline import decode_bound
from hybrid.spec import MLP, Attention, Layer, Mamba, ModelSpec, MoE, StateSpace

WIDTH, HIDDEN, VOCAB, BLOCKS, BLOCK = 4096, 14_336, 65_536, 4, 8
ATTENTION = Attention(heads=32, kv_heads=8)
CONTEXT = 262_144
DEVICE = "a100-80gb-sxm"
EXPERTS, TOP_KS, PERIODS = (2, 4, 8, 16, 32), (1, 2, 4), (1, 2, 4)
EXPERT_HIDDENS = (3584, 7168, 14_336)
MIXERS = ((7, 1), (3, 1), (1, 1), (1, 3), (1, 7))  # attention, Mamba; both are present
JAMBA = (16, 2, 2)  # (n, K, e) of the released model

Setting = tuple[int, int, int]
Count = Callable[[ModelSpec], float]


def settings() -> list[Setting]:
    """Return the grid of (n, K, e) with K <= n."""
    return [(n, k, e) for n, k, e in product(EXPERTS, TOP_KS, PERIODS) if k <= n]


def moe_spec(n: int, top_k: int, e: int, hidden: int = HIDDEN) -> ModelSpec:
    """Return the released model with other experts."""
    return _spec((1, 7), MoE(hidden=hidden, n_experts=n, top_k=top_k), e)


def ratio_spec(a: int, m: int) -> ModelSpec:
    """Return the released model without experts and with another ratio."""
    return _spec((a, m), None, 1)


def _spec(ratio: tuple[int, int], moe: MoE | None, e: int) -> ModelSpec:
    return jamba(
        vocab=VOCAB,
        width=WIDTH,
        hidden=HIDDEN,
        blocks=BLOCKS,
        l=BLOCK,
        ratio=ratio,
        attention=ATTENTION,
        moe=moe,
        e=e,
        moe_offset=e - 1,
    )


# ---- (n, K, e) -----------------------------------------------------------------------------------


def moe_verdicts() -> list[Verdict]:
    """Return C(n, K, e) against compute and memory, each with what stands for it better."""
    compute, held = "FLOPs of the MoE layers", "parameters of the experts"
    return [
        _moe("(n/e) K", moe_cost, compute, _moe_flops),
        _moe("K/e", lambda n, k, e: k / e, compute, _moe_flops),
        _moe_of_widths("(n/e) K", lambda n, k, e, f: moe_cost(n, k, e)),
        _moe_of_widths("K/e", lambda n, k, e, f: k / e),
        _moe_of_widths("(K/e) F", lambda n, k, e, f: k / e * f),
        _moe("(n/e) K", moe_cost, "active parameters of the model", active_params),
        _moe("(n/e) K", moe_cost, held, _expert_params),
        _moe("n K", lambda n, k, e: n * k, held, _expert_params),
        _moe("n/e", lambda n, k, e: n / e, held, _expert_params),
    ]


def optima(budgets: tuple[int, ...] = (2, 8, 32, 128)) -> dict[int, Setting]:
    """Return the (n, K, e) that the seed's optimisation chooses for each budget M."""
    return {budget: least_cost(settings(), budget) for budget in budgets}


def place_of_jamba() -> tuple[int, int]:
    """Return (how many settings cost less by C than Jamba's, how many n K <= its own allows)."""
    n, k, _ = JAMBA
    allowed = [x for x in settings() if x[0] * x[1] <= n * k]
    return sum(moe_cost(*x) < moe_cost(*JAMBA) for x in allowed), len(allowed)


def _moe(law: str, formula: Callable[..., float], quantity: str, count: Count) -> Verdict:
    pairs = [(formula(*x), count(moe_spec(*x))) for x in settings()]
    return judge(law=law, quantity=quantity, pairs=pairs)


def _moe_of_widths(law: str, formula: Callable[..., float]) -> Verdict:
    pairs = [
        (formula(*x, f), _moe_flops(moe_spec(*x, hidden=f)))
        for x, f in product(settings(), EXPERT_HIDDENS)
    ]
    return judge(law=law, quantity="FLOPs of the MoE layers, width F varied", pairs=pairs)


def _moe_flops(spec: ModelSpec) -> float:
    flops = forward_flops(spec, tokens=1)
    return flops.experts + flops.router


def _expert_params(spec: ModelSpec) -> float:
    return param_parts(spec).experts


# ---- (a, m) at a fixed depth ---------------------------------------------------------------------


def mamba_layers(spec: ModelSpec) -> int:
    return sum(isinstance(layer.mixer, StateSpace) for layer in spec.layers)


def mamba_verdicts(device: Device | None = None) -> list[Verdict]:
    """Return 1/m against memory and m against the bound on decoding speed; None takes DEVICE."""
    device = find_device(DEVICE) if device is None else device
    depth = BLOCKS * BLOCK
    cached, held = "keys and values at 256k", "weights and cache at 256k"
    return [
        _mamba("1/m", memory_share, cached, _kv),
        _mamba("L - m", lambda m: depth - m, cached, _kv),
        _mamba("1/m", memory_share, held, _held),
        _mamba("1/m", memory_share, "weights and cache at 1k", lambda s: _held(s, 1024)),
        _mamba("m", throughput_share, "decoding bound at 256k", _speed(device, CONTEXT)),
        _mamba("m", throughput_share, "decoding bound at 1k", _speed(device, 1024)),
    ]


def _mamba(law: str, formula: Callable[[int], float], quantity: str, count: Count) -> Verdict:
    specs = [ratio_spec(a, m) for a, m in MIXERS]
    pairs = [(formula(mamba_layers(spec)), count(spec)) for spec in specs]
    return judge(law=law, quantity=quantity, pairs=pairs)


def _kv(spec: ModelSpec) -> float:
    return cache_parts(spec, batch=1, tokens=CONTEXT, itemsize=KV_BYTES).kv


def _held(spec: ModelSpec, context: int = CONTEXT) -> float:
    need = serving_bytes(spec, batch=1, context=context, weights=Weights.BF16, chunk=0)
    return need.total


def _speed(device: Device, context: int) -> Count:
    def bound(spec: ModelSpec) -> float:
        found = decode_bound(spec, device, batch=1, context=context, weights=Weights.BF16)
        return found.tokens_per_s

    return bound


# ---- numbers of layers ---------------------------------------------------------------------------


def layer_verdicts() -> list[Verdict]:
    """Return the cost side of "a function of the numbers of layers": a sum, each kind's own price.

    A price is what one more such layer adds to the smallest model; the sum is held against models
    of other numbers. The quality side is no arithmetic: give `judge` measurements.
    """
    counts: dict[str, Count] = {
        "parameters": params,
        "weights and cache at 256k": _held,
        "FLOPs of a token after 256k": lambda s: forward_flops(s, tokens=1, seen=CONTEXT).total,
    }
    return [_sum_of_layers(quantity, count) for quantity, count in counts.items()]


def _sum_of_layers(quantity: str, count: Count) -> Verdict:
    moe = MoE(hidden=HIDDEN, n_experts=16, top_k=2)
    kinds = [
        Layer(mixer=mixer, feed_forward=feed_forward)
        for mixer in (ATTENTION, Mamba())
        for feed_forward in (MLP(hidden=HIDDEN), moe)
    ]
    least = ModelSpec(vocab=VOCAB, width=WIDTH, layers=(kinds[0],))
    base = count(least)
    price = {kind: count(replace(least, layers=(kinds[0], kind))) - base for kind in kinds}
    specs = [_spec(ratio, moe, e) for ratio, e in product(MIXERS, PERIODS)]
    pairs = [
        (base + sum(price[x] for x in spec.layers) - price[kinds[0]], count(spec)) for spec in specs
    ]
    return judge(law="sum over layers", quantity=quantity, pairs=pairs)
