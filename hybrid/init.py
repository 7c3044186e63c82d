"""All weight initialisation: one function, one file, one table from parameter to rule.

Matrices: normal with standard deviation 0.02, those that write into the residual stream divided by
the square root of the number of residual additions (GPT-2 report, section 2.3; mamba-ssm's
`_init_weights`). Mamba: as its reference code, arXiv 2312.00752 section 3.6 and mamba-ssm's
`mamba_simple.py`; several re-implementations lost the bias of dt, hence `DtInit`. Mamba-2: as
mamba-ssm's `mamba2.py`, where a is uniform in -[A_HIGH, A_LOW].
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hybrid import layers
from hybrid.layers.mamba import ShortConv
from hybrid.layers.norm import RMSNorm
from hybrid.spec import DtInit, ModelSpec

STD = 0.02
DT_LOW, DT_HIGH, DT_FLOOR = 1e-3, 1e-1, 1e-4
A_LOW, A_HIGH = 1.0, 16.0

Rule = Callable[[Tensor, torch.Generator], Tensor]  # (a float32 CPU tensor to fill, draws) -> it
Put = Callable[[Tensor, Tensor], Any]


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


def attention(_module: layers.Attention, out_std: float) -> dict[str, Rule]:
    return {"qkv.weight": normal(STD), "out.weight": normal(out_std)}


def dt_bias(start: DtInit, *, inputs: int) -> Rule:
    """Return the rule for the bias of dt, which a projection with that many inputs makes."""
    rules = {
        DtInit.LOG_UNIFORM: dt_bias_log_uniform,
        DtInit.ZERO: zeros,
        DtInit.TORCH_LINEAR: uniform(inputs**-0.5),
    }
    return rules[start]


def mamba(module: layers.Mamba, out_std: float) -> dict[str, Rule]:
    R = module.dt_proj.in_features
    return {
        "in_proj.weight": normal(STD),
        "x_proj.weight": normal(STD),
        "dt_proj.weight": uniform(R**-0.5),
        "dt_bias_E": dt_bias(module.config.dt_init, inputs=R),
        "a_log_EN": a_log,
        "d_E": ones,
        "out_proj.weight": normal(out_std),
    }


def mamba2(module: layers.Mamba2, out_std: float) -> dict[str, Rule]:
    return {
        "in_proj.weight": normal(STD),
        "dt_bias_H": dt_bias(module.config.dt_init, inputs=module.in_proj.in_features),
        "a_log_H": a_log_uniform,
        "d_H": ones,
        "out_proj.weight": normal(out_std),
    }


def short_conv(module: ShortConv, _out_std: float) -> dict[str, Rule]:
    """As torch's Conv1d, which mamba-ssm leaves as it is: uniform within 1/sqrt(fan in)."""
    rule = uniform(module.weight_EW.shape[1] ** -0.5)
    return {"weight_EW": rule, "bias_E": rule}


def mlp(_module: layers.MLP, out_std: float) -> dict[str, Rule]:
    return {"gate_up.weight": normal(STD), "down.weight": normal(out_std)}


def moe(_module: layers.MoE, out_std: float) -> dict[str, Rule]:
    return {"router_XD": normal(STD), "gate_up_XFD": normal(STD), "down_XDF": normal(out_std)}


def norm(_module: RMSNorm, _out_std: float) -> dict[str, Rule]:
    return {"weight": ones}


RULES: dict[type, Callable[[Any, float], dict[str, Rule]]] = {
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
    additions = sum(1 if layer.feed_forward is None else 2 for layer in spec.layers)
    out_std = STD / math.sqrt(additions)
    found = {"embed.weight": normal(STD), "head.weight": normal(STD)}
    for path, module in model.named_modules():
        if type(module) in RULES:
            rules = RULES[type(module)](module, out_std)
            found |= {f"{path}.{name}": rule for name, rule in rules.items()}
    return found
