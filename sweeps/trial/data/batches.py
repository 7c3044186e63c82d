"""Batches for training, windows for evaluation, and bits per byte.

`targets_BT` are `ids_BT` moved by one. A window may run over the end of a document: the separator
tells the model so, and its loss counts, while it stands for no byte of text.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from sweeps.trial.data.documents import Split
from sweeps.trial.data.streams import Stream, Tokens

Batch = tuple[Tensor, Tensor]  # ids_BT, targets_BT; int64


@dataclass(frozen=True, kw_only=True)
class HeldOutWindows:
    """Which held-out tokens of each domain are predicted; the fields are arguments of `held_out`.

    A model and the n-gram tables beside it take the same ones.
    """

    split: Split
    length: int
    limit_tokens: int | None


def train_batch(tokens: Tokens, *, seed: int, step: int, batch: int, length: int) -> Batch:
    """`batch` windows of `length` tokens of train: a function of (seed, step), and of nothing past.

    Each window picks its domain by `tokens.mixture`, then any start with equal chance.
    """
    rng = np.random.default_rng([seed, step])
    shares = [tokens.mixture.get(domain, 0.0) for domain in tokens.domains]
    domains = rng.choice(tokens.domains, size=batch, p=shares)
    streams = [_long_enough(tokens, Split.TRAIN, domain, length) for domain in domains]
    starts = [int(rng.integers(stream.tokens - length)) for stream in streams]
    return _windows(streams, starts, length)


def held_out(
    tokens: Tokens,
    *,
    split: Split,
    domain: str,
    length: int,
    batch: int,
    limit_tokens: int | None = None,
) -> Iterator[Batch]:
    """Windows of a split that never overlap, spread evenly over it: the same for every caller.

    At most `limit_tokens` tokens are predicted, in whole windows. None predicts every token of the
    split but the first: the windows follow each other, and the last, alone in its batch, may be
    shorter. The last batch of whole windows may be smaller than `batch`.
    """
    stream = _long_enough(tokens, split, domain, length)
    predictable = stream.tokens - 1
    limit = predictable if limit_tokens is None else min(limit_tokens, predictable)
    n_windows = limit // length
    if batch < 1 or n_windows < 1:
        raise ValueError(
            f"held_out needs batch >= 1 and limit_tokens >= length, "
            f"got batch={batch}, limit_tokens={limit_tokens}, length={length}"
        )
    # predictable / n_windows >= length, so that neighbours start at least `length` apart.
    spread = length * n_windows if limit_tokens is None else predictable
    starts = [window * spread // n_windows for window in range(n_windows)]
    left = predictable - n_windows * length if limit_tokens is None else 0
    return chain(
        (
            _windows([stream] * len(part), part, length)
            for part in (starts[first : first + batch] for first in range(0, n_windows, batch))
        ),
        (_windows([stream], [n_windows * length], left) for _ in range(left > 0)),
    )


def _long_enough(tokens: Tokens, split: Split, domain: str, length: int) -> Stream:
    stream = tokens.stream(split, domain)
    if not 1 <= length < stream.tokens:
        raise ValueError(
            f"length={length} must be at least 1 and less than the {stream.tokens} tokens of "
            f"{split} of domain {domain!r} of {tokens.source}: "
            "choose shorter windows or give more text"
        )
    return stream


def _windows(streams: list[Stream], starts: list[int], length: int) -> Batch:
    rows = [
        stream.ids[start : start + length + 1]
        for stream, start in zip(streams, starts, strict=True)
    ]
    window_BT1 = torch.from_numpy(np.stack(rows).astype(np.int64))
    return window_BT1[:, :-1].contiguous(), window_BT1[:, 1:].contiguous()


def text_bytes(tokens: Tokens, targets_BT: Tensor) -> int:
    """The bytes of text that exactly these predicted tokens stand for."""
    return int(tokens.bytes_per_token_V[targets_BT].sum())


def bits_per_byte(*, nats: float, n_bytes: int) -> float:
    """The loss of any number of tokens, summed in nats, over the bytes that they stand for."""
    if n_bytes < 1:
        raise ValueError(f"bits per byte need at least one byte of text, got n_bytes={n_bytes}")
    return nats / math.log(2) / n_bytes
