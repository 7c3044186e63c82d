"""All that a step of training changes, as named tensors: weights, optimiser, random numbers.

    before = copied(tensors_of(model, optimizer))
    ...                                        # train
    put_back(model, optimizer, before)         # as if it had not been

`model.NAME` is a parameter, `adamw.KEY.NAME` or `muon.KEY.NAME` a part of the state of its
optimiser, `rng.cpu` and `rng.cuda` are states of torch's generators.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hybrid.model import HybridLM
from sweeps.trial.optimizers import Optimizer
from sweeps.trial.parallel import put

State = dict[str, Tensor]


def tensors_of(model: HybridLM, optimizer: Optimizer) -> State:
    """Return the present state. Weights and optimiser are not copied."""
    weights = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    return weights | optimizer.tensors() | _random_state(device_of(model))


def copied(state: State) -> State:
    """Return a copy that later steps do not change."""
    return {name: x.clone() for name, x in state.items()}


def put_back(model: HybridLM, optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Copy a whole state into the model, the optimiser and torch's generators."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            put(parameter, state[f"model.{name}"])
        optimizer.put_back(state)
    torch.set_rng_state(state["rng.cpu"].cpu())
    if "rng.cuda" in state:
        torch.cuda.set_rng_state(state["rng.cuda"].cpu(), device_of(model))


def shapes_of(
    model: HybridLM, optimizer: Optimizer, names: set[str]
) -> dict[str, torch.Size | None]:
    """Return the tensors that a file with `names` must hold, with their shapes. None is any shape.

    A parameter that never had a gradient, such as an expert never chosen, has no state of AdamW's.
    """
    wanted: dict[str, torch.Size | None] = dict.fromkeys(_random_state(device_of(model)))
    for name, parameter in model.named_parameters():
        wanted |= {f"model.{name}": parameter.shape, **optimizer.shapes(name, names)}
    return wanted


def device_of(model: HybridLM) -> torch.device:
    """Return where the weights are."""
    return model.embed.weight.device


def _random_state(device: torch.device) -> State:
    states = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(device)
    return states
