"""Multi-query associative recall, as in the code of Zoology (arXiv 2312.04927, appendix E).

A table of distinct keys (lower half of the vocabulary) and distinct values (upper half) comes
first. Then each key comes once more, most of them soon after the table, at places drawn by a power
law; every other place holds a random token, by default of the whole vocabulary and so perhaps a
key. Scored is what follows a key's second coming; its value is not shown there.
"""

import numpy as np
from numpy.random import Generator

from sweeps.trial.data.synthetic.kind import (
    UNSCORED,
    Arrays,
    Kind,
    distinct,
    follower_of_first,
    interleaved,
    other_than,
    require,
)
from sweeps.trial.data.tasks import Filler, Mqar

POWER = 0.01  # Zoology's power_a: the chance of place i goes as i^(POWER - 1)


def draw(task: Mqar, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    pairs, n_keys = task.pairs, vocab // 2
    require(length >= 4 * pairs, task, f"length must be at least {4 * pairs}", length)
    require(n_keys > pairs, task, f"vocab must be at least {2 * pairs + 2}", vocab)
    keys_BI = 1 + distinct(rng, batch, pairs, n_keys - 1)  # Zoology never draws key 0
    values_BI = n_keys + distinct(rng, batch, pairs, vocab - n_keys)
    queries_BI = 2 * pairs + 2 * _places(rng, batch, pairs, length // 2 - pairs)
    if task.filler is Filler.ANY:
        ids_BT = rng.integers(vocab, size=(batch, length))
    else:
        ids_BT = other_than(keys_BI, rng.integers(vocab - pairs, size=(batch, length)))
    ids_BT[:, : 2 * pairs] = interleaved(keys_BI, values_BI)
    targets_BT = np.full((batch, length), UNSCORED)
    np.put_along_axis(ids_BT, queries_BI, keys_BI, axis=1)
    np.put_along_axis(targets_BT, queries_BI, values_BI, axis=1)
    return ids_BT, targets_BT


def _places(rng: Generator, batch: int, count: int, n: int) -> np.ndarray:
    """Return `count` distinct places below `n` for each row, drawn by the power law.

    The largest of log-weights plus Gumbel noise are such a draw (Vieira 2014).
    """
    weights_n = (POWER - 1) * np.log(np.arange(1, n + 1))
    return np.argsort(-(weights_n + rng.gumbel(size=(batch, n))), axis=1)[:, :count]


KIND = Kind(
    draw=draw,
    answer=follower_of_first,
    chance=lambda task, vocab: 1 / (vocab - vocab // 2),  # each value is uniform
    present=lambda task, seen_T, vocab: seen_T[1 : 2 * task.pairs : 2],
)
