"""Recall and xor: what a layer of each kind must be able to learn, as small as can be.

Recall (associative recall, Ba et al. 2016, arXiv 1610.06258): a table of distinct keys, each
followed by a random value, fills up to half of the sequence; then keys of the table come again, and
the token after each is its value. Keys are the lower half of the vocabulary, values the upper;
scored is what follows a key that came before.

Xor: bitwise exclusive or of each token with the one before it. A sum of one function of each token
cannot write it (Minsky and Papert 1969), so that attention without a feed-forward has only the
products inside its scores: it learns late and in part. A Mamba mixer multiplies by its own gate and
may manage alone.
"""

import numpy as np
from numpy.random import Generator

from sweeps.trial.data.synthetic.kind import UNSCORED, Arrays, Kind, follower_of_first, require
from sweeps.trial.data.tasks import Recall, Xor


def draw_recall(task: Recall, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    require(length >= 4, task, "length must be at least 4 (a pair and a query)", length)
    require(vocab >= 4, task, "vocab must be at least 4 (two keys and two values)", vocab)
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
    return ids_BT[:, :length], targets_BT


def draw_xor(task: Xor, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    require(length >= 2, task, "length must be at least 2", length)
    power_of_two = vocab >= 2 and vocab & (vocab - 1) == 0
    require(power_of_two, task, "vocab must be a power of two (2, 4, 8, ...)", vocab)
    ids_BT = rng.integers(vocab, size=(batch, length))
    targets_BT = answer_xor(task, ids_BT)
    targets_BT[:, 0] = UNSCORED
    return ids_BT, targets_BT


def answer_xor(task: Xor, ids_BT: np.ndarray) -> np.ndarray:
    """The first position has no token before it; what is answered there is not scored."""
    return ids_BT ^ np.roll(ids_BT, 1, axis=1)


RECALL = Kind(
    draw=draw_recall,
    answer=follower_of_first,
    chance=lambda task, vocab: 1 / (vocab - vocab // 2),  # values are drawn uniformly
    present=lambda task, seen_T, vocab: seen_T[seen_T >= vocab // 2],
)
XOR = Kind(
    draw=draw_xor,
    answer=answer_xor,
    chance=lambda task, vocab: 1 / vocab,  # the token before is uniform, so its xor is too
    present=None,
)
