"""Induction (Mamba, arXiv 2312.00752, section 4.1.2): the special token comes once, at any place,
and once more at the end: what followed it is due. The published vocabulary is 16 and the length
256; longer sequences are for extrapolation.
"""

import numpy as np
from numpy.random import Generator

from sweeps.trial.data.synthetic.kind import UNSCORED, Arrays, Kind, follower_of_first, require
from sweeps.trial.data.tasks import Induction

SPECIAL = 0


def draw(task: Induction, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    require(length >= 3, task, "length must be at least 3", length)
    require(vocab >= 3, task, "vocab must be at least 3 (the special token and two others)", vocab)
    ids_BT = rng.integers(SPECIAL + 1, vocab, size=(batch, length))
    places_B1 = rng.integers(length - 2, size=(batch, 1))
    targets_BT = np.full((batch, length), UNSCORED)
    targets_BT[:, -1:] = np.take_along_axis(ids_BT, places_B1 + 1, axis=1)
    np.put_along_axis(ids_BT, places_B1, SPECIAL, axis=1)
    ids_BT[:, -1] = SPECIAL
    return ids_BT, targets_BT


KIND = Kind(
    draw=draw,
    answer=follower_of_first,
    chance=lambda task, vocab: 1 / (vocab - 1),
    present=lambda task, seen_T, vocab: seen_T[seen_T != SPECIAL],
)
