"""How large the numbers get inside a model: what sub-layers add to the residual stream, and what
goes into the scans of Mamba layers and comes out.

The latter are the activations that Jamba's inner norms hold small (arXiv 2403.19887, section 6.4),
the former those of Jamba-1.5's activation loss (arXiv 2408.12570).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hybrid.layers.mamba import Mamba
from hybrid.model import HybridLM
from sweeps.trial.outputs import seen_outputs

INSIDE = ("dt", "b", "c", "scan")  # dt before its bias and softplus; the scan after its gate
OUTPUT = "output"


@contextmanager
def largest_inside(model: HybridLM) -> Iterator[dict[str, float]]:
    """Fill a dict with the largest absolute values of what passes meanwhile, over all layers.

    OUTPUT is of every sub-layer, what INSIDE names of those that are Mamba-1. Passes run as they
    are written meanwhile, compiled or not.
    """
    found: dict[str, float] = {}
    mixers = [module for module in model.modules() if isinstance(module, Mamba)]
    scans = [mixer.scan for mixer in mixers]
    for mixer, scan in zip(mixers, scans, strict=True):
        mixer.scan = _noting(scan, found)
    try:
        with model.passes_as_written(), seen_outputs(model, lambda y: _note(found, OUTPUT, y)):
            yield found
    finally:
        for mixer, scan in zip(mixers, scans, strict=True):
            mixer.scan = scan


def _noting(scan: Any, found: dict[str, float]) -> Any:
    def noted(u: Tensor, raw: Tensor, bias: Tensor, a: Tensor, b: Tensor, c: Tensor, *rest: Any):
        y, state = scan(u, raw, bias, a, b, c, *rest)
        for name, values in zip(INSIDE, (raw, b, c, y), strict=True):
            _note(found, name, values)
        return y, state

    return noted


def _note(found: dict[str, float], name: str, values: Tensor) -> None:
    found[name] = max(found.get(name, 0.0), values.abs().max().item())
