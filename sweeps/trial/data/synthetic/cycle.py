"""Cycle: distinct random tokens come again and again, in a period that differs between sequences.

After the sequences that induction heads are known by (Olsson et al., arXiv 2209.11895), which come
twice. A period is drawn for each sequence, from half of the longest on, so that no fixed distance
finds the answer: the present token has to be found where it came before. Scored is what comes once
the longest period is over.
"""

import numpy as np
from numpy.random import Generator

from sweeps.trial.data.synthetic.kind import (
    UNSCORED,
    Arrays,
    Kind,
    distinct,
    follower_of_first,
    require,
)
from sweeps.trial.data.tasks import Cycle


def draw(task: Cycle, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    longest = task.longest
    require(length > longest, task, f"length must be at least {longest + 1}", length)
    require(vocab >= longest, task, f"vocab must be at least {longest}", vocab)
    periods_B1 = rng.integers(max(2, longest // 2), longest + 1, size=(batch, 1))
    tokens_BI = distinct(rng, batch, longest, vocab)
    ids_BT = np.take_along_axis(tokens_BI, np.arange(length + 1) % periods_B1, axis=1)
    targets_BT = np.full((batch, length), UNSCORED)
    targets_BT[:, longest:] = ids_BT[:, longest + 1 :]
    return ids_BT[:, :length], targets_BT


KIND = Kind(
    draw=draw,
    answer=follower_of_first,
    chance=lambda task, vocab: 1 / (vocab - 1),  # a token never follows itself
    present=lambda task, seen_T, vocab: seen_T[seen_T != seen_T[-1]],
)
