"""Upper bounds on speed: what a device could do if only its bandwidth or its arithmetic held it up.

Free of torch. A step takes at least the longer of (bytes it must read / bandwidth) and (operations
/ rate). Left out, so that these stay bounds: writes, launches, anything between the two extremes.
Weights in 8 bits are read in 8 bits and multiplied in bf16.
"""

from dataclasses import astuple, dataclass

from hybrid.cost import EXPERT_BYTES, ITEM_BYTES, Weights, cache_parts, param_parts
from hybrid.devices import Device, Rate
from hybrid.flops import forward_flops
from hybrid.memory import KV_BYTES
from hybrid.spec import FeedForward, ModelSpec, MoE, require


@dataclass(frozen=True, kw_only=True)
class ReadBytes:
    """What one step must read, in bytes, for all sequences of the batch together."""

    dense: float  # weights that every token uses; of the embedding, one row a token
    experts: float  # weights of the experts that are chosen at all
    kv: float
    states: float  # Mamba's states and convolution tails

    @property
    def total(self) -> float:
        return sum(astuple(self))


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The least time of one step, and what sets it."""

    tokens: int  # that the step brings forward, all sequences together
    memory_s: float
    compute_s: float

    @property
    def seconds(self) -> float:
        return max(self.memory_s, self.compute_s)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def limit(self) -> str:
        return "bandwidth" if self.memory_s >= self.compute_s else "arithmetic"


def read_bytes(
    spec: ModelSpec, *, batch: int, tokens: int, seen: int, weights: Weights
) -> ReadBytes:
    """Return what a pass over `tokens` new tokens of each sequence reads after `seen` tokens.

    Experts as if each token chose evenly and independently: of X experts, X (1 - (1 - K/X)^n) are
    chosen at least once by n tokens, which is K for one token and nearly X for many.
    """
    require(batch >= 1, f"read_bytes: batch={batch} must be 1 or more")
    item, parts, rows = ITEM_BYTES[weights], param_parts(spec), batch * tokens
    table = 0 if spec.tied else parts.embedding  # a tied one is read as the unembedding
    cache = cache_parts(spec, batch=batch, tokens=seen, itemsize=KV_BYTES)
    chosen = sum(_chosen_expert_params(x.feed_forward, spec.width, rows) for x in spec.layers)
    return ReadBytes(
        dense=item * (parts.total - parts.experts - table + min(rows * spec.width, table)),
        experts=EXPERT_BYTES[weights] * chosen,
        kv=cache.kv,
        states=cache.ssm + cache.conv,
    )


def decode_bound(
    spec: ModelSpec, device: Device, *, batch: int, context: int, weights: Weights
) -> Bound:
    """Return the bound on one more token for each of `batch` sequences of `context` tokens."""
    read = read_bytes(spec, batch=batch, tokens=1, seen=context, weights=weights)
    flops = batch * forward_flops(spec, tokens=1, seen=context).total
    return _bound(device, batch, read, flops, weights)


def prefill_bound(
    spec: ModelSpec, device: Device, *, batch: int, context: int, weights: Weights
) -> Bound:
    """Return the bound on reading `batch` prompts of `context` tokens, weights read once."""
    read = read_bytes(spec, batch=batch, tokens=context, seen=0, weights=weights)
    flops = batch * forward_flops(spec, tokens=context, predictions=1).total
    return _bound(device, batch * context, read, flops, weights)


def _bound(device: Device, tokens: int, read: ReadBytes, flops: int, weights: Weights) -> Bound:
    rate = Rate.FP32 if weights is Weights.FP32 else Rate.BF16
    return Bound(
        tokens=tokens,
        memory_s=read.total / device.bytes_per_s,
        compute_s=flops / device.flops_per_s(rate),
    )


def _chosen_expert_params(feed_forward: FeedForward | None, D: int, tokens: int) -> float:
    match feed_forward:
        case MoE(hidden=F, n_experts=X, top_k=top_k):
            return X * (1 - (1 - top_k / X) ** tokens) * 3 * D * F
        case _:
            return 0.0
