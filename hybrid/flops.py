"""Floating-point operations of a spec, by arithmetic. Free of torch.

A multiply-add counts as 2. Counted: matrix products, attention's two products over the pairs that a
query may see (causal, and inside its window), the short convolution, the router, the chosen experts
and the scan. Not counted: embedding look-up, norms, activations, softmax, rotary positions and
residual sums, each a few operations for each value of a tensor that a product made.

The scan counts every operation of `reference.recurrence`, an exponential as one: for each channel
and state dt*a, exp, decay*h, drive*b, their sum, h*c and its sum; for each channel dt*u, d*u and a
sum. Its softplus and its gate are activations. That of Mamba-2 counts `reference.head_recurrence`
in the same way, with dt*a and exp once for each head; the form in matrix products that runs does
more, the more tokens a chunk has.

    forward_flops(spec, tokens=4096)             # one sequence, in training
    forward_flops(spec, tokens=1, seen=4096)     # one step of decoding
"""

from collections import Counter
from dataclasses import astuple, dataclass
from typing import assert_never

from hybrid.spec import MLP, Attention, FeedForward, Mamba, Mamba2, Mixer, ModelSpec, MoE, require

SCAN_PER_STATE = 7
SCAN_PER_CHANNEL = 3
SSD_PER_STATE = 5
SSD_PER_HEAD = 2
TRAINING_PASSES = 3  # forward, and twice that backward: by the input and by the weights


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations by part."""

    attention_projections: int = 0
    attention_pairs: int = 0  # queries times keys, and weights times values
    mamba_projections: int = 0
    conv: int = 0
    scan: int = 0
    mlp: int = 0
    router: int = 0
    experts: int = 0
    logits: int = 0

    @property
    def total(self) -> int:
        return sum(astuple(self))

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(**{name: mine + getattr(other, name) for name, mine in vars(self).items()})

    def times(self, n: int) -> "Flops":
        return Flops(**{name: n * value for name, value in vars(self).items()})


def forward_flops(
    spec: ModelSpec, *, tokens: int, seen: int = 0, predictions: int | None = None
) -> Flops:
    """Return the operations of one sequence's `tokens` new tokens after `seen` earlier ones.

    `predictions` is the number of tokens that get logits; None: all of them, as in training.
    """
    require(
        tokens >= 1 and seen >= 0,
        f"forward_flops: tokens={tokens} must be 1 or more, seen={seen} 0 or more",
    )
    D, predicted = spec.width, tokens if predictions is None else predictions
    total = Flops(logits=2 * predicted * D * spec.vocab)
    for layer, count in Counter(spec.layers).items():
        mixing = _mixer(layer.mixer, D, tokens, seen)
        total += (mixing + _feed_forward(layer.feed_forward, D, tokens)).times(count)
    return total


def training_flops(spec: ModelSpec, *, tokens: int) -> float:
    """Return the operations of one training step for each token, in sequences of `tokens`.

    Without recomputation: three times the forward pass, also for the scan, whose kernels recompute
    some states and so do somewhat more.
    """
    return TRAINING_PASSES * forward_flops(spec, tokens=tokens).total / tokens


def visible_pairs(*, tokens: int, seen: int = 0, window: int | None = None) -> int:
    """Return the (query, key) pairs of `tokens` new queries: half a square, cut by the window.

    The i-th token of a sequence sees i keys, its own included, or the window if that is less.
    """
    first, last = seen + 1, seen + tokens
    if window is None or last <= window:
        return (first + last) * tokens // 2
    rising = max(window - seen, 0)  # queries whose window is not yet cut
    return (first + window) * rising // 2 + window * (tokens - rising)


def _mixer(mixer: Mixer, D: int, T: int, seen: int) -> Flops:
    match mixer:
        case Attention(heads=H, kv_heads=K, window=window):
            P = D // H
            pairs = visible_pairs(tokens=T, seen=seen, window=window)
            return Flops(
                attention_projections=2 * T * (2 * D * H * P + 2 * D * K * P),
                attention_pairs=2 * 2 * pairs * H * P,
            )
        case Mamba(d_state=N, d_conv=W, expand=expand):
            E, R = expand * D, mixer.rank(D)
            return Flops(
                mamba_projections=2 * T * (3 * D * E + E * (R + 2 * N) + R * E),
                conv=0 if W is None else 2 * T * E * W,
                scan=T * E * (SCAN_PER_STATE * N + SCAN_PER_CHANNEL),
            )
        case Mamba2(d_state=N, d_conv=W):
            E, convolved, heads = mixer.projected(D)
            return Flops(
                mamba_projections=2 * T * D * (E + convolved + heads + E),
                conv=0 if W is None else 2 * T * convolved * W,
                scan=T * (E * (SSD_PER_STATE * N + SCAN_PER_CHANNEL) + SSD_PER_HEAD * heads),
            )
        case _:
            assert_never(mixer)


def _feed_forward(feed_forward: FeedForward | None, D: int, T: int) -> Flops:
    match feed_forward:
        case None:
            return Flops()
        case MLP(hidden=F):
            return Flops(mlp=2 * T * 3 * D * F)
        case MoE(hidden=F, n_experts=X, top_k=top_k):
            return Flops(router=2 * T * D * X, experts=2 * T * top_k * 3 * D * F)
        case _:
            assert_never(feed_forward)
