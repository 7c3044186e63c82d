"""The training loop. It yields what happened; whoever iterates decides when to stop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from hybrid.layers.moe import balance_loss
from hybrid.model import HybridLM
from sweeps.trial.device import autocast
from sweeps.trial.optimizers import Optimizer
from sweeps.trial.outputs import with_mean_square, without_square
from sweeps.trial.parallel import ALONE, Team, whole
from sweeps.trial.recipe import WSD, Precision, Recipe

Batch = Callable[[int], tuple[Tensor, Tensor]]  # step -> (ids_BT, targets_BT)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of training, as it was before the weights moved."""

    step: int  # from 0
    tokens: int  # trained on so far, this step's included
    nats_per_token: float
    balance: float  # the load-balancing loss, before its weight
    grad_norm: float  # before clipping
    lr: float
    seconds: float  # of the step alone: the time between steps is not training


def step_line(step: Step, recipe: Recipe, tokens_per_s: float | None = None) -> str:
    """Return how far training is, in a line: step, loss, and speed, by default of this step."""
    speed = recipe.batch * recipe.tokens / step.seconds if tokens_per_s is None else tokens_per_s
    return (
        f"step {step.step + 1}/{recipe.steps}  loss {step.nats_per_token:.3f} nats/token  "
        f"{speed:,.0f} tokens/s"
    )


def left(step: Step, recipe: Recipe) -> str:
    """Return in minutes and seconds how long the rest of training takes at this step's speed."""
    seconds = int((recipe.steps - step.step - 1) * step.seconds)
    return f"left {seconds // 60}:{seconds % 60:02d}"


def train(
    model: HybridLM,
    optimizer: Optimizer,
    batch: Batch,
    recipe: Recipe,
    precision: Precision,
    first_step: int = 0,
    team: Team = ALONE,
) -> Iterator[Step]:
    """Train `model` in place, yielding after each step; a loss that is not finite is yielded too.

    `optimizer` is `build_optimizer(model, recipe)`; together with the model it is all that a step
    changes, so whoever puts both back as they were after a step goes on from `first_step`, the
    next one.
    `precision` is the chosen one, not AUTO. `batch` is the whole one, of which each process of
    `team` takes its part; a Step is about the whole one in all of them.
    """
    model.train()
    device = model.embed.weight.device
    alone = team.loss(model)
    loss = with_mean_square(alone, model) if recipe.activation > 0 else without_square(alone)
    for step in range(first_step, recipe.steps):
        start = time.perf_counter()
        ids_BT, targets_BT = (team.part(x).to(device) for x in batch(step))
        lr = learning_rate(recipe, step)
        optimizer.set_lr(lr)
        with autocast(precision, device):
            nats, routings, square = loss(ids_BT, targets_BT)
        balance = balance_loss(team.with_common_loads(routings))
        (nats + recipe.balance * balance.to(device) + recipe.activation * square).backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        mean_nats, mean_balance = team.means(nats, balance)
        yield Step(
            step=step,
            tokens=(step + 1) * targets_BT.numel() * team.size,
            nats_per_token=mean_nats,
            balance=mean_balance,
            grad_norm=whole(grad_norm).item(),
            lr=lr,
            seconds=time.perf_counter() - start,
        )


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of 0-based `step`, before a parameter's own scale."""
    if recipe.schedule is None:
        return _cosine(recipe, step)
    return recipe.lr * _wsd_fraction(recipe.schedule, recipe.steps, step)


def _cosine(recipe: Recipe, step: int) -> float:
    """Return the rate: linear up to `lr`, then a cosine to `final_lr` of it."""
    warm = round(recipe.warmup * recipe.steps)
    if step < warm:
        return recipe.lr * (step + 1) / warm
    done = (step - warm) / max(recipe.steps - 1 - warm, 1)
    low = recipe.lr * recipe.final_lr
    return low + (recipe.lr - low) * (1 + math.cos(math.pi * done)) / 2


def _wsd_fraction(schedule: WSD, steps: int, step: int) -> float:
    """Return the fraction of the highest rate; it would be 0 one step after the last."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    start = schedule.decay_start(steps)
    return 1.0 if step < start else (steps - step) / (steps - start)
