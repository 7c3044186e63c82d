"""What fits a memory when a model answers: weights, cache, and the pass under way. Free of torch.

    fits = ServingBytes.total <= memory, of weights + cache(batch, context) + working(batch, chunk)

Assumed: keys and values in bf16, Mamba's states in fp32, a cache written in place, no slack of an
allocator and no second copy of the weights. `chunk` is how many tokens of the prompt are read in
one pass: None is all at once, the dearest; 0 leaves the working memory out of the sum.
"""

from dataclasses import astuple, dataclass

from hybrid.activations import working_bytes
from hybrid.cost import Weights, cache_bytes, weight_bytes
from hybrid.spec import ModelSpec, require

KV_BYTES = 2  # bf16
LONGEST = 1 << 40  # tokens; what fits so many is called unlimited


@dataclass(frozen=True, kw_only=True)
class ServingBytes:
    """Where memory goes when `batch` prompts of `context` tokens are read and answered."""

    weights: int
    cache: int
    working: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


def serving_bytes(
    spec: ModelSpec, *, batch: int, context: int, weights: Weights, chunk: int | None
) -> ServingBytes:
    """Return the bytes of serving; products take bf16 inputs, or fp32 ones with fp32 weights."""
    itemsize = product_itemsize(weights)
    in_flight = context if chunk is None else min(context, chunk)
    working = working_bytes(spec, batch=batch, tokens=in_flight, itemsize=itemsize)
    return ServingBytes(
        weights=weight_bytes(spec, weights),
        cache=cache_bytes(spec, batch=batch, tokens=context, itemsize=KV_BYTES),
        working=working if in_flight else 0,
    )


def product_itemsize(weights: Weights) -> int:
    """Return the bytes of a matrix product's inputs: weights in 8 bits are turned into bf16."""
    return 4 if weights is Weights.FP32 else 2


def longest_context(
    spec: ModelSpec, *, memory: int, batch: int, weights: Weights, chunk: int | None
) -> int | None:
    """Return the longest context that fits `memory` bytes; 0: not even one token; None: no limit.

    No limit is what a model has whose cache and working memory stop growing. `chunk` 0 leaves the
    working memory out: weights and cache alone.
    """
    require(memory > 0, f"longest_context: memory={memory} must be above 0 bytes")

    def fits(context: int) -> bool:
        need = serving_bytes(spec, batch=batch, context=context, weights=weights, chunk=chunk)
        return need.total <= memory

    if fits(LONGEST):
        return None
    low, high = 0, LONGEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
