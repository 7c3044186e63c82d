"""Two look-ups: a key has a middle, the middle has a value, and the value of a key is asked for.

    key middle ... middle value ... middle value ... key middle ... key key

Token 0 is filler. Of the other tokens the first third are keys, the next middles, the last values.
The pairs stand at even places in random order, so the second pair of a chain can come before the
first. Then all keys come in random order. Scored is the value at each of them, which is not shown.

A key has one place before it is asked for. A middle has two, and a value follows one of them.
"""

import numpy as np
from numpy.random import Generator

from sweeps.trial.data.synthetic.kind import UNSCORED, Arrays, Kind, distinct, require
from sweeps.trial.data.tasks import TwoHop

FILLER = 0


def _third(vocab: int) -> int:
    return (vocab - 1) // 3


def draw(task: TwoHop, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    n, third = task.chains, _third(vocab)
    require(length >= 5 * n, task, f"length must be at least {5 * n}", length)
    require(third >= n, task, f"vocab must be at least {3 * n + 1}", vocab)
    keys_BI, middles_BI, values_BI = (
        FILLER + 1 + part * third + distinct(rng, batch, n, third) for part in range(3)
    )
    left_BJ = np.concatenate([keys_BI, middles_BI], axis=1)
    right_BJ = np.concatenate([middles_BI, values_BI], axis=1)
    places_BJ = 2 * distinct(rng, batch, 2 * n, (length - n) // 2)
    order_BI = distinct(rng, batch, n, n)
    ids_BT = np.full((batch, length), FILLER)
    np.put_along_axis(ids_BT, places_BJ, left_BJ, axis=1)
    np.put_along_axis(ids_BT, places_BJ + 1, right_BJ, axis=1)
    ids_BT[:, length - n :] = np.take_along_axis(keys_BI, order_BI, axis=1)
    targets_BT = np.full((batch, length), UNSCORED)
    targets_BT[:, length - n :] = np.take_along_axis(values_BI, order_BI, axis=1)
    return ids_BT, targets_BT


def answer(task: TwoHop, ids_BT: np.ndarray) -> np.ndarray:
    """Return the right neighbour of the right neighbour, each of the left token of a pair."""
    answer_BT = np.zeros_like(ids_BT)
    for ids_T, answer_T in zip(ids_BT, answer_BT, strict=True):
        even = ids_T[: len(ids_T) // 2 * 2].reshape(-1, 2)
        right = {left: r for left, r in reversed(even.tolist()) if left != FILLER}
        answer_T[:] = [right.get(right.get(token, FILLER), FILLER) for token in ids_T.tolist()]
    return answer_BT


def present(task: TwoHop, seen_T: np.ndarray, vocab: int) -> np.ndarray:
    return seen_T[seen_T > 2 * _third(vocab)]


KIND = Kind(
    draw=draw,
    answer=answer,
    chance=lambda task, vocab: 1 / _third(vocab),
    present=present,
)
