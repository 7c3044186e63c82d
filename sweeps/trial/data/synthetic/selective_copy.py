"""Selective copying (Mamba, arXiv 2312.00752, section 4.1.1): symbols at random places in noise,
then marks, at each of which the next symbol is due.

Token 0 is noise, 1 the mark, all others are symbols. What is due is not shown: the model counts.
"""

import numpy as np
from numpy.random import Generator

from sweeps.trial.data.synthetic.kind import UNSCORED, Arrays, Kind, distinct, require
from sweeps.trial.data.tasks import SelectiveCopy

NOISE, MARK, FIRST_SYMBOL = 0, 1, 2


def draw(task: SelectiveCopy, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    n = task.symbols
    require(length >= 2 * n, task, f"length must be at least {2 * n}", length)
    require(vocab >= 4, task, "vocab must be at least 4 (noise, mark, two symbols)", vocab)
    symbols_BI = rng.integers(FIRST_SYMBOL, vocab, size=(batch, n))
    places_BI = np.sort(distinct(rng, batch, n, length - n), axis=1)
    ids_BT = np.full((batch, length), NOISE)
    ids_BT[:, length - n :] = MARK
    np.put_along_axis(ids_BT, places_BI, symbols_BI, axis=1)
    targets_BT = np.full((batch, length), UNSCORED)
    targets_BT[:, length - n :] = symbols_BI
    return ids_BT, targets_BT


def answer(task: SelectiveCopy, ids_BT: np.ndarray) -> np.ndarray:
    """The symbol whose number is that of the marks so far."""
    symbols_first_BT = np.argsort(ids_BT < FIRST_SYMBOL, axis=1, kind="stable")
    marks_BT = np.cumsum(ids_BT == MARK, axis=1)
    place_BT = np.take_along_axis(symbols_first_BT, np.maximum(marks_BT - 1, 0), axis=1)
    return np.take_along_axis(ids_BT, place_BT, axis=1)


KIND = Kind(
    draw=draw,
    answer=answer,
    chance=lambda task, vocab: 1 / (vocab - FIRST_SYMBOL),
    present=lambda task, seen_T, vocab: seen_T[seen_T >= FIRST_SYMBOL],
)
