"""Needles in a haystack: keys, each followed by its value, in filler; at the end the keys again.

The lower half of the vocabulary is filler, the next quarter keys, the last quarter values. All
needles stand at even distances, so that none is inside another. Values are shown after each asked
key but the last, as in a text.
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
    require,
)
from sweeps.trial.data.tasks import Needle


def draw(task: Needle, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    n, quarter = task.needles, vocab // 4
    asked = length - (2 * n - 1)  # where the first key is asked for
    require(asked >= 2 * n, task, f"length must be at least {4 * n - 1}", length)
    require(quarter >= max(n, 2), task, f"vocab must be at least {4 * max(n, 2)}", vocab)
    keys_BI = 2 * quarter + distinct(rng, batch, n, quarter)
    values_BI = rng.integers(3 * quarter, 4 * quarter, size=(batch, n))
    places_BI = asked % 2 + 2 * _slots(task, rng, batch, asked // 2)
    ids_BT = rng.integers(2 * quarter, size=(batch, length + 1))
    np.put_along_axis(ids_BT, places_BI, keys_BI, axis=1)
    np.put_along_axis(ids_BT, places_BI + 1, values_BI, axis=1)
    ids_BT[:, asked:] = interleaved(keys_BI, values_BI)
    scored = 1 if task.depth is not None else n
    targets_BT = np.full((batch, length), UNSCORED)
    targets_BT[:, asked::2][:, :scored] = values_BI[:, :scored]
    return ids_BT[:, :length], targets_BT


def _slots(task: Needle, rng: Generator, batch: int, n: int) -> np.ndarray:
    """Return distinct slots below `n`, one for each needle; the first one's is at the depth."""
    if task.depth is None:
        return distinct(rng, batch, task.needles, n)
    first = round(task.depth * (n - 1))
    others_BI = distinct(rng, batch, task.needles - 1, n - 1)
    others_BI += others_BI >= first
    return np.concatenate([np.full((batch, 1), first), others_BI], axis=1)


def present(task: Needle, seen_T: np.ndarray, vocab: int) -> np.ndarray:
    """Return the values in the haystack, less those that were shown behind their keys at the end.

    One needle leaves one value: its floor is 1.
    """
    values = seen_T[seen_T >= 3 * (vocab // 4)].tolist()
    left, shown = values[: task.needles], values[task.needles :]
    for value in shown:
        left.remove(value)
    return np.array(left)


KIND = Kind(
    draw=draw,
    answer=follower_of_first,
    chance=lambda task, vocab: 1 / (vocab // 4),
    present=present,
)
