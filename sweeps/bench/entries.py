"""The contenders there are, by name. A new one is a class and a line here."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from hybrid import ops as backends
from hybrid.model import HybridLM
from hybrid.spec import require
from sweeps.bench.contender import Contender
from sweeps.bench.ours import Ours
from sweeps.bench.with_mambapy import MambapyJamba
from sweeps.bench.with_transformers import TransformersJamba
from sweeps.trial.engine import Compile

Make = Callable[[HybridLM], Contender]  # with a copy of this model's weights
PEERS: dict[str, Make] = {
    "transformers": partial(TransformersJamba, mambapy_scan=False),
    "transformers (mambapy scan)": partial(TransformersJamba, mambapy_scan=True),
    "mambapy": MambapyJamba,
}
SUFFIXES = {Compile.OFF: "", Compile.ON: ", compiled", Compile.GRAPHS: ", graphs"}


def ours(ops: str, compiled: Compile = Compile.OFF) -> str:
    """Return the name of ours on a back end: "ours (triton)" or "ours (triton, graphs)"."""
    return f"ours ({ops}{SUFFIXES[compiled]})"


OURS: dict[str, Make] = {
    ours(name, compiled): partial(Ours, ops=name, compiled=compiled)
    for name in backends.NAMES
    for compiled in Compile
}
SCANS = frozenset(ours(name) for name in backends.NAMES)  # a scan alone is compiled by nobody
ALL: dict[str, Make] = OURS | PEERS


def chosen(
    ops: Sequence[str], peers: bool, device: torch.device, compiled: Sequence[Compile] = ()
) -> tuple[str, ...]:
    """Return the names of contenders, the baseline first; no `ops` are all for the device.

    The baseline is our fastest back end for the device where it is chosen, else the first one. No
    `compiled` is none on a CPU; on CUDA it is every kind, where the scan is a kernel: torch's
    compiler would unroll a loop over tokens. Raises ValueError for a back end that does not exist.
    """
    for name in ops:
        require(name in backends.NAMES, f"ops={name!r} must be one of {', '.join(backends.NAMES)}")
    best = backends.best_for(device).name
    found = sorted(dict.fromkeys(ops or backends.names_for(device)), key=lambda name: name != best)
    names = [ours(name, c) for name in found for c in _kinds(name, device, compiled)]
    return (*names, *(PEERS if peers else ()))


def _kinds(name: str, device: torch.device, asked: Sequence[Compile]) -> list[Compile]:
    """Return how a back end is compiled, not at all first."""
    usual = tuple(Compile) if device.type == "cuda" and name in backends.GPU else (Compile.OFF,)
    return [c for c in Compile if c in (asked or usual)]
