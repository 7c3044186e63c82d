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

Make = Callable[[HybridLM], Contender]  # with a copy of this model's weights
PEERS: dict[str, Make] = {
    "transformers": partial(TransformersJamba, mambapy_scan=False),
    "transformers (mambapy scan)": partial(TransformersJamba, mambapy_scan=True),
    "mambapy": MambapyJamba,
}
OURS = {f"ours ({name})": name for name in backends.NAMES}
ALL: dict[str, Make] = {name: partial(Ours, ops=ops) for name, ops in OURS.items()} | PEERS


def chosen(ops: Sequence[str], peers: bool, device: torch.device) -> tuple[str, ...]:
    """Return the names of contenders, the baseline first; no `ops` are all for the device.

    The baseline is our fastest back end for the device where it is chosen, else the first one.
    Raises ValueError for a back end that does not exist.
    """
    for name in ops:
        require(name in backends.NAMES, f"ops={name!r} must be one of {', '.join(backends.NAMES)}")
    best = backends.best_for(device).name
    ours = sorted(dict.fromkeys(ops or backends.names_for(device)), key=lambda name: name != best)
    return (*(f"ours ({name})" for name in ours), *(PEERS if peers else ()))
