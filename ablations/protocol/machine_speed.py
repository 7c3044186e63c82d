"""Training speed of this machine with one model, for the hours of a plan."""

import time
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from hybrid.flops import training_flops
from hybrid.model import build
from hybrid.spec import ModelSpec
from sweeps.trial.optimizers import build_optimizer
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.train import train

WARM_UP_STEPS = 2  # kernels are compiled and memory is faulted in


def training_flops_per_s(spec: ModelSpec, recipe: Recipe, *, seconds: float = 20.0) -> float:
    """Return the training FLOPs that one worker of one thread does in a second, in fp32.

    Trains on random tokens for about `seconds`, and takes the median step. The number of threads
    is put back afterwards.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        step_s = _median_step_s(spec, recipe, seconds)
    finally:
        torch.set_num_threads(threads)
    return recipe.batch * recipe.tokens * training_flops(spec, tokens=recipe.tokens) / step_s


def _median_step_s(spec: ModelSpec, recipe: Recipe, seconds: float) -> float:
    recipe = replace(recipe, schedule=None, steps=100_000, precision=Precision.FP32)
    model = build(spec)
    shape = (recipe.batch, recipe.tokens + 1)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        draws = torch.Generator().manual_seed(step)
        ids_BT1 = torch.randint(spec.vocab, shape, generator=draws)
        return ids_BT1[:, :-1].contiguous(), ids_BT1[:, 1:].contiguous()

    start, times = time.perf_counter(), []
    for step in train(model, build_optimizer(model, recipe), batch, recipe, Precision.FP32):
        times.append(step.seconds)
        if len(times) > WARM_UP_STEPS and time.perf_counter() - start > seconds:
            break
    return median(times[WARM_UP_STEPS:])
