"""Tiny tasks with a known answer: a model that lacks the layer under test cannot solve them.

    task = TASKS["recall"]
    ids_BT, targets_BT = task.draw(seed=0, step=0, batch=8, length=32, vocab=16)
    accuracy(task.answer(ids_BT), targets_BT) == 1.0

`draw` is a pure function of its arguments; targets are UNSCORED where nothing can be known.
`answer` sees the ids alone and is always right; `chance(vocab)` is the best accuracy that a model
can expect without looking at any token before the present one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

UNSCORED = -100  # what torch.nn.functional.cross_entropy ignores by default


@dataclass(frozen=True, kw_only=True)
class Task:
    draw: Callable[..., tuple[Tensor, Tensor]]  # keywords seed, step, batch, length, vocab
    answer: Callable[[Tensor], Tensor]
    chance: Callable[[int], float]


def accuracy(predicted_BT: Tensor, targets_BT: Tensor) -> float:
    """The share of the scored positions where the prediction is the target."""
    scored_BT = targets_BT != UNSCORED
    return float((predicted_BT == targets_BT)[scored_BT].double().mean())


def draw_recall(
    *, seed: int, step: int, batch: int, length: int, vocab: int
) -> tuple[Tensor, Tensor]:
    """Associative recall (Ba et al. 2016, arXiv:1610.06258): needs a mixer.

    A table of distinct keys, each followed by a random value, fills up to half of the sequence;
    then keys of the table come again, and the token after each is its value. Keys are the lower
    half of the vocabulary, values the upper; scored is what follows a key that came before.
    """
    _require(length >= 4, "recall", "length must be at least 4 (a pair and a query)", length)
    _require(vocab >= 4, "recall", "vocab must be at least 4 (two keys and two values)", vocab)
    rng = np.random.default_rng([seed, step])
    n_keys = vocab // 2
    n_pairs = min(length // 4, n_keys)
    n_queries = length // 2 + 1 - n_pairs  # so that the last token, too, has a target
    keys_BI = rng.permuted(np.tile(np.arange(n_keys), (batch, 1)), axis=1)[:, :n_pairs]
    values_BI = rng.integers(n_keys, vocab, size=(batch, n_pairs))
    table_BI = np.tile(np.arange(n_pairs), (batch, 1))
    order_BI = np.concatenate([table_BI, rng.integers(n_pairs, size=(batch, n_queries))], axis=1)
    pairs_BI2 = np.stack([keys_BI, values_BI], axis=2)[np.arange(batch)[:, None], order_BI]
    ids_BT = pairs_BI2.reshape(batch, -1)[:, : length + 1]
    targets_BT = np.full((batch, length), UNSCORED)
    targets_BT[:, 2 * n_pairs :: 2] = ids_BT[:, 2 * n_pairs + 1 :: 2]
    return torch.from_numpy(ids_BT[:, :length].copy()), torch.from_numpy(targets_BT)


def answer_recall(ids_BT: Tensor) -> Tensor:
    """The token that followed the first time that the present token came."""
    same_BTS = ids_BT[:, :, None] == ids_BT[:, None, :]
    first_BT = same_BTS.int().argmax(dim=2)  # argmax of equals is the first of them
    follower_BT = (first_BT + 1).clamp(max=ids_BT.shape[1] - 1)
    return ids_BT.gather(1, follower_BT)


def draw_xor(*, seed: int, step: int, batch: int, length: int, vocab: int) -> tuple[Tensor, Tensor]:
    """Bitwise exclusive or of each token with the one before it: needs a mixer and a feed-forward.

    A sum of one function of each token cannot write it (Minsky and Papert 1969), so that attention
    without a feed-forward has only the products inside its scores: it learns late and in part.
    A Mamba mixer multiplies by its own gate and may manage alone.
    """
    _require(length >= 2, "xor", "length must be at least 2", length)
    power_of_two = vocab >= 2 and vocab & (vocab - 1) == 0
    _require(power_of_two, "xor", "vocab must be a power of two (2, 4, 8, ...)", vocab)
    rng = np.random.default_rng([seed, step])
    ids_BT = torch.from_numpy(rng.integers(vocab, size=(batch, length)))
    targets_BT = answer_xor(ids_BT)
    targets_BT[:, 0] = UNSCORED
    return ids_BT, targets_BT


def answer_xor(ids_BT: Tensor) -> Tensor:
    """The first position has no token before it; what is answered there is not scored."""
    return ids_BT ^ ids_BT.roll(1, dims=1)


def _require(satisfied: bool, task: str, rule: str, given: int) -> None:
    if not satisfied:
        raise ValueError(f"{task}: {rule}, got {given}")


TASKS = {
    "recall": Task(
        draw=draw_recall,
        answer=answer_recall,
        chance=lambda vocab: 1 / (vocab - vocab // 2),  # values are drawn uniformly
    ),
    "xor": Task(
        draw=draw_xor,
        answer=answer_xor,
        chance=lambda vocab: 1 / vocab,  # the token before is uniform, so its xor is too
    ),
}
