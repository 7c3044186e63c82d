"""The optimiser of a training run: AdamW, or Muon for the matrices inside layers beside AdamW.

    optimizer = build_optimizer(model, recipe)
    optimizer.set_lr(1e-3)
    loss.backward()
    optimizer.step()

A state goes out and comes back as tensors named `adamw.exp_avg.NAME` or
`muon.momentum_buffer.NAME`, where NAME is that of the parameter.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from hybrid.model import HybridLM
from hybrid.spec import Init, require
from sweeps.trial.parallel import put
from sweeps.trial.recipe import OptimizerName, Recipe

ADAMW = ("step", "exp_avg", "exp_avg_sq")
MOMENTUM = "momentum_buffer"
# Two-dimensional parameters inside layers that no vector is multiplied by: the logarithms of
# Mamba's decays, and the taps of a convolution of each channel alone.
NO_DECAY = "a_log_EN"
NO_PRODUCT = (NO_DECAY, "weight_EW")


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay moves a parameter: matrices, not vectors and not A."""
    return parameter.ndim >= 2 and not name.endswith(NO_DECAY)


def is_layer_matrix(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix, or several, of a product inside a layer."""
    return name.startswith("blocks.") and parameter.ndim >= 2 and not name.endswith(NO_PRODUCT)


class Matrices:
    """The matrices that one parameter holds, as Muon wants them: each two-dimensional.

    Experts are (X, rows, columns), and the update of one does not depend on the others. `momentum`
    has the shape of the parameter, and each matrix a part of it as its state.
    """

    def __init__(self, parameter: nn.Parameter):
        self.parameter, self.momentum = parameter, torch.zeros_like(parameter, requires_grad=False)
        self.each = [nn.Parameter(matrix) for matrix in _apart(parameter.detach())]

    def take_gradients(self) -> None:
        """Give each matrix its part of the gradient of the parameter."""
        gradient = self.parameter.grad
        parts = [None] * len(self.each) if gradient is None else _apart(gradient)
        for matrix, part in zip(self.each, parts, strict=True):
            matrix.grad = part


class Optimizer:
    """All optimisers of one model. `named` are the parameters that AdamW moves, by name.

    `scaled` are the names of those whose rate is `scale` times the rate. Their weight decay is
    divided by `scale`, because torch multiplies it by the rate.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        recipe: Recipe,
        matrices: Mapping[str, Matrices],
        scaled: frozenset[str] = frozenset(),
        scale: float = 1.0,
    ):
        self.named, self.matrices = dict(named), dict(matrices)
        groups = weight_groups(named, recipe.weight_decay, scaled, scale)
        self.adamw = AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
        self.muon = _muon(list(matrices.values()), recipe) if matrices else None

    def set_lr(self, lr: float) -> None:
        """Set the rate of the next step, that of `scaled` parameters in proportion."""
        for optimizer in self._each():
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr_scale"]

    def step(self) -> None:
        """Move the weights by the gradients they have."""
        for matrices in self.matrices.values():
            matrices.take_gradients()
        for optimizer in self._each():
            optimizer.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer in self._each():
            optimizer.zero_grad(set_to_none=True)
        for matrices in self.matrices.values():
            matrices.parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, uncopied. A parameter that never had a gradient has no AdamW state."""
        found = {f"muon.{MOMENTUM}.{name}": x.momentum for name, x in self.matrices.items()}
        for name, parameter in self.named.items():
            for key, value in self.adamw.state.get(parameter, {}).items():
                found[f"adamw.{key}.{name}"] = value
        return found

    def shapes(self, name: str, names: set[str]) -> dict[str, torch.Size]:
        """Return the shapes of the state of the parameter `name` in a file that holds `names`."""
        if name in self.matrices:
            return {f"muon.{MOMENTUM}.{name}": self.matrices[name].parameter.shape}
        if f"adamw.step.{name}" not in names:
            return {}
        shape = self.named[name].shape
        moments = {f"adamw.{key}.{name}": shape for key in ADAMW[1:]}
        return {f"adamw.step.{name}": torch.Size(), **moments}

    def put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a whole state, as `tensors` gave it, into this optimiser."""
        for name, matrices in self.matrices.items():
            put(matrices.momentum, tensors[f"muon.{MOMENTUM}.{name}"])
        for name, parameter in self.named.items():
            self.adamw.state.pop(parameter, None)
            if f"adamw.step.{name}" in tensors:
                step, *moments = (tensors[f"adamw.{key}.{name}"] for key in ADAMW)
                self.adamw.state[parameter] = {
                    "step": step.to(parameter.device, copy=True),
                    **{
                        key: put(torch.empty_like(parameter, requires_grad=False), moment)
                        for key, moment in zip(ADAMW[1:], moments, strict=True)
                    },
                }

    def _each(self) -> list[torch.optim.Optimizer]:
        return [self.adamw] if self.muon is None else [self.adamw, self.muon]


def build_optimizer(model: HybridLM, recipe: Recipe) -> Optimizer:
    """Return the optimiser of a training run at its start.

    Raises ValueError for `lr_base_width` with a model that does not start as MUP.
    """
    named = dict(model.named_parameters())
    base, width = recipe.lr_base_width, model.spec.width
    require(
        base is None or model.spec.init is Init.MUP,
        f"lr_base_width={base} needs ModelSpec.init={Init.MUP}, got {model.spec.init}: the best "
        "rate transfers over width only together with initial weights that do",
    )
    of_muon: dict[str, nn.Parameter] = {}
    if recipe.optimizer is OptimizerName.MUON:
        of_muon = {name: p for name, p in named.items() if is_layer_matrix(name, p)}
    scaled = {name for name, p in named.items() if is_layer_matrix(name, p)} | {"head.weight"}
    return Optimizer(
        {name: p for name, p in named.items() if name not in of_muon},
        recipe,
        {name: Matrices(p) for name, p in of_muon.items()},
        frozenset() if base is None else frozenset(scaled),
        1.0 if base is None else base / width,
    )


def weight_groups(
    named: Mapping[str, nn.Parameter],
    weight_decay: float,
    scaled: frozenset[str] = frozenset(),
    scale: float = 1.0,
) -> list[dict]:
    """Return AdamW's groups: matrices decay, vectors (norms, D, biases) and A do not.

    A is kept as its logarithm, two-dimensional, and named in `hybrid/layers/mamba.py`. The third
    group has the parameters named in `scaled`, if any.
    """
    fixed = {name: p for name, p in named.items() if name not in scaled}
    decayed = [p for name, p in fixed.items() if is_decayed(name, p)]
    kept = [p for name, p in fixed.items() if not is_decayed(name, p)]
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": kept, "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    if scaled:
        decay = weight_decay / scale
        parameters = [named[name] for name in named if name in scaled]
        groups.append({"params": parameters, "weight_decay": decay, "lr_scale": scale})
    return groups


def _muon(matrices: list[Matrices], recipe: Recipe) -> Muon:
    each = [matrix for x in matrices for matrix in x.each]
    muon = Muon(
        [{"params": each, "lr_scale": 1.0}],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    for x in matrices:
        for matrix, momentum in zip(x.each, _apart(x.momentum), strict=True):
            muon.state[matrix][MOMENTUM] = momentum
    return muon


def _apart(x: Tensor) -> list[Tensor]:
    """Return the matrices in the last two dimensions, which share the memory of `x`."""
    return list(x.view(-1, *x.shape[-2:]).unbind())
