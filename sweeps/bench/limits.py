"""How large a batch fits: sequences doubled until memory is exhausted, in training and in decoding.

A batch that does not fit has a row that says so. Measured memory stands beside the arithmetic of
`hybrid/cost.py`, whose estimate is of a model's own tensors.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import psutil
import torch

from hybrid import codec, cost
from hybrid.spec import require, require_positive
from hybrid.units import bytes_text
from sweeps.bench.clock import spread
from sweeps.bench.judge import Say
from sweeps.bench.record import Origin, Status, origin
from sweeps.bench.setting import Phase, Setting
from sweeps.bench.weigh import Weighed, estimate_bytes, weigh
from sweeps.trial.columns import column

PREFIX = "limits-"
PHASES = (Phase.TRAIN, Phase.DECODE)
CPU_SHARE = 4  # of free memory, a fourth: the last batch may take twice what was given


@dataclass(frozen=True, kw_only=True)
class LimitRow(Origin):
    """One batch in one phase."""

    batch: int = column("sequences at once", "sequences")
    contender: str = column("whose implementation")
    ratio: str = column("attention to Mamba layers")
    phase: Phase = column("train: a step; decode: a token of every sequence")
    context: int | None = column("tokens of every sequence before decoding", "tokens", True)
    status: Status = column("timed, out of memory or fails")
    notes: list[str] = column("what a reader has to know")
    memory_bytes: int = column("that there was to fill", "bytes")
    calls: int | None = column("timed", optional=True)
    median_s: float | None = column("of a call", "s", optional=True)
    low_s: float | None = column("first quartile", "s", optional=True)
    high_s: float | None = column("third quartile", "s", optional=True)
    tokens_per_s: float | None = column("of all sequences together", "tokens/s", optional=True)
    peak_bytes: int | None = column(
        "held at the peak, weights and reading the context included: CUDA's allocator, or growth "
        "of the resident set",
        "bytes",
        optional=True,
    )
    estimate_bytes: int = column("the same by arithmetic", "bytes")
    peak_over_estimate: float | None = column("peak_bytes / estimate_bytes", optional=True)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """When to stop doubling."""

    memory_bytes: int
    max_batch: int
    budget_s: float  # no larger batch is begun after so many seconds, in each phase of each model

    def __post_init__(self):
        require_positive("Bounds", memory_bytes=self.memory_bytes, max_batch=self.max_batch)
        require(self.budget_s > 0, f"Bounds: budget_s={self.budget_s} must be above 0 seconds")


def memory_of(device: torch.device) -> int:
    """Return the bytes to fill where nothing is said: all of a GPU's, a part of what is free."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().available // CPU_SHARE


def run(
    settings: Sequence[Setting], name: str, bounds: Bounds, *, command: str, say: Say
) -> list[LimitRow]:
    """Return a row for every batch, phase and setting, each with a model of its own.

    The first context of a setting is the one that is decoded after. `say` is told what happens.
    """
    _keep_within(bounds, settings[0].device)
    where = origin(settings[0], command, PREFIX)
    rows: list[LimitRow] = []
    for setting in settings:
        spec = setting.spec
        here = replace(where, spec=codec.dumps(spec), params=cost.params(spec))
        for phase in PHASES:
            rows += _doubled(here, setting, name, phase, bounds, say)
    return rows


def _doubled(
    where: Origin, setting: Setting, name: str, phase: Phase, bounds: Bounds, say: Say
) -> Iterator[LimitRow]:
    start, batch = time.perf_counter(), 1
    while True:
        say(f"{setting.spec.ratio}: {phase} of {batch} sequences")
        sized = replace(setting, batch=batch)
        row = _row(where, sized, name, phase, bounds, weigh(sized, name, phase))
        end = _end(row, bounds, time.perf_counter() - start)
        yield row if end is None else replace(row, notes=[*row.notes, end])
        if end is not None:
            return
        batch *= 2


def _end(row: LimitRow, bounds: Bounds, spent_s: float) -> str | None:
    """Return why there is no larger batch, or None."""
    if row.status is not Status.TIMED:
        return f"a batch of {row.batch} {'fails' if row.status is Status.FAILS else 'does not fit'}"
    if 2 * row.batch > bounds.max_batch:
        return f"a batch of {row.batch} is the largest that was asked for"
    if spent_s > bounds.budget_s:
        return f"after a batch of {row.batch} the {bounds.budget_s:g} s given were over"
    return None


def _row(
    where: Origin, setting: Setting, name: str, phase: Phase, bounds: Bounds, found: Weighed
) -> LimitRow:
    estimate, peak = estimate_bytes(setting, phase), found.peak_bytes
    notes, status = [found.note] if found.note else [], found.status
    if peak is not None and peak > bounds.memory_bytes:
        status = Status.OUT_OF_MEMORY
        notes.append(f"takes {bytes_text(peak)} of {bytes_text(bounds.memory_bytes)}")
    tokens = setting.batch * (setting.tokens if phase is Phase.TRAIN else 1)
    known = {f.name: getattr(where, f.name) for f in fields(where)} | {"batch": setting.batch}
    return LimitRow(
        **known,
        **_speed(found.seconds, tokens),
        contender=name,
        ratio=setting.spec.ratio,
        phase=phase,
        context=None if phase is Phase.TRAIN else setting.contexts[0],
        status=status,
        notes=notes,
        memory_bytes=bounds.memory_bytes,
        peak_bytes=peak,
        estimate_bytes=estimate,
        peak_over_estimate=None if peak is None else peak / estimate,
    )


def _speed(seconds: Sequence[float], tokens: int) -> dict[str, Any]:
    if not seconds:
        return {}
    s = spread(seconds)
    times = {"median_s": s.median, "low_s": s.low, "high_s": s.high}
    return {"calls": len(seconds), **times, "tokens_per_s": tokens / s.median}


def _keep_within(bounds: Bounds, device: torch.device) -> None:
    """Have CUDA's allocator refuse more than is given; on the CPU a peak above it ends the run."""
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        share = min(1.0, bounds.memory_bytes / whole)
        torch.cuda.set_per_process_memory_fraction(share, device.index)
