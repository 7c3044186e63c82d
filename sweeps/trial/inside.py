"""How large the numbers get inside a model's Mamba layers: what goes into a scan and comes out.

These are the activations that Jamba's inner norms hold small (arXiv 2403.19887, section 6.4).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hybrid.layers.mamba import Mamba
from hybrid.model import HybridLM

INSIDE = ("dt", "b", "c", "scan")  # dt before its bias and softplus; the scan after its gate


@contextmanager
def largest_inside(model: HybridLM) -> Iterator[dict[str, float]]:
    """Fill a dict with the largest absolute values of what passes meanwhile, over all layers.

    It stays empty where no layer is Mamba-1.
    """
    found: dict[str, float] = {}
    mixers = [module for module in model.modules() if isinstance(module, Mamba)]
    scans = [mixer.scan for mixer in mixers]
    for mixer, scan in zip(mixers, scans, strict=True):
        mixer.scan = _noting(scan, found)
    try:
        yield found
    finally:
        for mixer, scan in zip(mixers, scans, strict=True):
            mixer.scan = scan


def _noting(scan: Any, found: dict[str, float]) -> Any:
    def noted(u: Tensor, raw: Tensor, bias: Tensor, a: Tensor, b: Tensor, c: Tensor, *rest: Any):
        y, state = scan(u, raw, bias, a, b, c, *rest)
        for name, values in zip(INSIDE, (raw, b, c, y), strict=True):
            found[name] = max(found.get(name, 0.0), values.abs().max().item())
        return y, state

    return noted
