"""All weight initialisation: one function, one file, one table from parameter to rule.

Matrices: normal, with the standard deviation that `ModelSpec.init` names. Matrices that write into
the residual stream are divided by the square root of the number of residual additions (GPT-2
report, section 2.3; mamba-ssm's `_init_weights`). The inputs of a matrix are its last dimension.

A, dt and the convolution of Mamba do not depend on `ModelSpec.init`. They start as in its reference
code, arXiv 2312.00752 section 3.6 and mamba-ssm's `mamba_simple.py`. Several re-implementations
lost the bias of dt, hence `DtInit`. Mamba-2: as mamba-ssm's `mamba2.py`, where a is uniform in
-[A_HIGH, A_LOW].
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hybrid import layers
from hybrid.layers.mamba import ShortConv
from hybrid.layers.norm import RMSNorm
from hybrid.spec import DtInit, Init, ModelSpec

STD = 0.02
MUP_EMBEDDING_STD = 0.125  # of FAN_IN at width 64
DT_LOW, DT_HIGH, DT_FLOOR = 1e-3, 1e-1, 1e-4
A_LOW, A_HIGH = 1.0, 16.0

Rule = Callable[[Tensor, torch.Generator], Tensor]  # (a float32 CPU tensor to fill, draws) -> it
Put = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True, kw_only=True)
class Start:
    """The rules of the matrices of one model."""

    matrix: Rule
    out: Rule  # of a matrix that writes into the residual stream
    scores: Rule  # of the head and of routers, from which a softmax chooses
    embedding: Rule


def initialise(model: nn.Module, spec: ModelSpec, seed: int, put: Put = Tensor.copy_) -> None:
    """Fill every parameter of the `HybridLM` of `spec` in place, each from a generator of its own.

    The generator's seed is a hash of (seed, parameter name), so a parameter does not depend on
    which others the model has. `put` takes a parameter and its whole value, on the CPU; a process
    that holds only a part of each parameter takes that part. Raises LookupError for a parameter
    that no rule covers.
    """
    rules = _rules(model, spec)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in rules:
                raise LookupError(f"{name} has no rule in hybrid/init.py")
            digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            draws = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            put(parameter, rules[name](torch.empty(parameter.shape), draws))


def normal(std: float) -> Rule:
    return lambda empty, draws: empty.normal_(0.0, std, generator=draws)


def by_inputs(power: float, scale: float = 1.0) -> Rule:
    """Return the rule for a normal matrix of standard deviation scale x inputs^power."""
    return lambda empty, draws: normal(scale * empty.shape[-1] ** power)(empty, draws)


def uniform(bound: float) -> Rule:
    return lambda empty, draws: empty.uniform_(-bound, bound, generator=draws)


def ones(empty: Tensor, _draws: torch.Generator) -> Tensor:
    return empty.fill_(1.0)


def a_log(empty_EN: Tensor, _draws: torch.Generator) -> Tensor:
    """Return log(1..N) for every channel: S4D-real, so that a = -(1..N)."""
    E, N = empty_EN.shape
    return torch.arange(1, N + 1, dtype=torch.float32).log().repeat(E, 1)


def a_log_uniform(empty_H: Tensor, draws: torch.Generator) -> Tensor:
    """Return log(-a) for a uniform in -[A_HIGH, A_LOW]."""
    return empty_H.uniform_(A_LOW, A_HIGH, generator=draws).log_()


def dt_bias_log_uniform(empty_E: Tensor, draws: torch.Generator) -> Tensor:
    """Return biases whose softplus is log-uniform in [DT_LOW, DT_HIGH]."""
    low, high = math.log(DT_LOW), math.log(DT_HIGH)
    dt_E = empty_E.uniform_(low, high, generator=draws).exp().clamp(min=DT_FLOOR)
    return dt_E + torch.log(-torch.expm1(-dt_E))  # the inverse of softplus


def zeros(empty: Tensor, _draws: torch.Generator) -> Tensor:
    return empty.zero_()


def attention(_module: layers.Attention, start: Start) -> dict[str, Rule]:
    return {"qkv.weight": start.matrix, "out.weight": start.out}


def dt_bias(kind: DtInit, *, inputs: int) -> Rule:
    """Return the rule for the bias of dt, which a projection with that many inputs makes."""
    rules = {
        DtInit.LOG_UNIFORM: dt_bias_log_uniform,
        DtInit.ZERO: zeros,
        DtInit.TORCH_LINEAR: uniform(inputs**-0.5),
    }
    return rules[kind]


def mamba(module: layers.Mamba, start: Start) -> dict[str, Rule]:
    R = module.dt_proj.in_features
    return {
        "in_proj.weight": start.matrix,
        "x_proj.weight": start.matrix,
        "dt_proj.weight": uniform(R**-0.5),
        "dt_bias_E": dt_bias(module.config.dt_init, inputs=R),
        "a_log_EN": a_log,
        "d_E": ones,
        "out_proj.weight": start.out,
    }


def mamba2(module: layers.Mamba2, start: Start) -> dict[str, Rule]:
    return {
        "in_proj.weight": start.matrix,
        "dt_bias_H": dt_bias(module.config.dt_init, inputs=module.in_proj.in_features),
        "a_log_H": a_log_uniform,
        "d_H": ones,
        "out_proj.weight": start.out,
    }


def short_conv(module: ShortConv, _start: Start) -> dict[str, Rule]:
    """As torch's Conv1d, which mamba-ssm leaves as it is: uniform within 1/sqrt(fan in)."""
    rule = uniform(module.weight_EW.shape[1] ** -0.5)
    return {"weight_EW": rule, "bias_E": rule}


def mlp(_module: layers.MLP, start: Start) -> dict[str, Rule]:
    return {"gate_up.weight": start.matrix, "down.weight": start.out}


def moe(_module: layers.MoE, start: Start) -> dict[str, Rule]:
    return {"router_XD": start.scores, "gate_up_XFD": start.matrix, "down_XDF": start.out}


def norm(_module: RMSNorm, _start: Start) -> dict[str, Rule]:
    return {"weight": ones}


RULES: dict[type, Callable[[Any, Start], dict[str, Rule]]] = {
    layers.Attention: attention,
    layers.Mamba: mamba,
    layers.Mamba2: mamba2,
    ShortConv: short_conv,
    layers.MLP: mlp,
    layers.MoE: moe,
    RMSNorm: norm,
}


def _rules(model: nn.Module, spec: ModelSpec) -> dict[str, Rule]:
    """Return one rule for each parameter's full name."""
    start = _start(spec)
    found = {"embed.weight": start.embedding, "head.weight": start.scores}
    for path, module in model.named_modules():
        if type(module) in RULES:
            rules = RULES[type(module)](module, start)
            found |= {f"{path}.{name}": rule for name, rule in rules.items()}
    return found


def _start(spec: ModelSpec) -> Start:
    additions = sum(1 if layer.feed_forward is None else 2 for layer in spec.layers)
    fan_in, out = by_inputs(-0.5), by_inputs(-0.5, 1 / math.sqrt(additions))
    plain, plain_out = normal(STD), normal(STD / math.sqrt(additions))
    return {
        Init.NORMAL: Start(matrix=plain, out=plain_out, scores=plain, embedding=plain),
        Init.FAN_IN: Start(matrix=fan_in, out=out, scores=fan_in, embedding=fan_in),
        Init.MUP: Start(
            matrix=fan_in, out=out, scores=by_inputs(-1.0), embedding=normal(MUP_EMBEDDING_STD)
        ),
    }[spec.init]
