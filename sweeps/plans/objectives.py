"""What a search wants and what it must keep to: numbers of a record, and limits on them.

An objective is cheap where it can be measured before training; a constraint is arithmetic where a
spec and a recipe are enough. Both save work: what is over a budget by arithmetic is never built,
and what is hopeless by measurement is never trained.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import TypeVar

from hybrid import cost
from hybrid.spec import ModelSpec, MoE, require
from hybrid.units import parse_memory
from sweeps.plans.plan import Direction
from sweeps.trial.device import itemsize
from sweeps.trial.events import Speeds
from sweeps.trial.file_names import require_name
from sweeps.trial.recipe import OptimizerName, Precision, Recipe
from sweeps.trial.record import Record

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One number of a record to make small or large; `early` finds it before training."""

    name: str
    direction: Direction
    of: Callable[[Record], float]
    early: Callable[[Speeds], float] | None = None

    def __post_init__(self):
        require_name("Objective: name", self.name)
        require(
            self.direction in ("minimize", "maximize"),
            f"Objective {self.name!r}: direction={self.direction!r} must be minimize or maximize",
        )


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A quantity that must not exceed `limit`: by arithmetic, or as measured before training."""

    name: str
    limit: float
    by_arithmetic: Callable[[ModelSpec, Recipe], float] | None = None
    early: Callable[[Speeds], float] | None = None

    def __post_init__(self):
        require_name("Constraint: name", self.name)
        require(
            math.isfinite(self.limit),
            f"Constraint {self.name!r}: limit={self.limit!r} must be finite",
        )
        if (self.by_arithmetic is None) == (self.early is None):
            raise ValueError(
                f"Constraint {self.name!r} needs exactly one of by_arithmetic and early"
            )


def bits_per_byte() -> Objective:
    """Held-out bits per byte, mean over domains."""

    def of(record: Record) -> float:
        return mean(_known(record.valid_bits_per_byte, "valid_bits_per_byte").values())

    return Objective(name="bits_per_byte", direction="minimize", of=of)


def task_error() -> Objective:
    """The share of held-out tasks that was not right, mean over what was measured."""

    def of(record: Record) -> float:
        return 1 - mean(_known(record.task_accuracy, "task_accuracy").values())

    return Objective(name="task_error", direction="minimize", of=of)


def decode_tokens_per_s(context: int | None = None) -> Objective:
    """Tokens a second at batch 1 after `context` tokens; None is the recipe's longest context."""
    return Objective(
        name=_named("decode_tokens_per_s", context),
        direction="maximize",
        of=lambda record: 1e3 / _at(record.decode_ms, "decode_ms", context),
        early=lambda speeds: 1e3 / _at(speeds.decode_ms, "decode_ms", context),
    )


def prefill_tokens_per_s(context: int | None = None) -> Objective:
    """Tokens a second of reading a prompt of `context` tokens at batch 1; None as above."""
    name = "prefill_tokens_per_s"
    return Objective(
        name=_named(name, context),
        direction="maximize",
        of=lambda record: _at(record.prefill_tokens_per_s, name, context),
        early=lambda speeds: _at(speeds.prefill_tokens_per_s, name, context),
    )


def cache_bytes(context: int | None = None) -> Objective:
    """Bytes that the cache holds at batch 1 after `context` tokens; None as above."""
    return Objective(
        name=_named("cache_bytes", context),
        direction="minimize",
        of=lambda record: _at(record.cache_bytes, "cache_bytes", context),
        early=lambda speeds: _at(speeds.cache_bytes, "cache_bytes", context),
    )


def train_peak_bytes() -> Objective:
    """Peak memory while training, as measured."""
    return Objective(
        name="train_peak_bytes",
        direction="minimize",
        of=lambda record: _known(record.train_peak_bytes, "train_peak_bytes"),
    )


def memory_budget(size: str, *, precision: Precision, device: str = "cpu") -> Constraint:
    """Training within `size` ("512MiB", "80GB") by the arithmetic of `hybrid.cost.training_bytes`.

    `precision` is that of matrix products. Raises ValueError for a size that is none.
    """

    def used(spec: ModelSpec, recipe: Recipe) -> float:
        return cost.training_bytes(
            spec,
            batch=recipe.batch,
            tokens=recipe.tokens,
            itemsize=itemsize(precision),
            device=device,
            muon=recipe.optimizer is OptimizerName.MUON,
            branches=bool(recipe.branches),
        ).total

    return Constraint(name="memory_budget", limit=parse_memory(size), by_arithmetic=used)


def expert_budget(most: int) -> Constraint:
    """The bound n·K <= M of experts times experts chosen, M = `most`, in every layer."""

    def used(spec: ModelSpec, recipe: Recipe) -> float:
        experts = [x.feed_forward for x in spec.layers if isinstance(x.feed_forward, MoE)]
        return max((moe.n_experts * moe.top_k for moe in experts), default=0)

    return Constraint(name="expert_budget", limit=most, by_arithmetic=used)


def params_budget(most: int) -> Constraint:
    """At most so many parameters in all."""
    return Constraint(
        name="params_budget", limit=most, by_arithmetic=lambda spec, recipe: cost.params(spec)
    )


def decode_latency(most_ms: float, context: int | None = None) -> Constraint:
    """At most so many ms a token at batch 1 after `context` tokens, measured before training."""
    return Constraint(
        name=_named("decode_latency", context),
        limit=most_ms,
        early=lambda speeds: _at(speeds.decode_ms, "decode_ms", context),
    )


def _named(quantity: str, context: int | None) -> str:
    return quantity if context is None else f"{quantity}.{context}"


def _at(values: Mapping[int, float] | None, column: str, context: int | None) -> float:
    measured = dict(values or {})
    chosen = max(measured, default=0) if context is None else context
    if chosen not in measured:
        raise ValueError(f"{column} was not measured at {chosen}; measured were {sorted(measured)}")
    return measured[chosen]


def _known(value: T | None, column: str) -> T:
    if value is None:
        raise ValueError(f"{column} was not measured")
    return value
