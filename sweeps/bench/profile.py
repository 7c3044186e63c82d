"""Where the time of a training step goes, by part, as torch's profiler sees it.

An operator's own time excludes the operators it calls; the backward pass runs on a thread of
autograd and is counted like the rest. On the CPU it is the time of the thread that calls; on CUDA
that of the kernels an operator started. Profiling itself costs time: compare shares, and take
speeds from `python -m sweeps bench`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from hybrid.model import build
from sweeps.bench import entries, phases
from sweeps.bench.clock import Task
from sweeps.bench.parts import OUTSIDE, part_of
from sweeps.bench.record import Origin, origin
from sweeps.bench.setting import Setting
from sweeps.trial.columns import column

PREFIX = "profile-"
WARM_UP = 2  # steps: kernels compile, the optimiser allocates


@dataclass(frozen=True, kw_only=True)
class PartRow(Origin):
    """One part of a training step."""

    contender: str = column("whose implementation")
    label: str = column("what the person who ran it calls it")
    part: str = column("of the step; sweeps/bench/parts.py says what belongs to it")
    steps: int = column("profiled", "steps")
    step_s: float = column("of one step under the profiler; on CUDA, of its kernels", "s")
    part_s: float = column("of the part in one step", "s")
    share: float = column("of the parts' sum")
    calls: float = column("of the part's operators in one step", "calls")


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator's own time and calls, over all steps."""

    name: str
    own_s: float
    calls: int


def run(setting: Setting, name: str, *, steps: int, label: str, command: str) -> list[PartRow]:
    """Return the parts of a training step of one contender, the longest first."""
    source = build(setting.spec, seed=setting.seed, device=setting.device)
    task = phases.train_step(entries.ALL[name](source), setting)
    for _ in range(WARM_UP):
        task.call(task.prepare())
    where = origin(setting, command, PREFIX)
    operators, total_s = _profiled(task, setting.device, steps)
    return [
        PartRow(
            **{f.name: getattr(where, f.name) for f in fields(where)},
            contender=name,
            label=label,
            steps=steps,
            step_s=total_s / steps,
            **part,
        )
        for part in by_part(operators, total_s, steps)
    ]


def by_part(operators: Sequence[Operator], total_s: float, steps: int) -> Iterable[dict[str, Any]]:
    """Return part, part_s, share and calls; what no operator accounts for is `OUTSIDE`."""
    seconds: dict[str, float] = defaultdict(float)
    calls = Counter[str]()
    for operator in operators:
        seconds[part_of(operator.name)] += operator.own_s
        calls[part_of(operator.name)] += operator.calls
    seconds[OUTSIDE] = max(0.0, total_s - sum(seconds.values()))
    return [
        {
            "part": part,
            "part_s": part_s / steps,
            "share": part_s / sum(seconds.values()),
            "calls": calls[part] / steps,
        }
        for part, part_s in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def _profiled(task: Task, device: torch.device, steps: int) -> tuple[list[Operator], float]:
    """Return (every operator's own time, the time they should add up to), over all steps."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    batches = [task.prepare() for _ in range(steps)]
    now = phases.clock(device)
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        start = now()
        for batch in batches:
            task.call(batch)
        wall_s = now() - start
    averages = profiler.key_averages()
    operators = [x for x in averages if x.device_type == DeviceType.CPU]
    if device.type == "cuda":
        on_device = [x for x in averages if x.device_type == DeviceType.CUDA]
        kernels = [x for x in on_device if not x.is_user_annotation]  # those span kernels
        total_s = sum(x.self_device_time_total for x in kernels) / 1e6
        return [_operator(x, x.self_device_time_total) for x in operators], total_s
    return [_operator(x, x.self_cpu_time_total) for x in operators], wall_s


def _operator(event: Any, own_us: float) -> Operator:
    return Operator(name=event.key, own_s=own_us / 1e6, calls=event.count)
