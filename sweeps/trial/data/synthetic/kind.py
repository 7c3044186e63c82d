"""What every kind of task gives, and what their draws share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from torch import Tensor

from hybrid.ops.reference import IGNORED

UNSCORED = IGNORED  # a target that the loss leaves out
FREE = ""  # the score of the most likely token of the whole vocabulary

Arrays = tuple[np.ndarray, np.ndarray]  # ids_BT, targets_BT; int64


def most_likely(task: Any, ids_BT: Tensor, targets_BT: Tensor, logits_nV: Tensor) -> dict:
    """Return whether the most likely token of all is the target, at each scored position."""
    return {FREE: logits_nV.argmax(dim=-1) == targets_BT[targets_BT != UNSCORED]}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one kind of task is drawn, answered and scored; the first argument is the task's spec.

    Every sequence of a draw has the same number of scored positions, so that the mean over parts of
    a batch is the mean over the batch. `answer` sees the ids alone and is right wherever a position
    is scored. `chance` is the best accuracy that a model can expect without looking at any token
    before the present one. `scores` gives shares at the scored positions, row by row.

    `present` is for the floor: from a row up to and including a scored position it returns the
    values that a guess picks from, one entry for each place. It uses the layout of the task and
    elimination, never a match of a key. None is a task whose answer is not among the tokens read.

    `noisy` is a task that the prompt does not decide: `answer` is then the best guess.
    """

    draw: Callable[[Any, Generator, int, int, int], Arrays]  # task, rng, batch, length, vocab
    answer: Callable[[Any, np.ndarray], np.ndarray]
    chance: Callable[[Any, int], float]  # task, vocab
    present: Callable[[Any, np.ndarray, int], np.ndarray] | None  # task, seen_T, vocab
    scores: Callable[[Any, Tensor, Tensor, Tensor], Mapping[str, Tensor]] = most_likely
    noisy: bool = False


def require(satisfied: bool, task: object, rule: str, given: int) -> None:
    """Raise ValueError unless `satisfied`."""
    if not satisfied:
        raise ValueError(f"{task}: {rule}, got {given}")


def distinct(rng: Generator, batch: int, count: int, n: int) -> np.ndarray:
    """Return (batch, count) numbers below `n`, those of a row distinct and in random order.

    Floyd's algorithm (Bentley and Floyd 1987), so that time does not grow with `n`.
    """
    chosen_BC = np.full((batch, count), -1)
    for i, top in enumerate(range(n - count, n)):
        pick_B = rng.integers(top + 1, size=batch)
        taken_B = (chosen_BC[:, :i] == pick_B[:, None]).any(axis=1)
        chosen_BC[:, i] = np.where(taken_B, top, pick_B)
    return rng.permuted(chosen_BC, axis=1)


def other_than(avoid_BI: np.ndarray, below_BT: np.ndarray) -> np.ndarray:
    """Return uniform numbers below n that are not in `avoid_BI`, given ones below n - I.

    Each number moves up by as many as are avoided at or before its place among those that are not.
    """
    free_BI = np.sort(avoid_BI, axis=1) - np.arange(avoid_BI.shape[1])
    return below_BT + (below_BT[:, :, None] >= free_BI[:, None, :]).sum(axis=2)


def interleaved(left_BC: np.ndarray, right_BC: np.ndarray) -> np.ndarray:
    """Return rows of left, right, left, right, ..."""
    return np.stack([left_BC, right_BC], axis=2).reshape(len(left_BC), -1)


def follower_of_first(task: Any, ids_BT: np.ndarray) -> np.ndarray:
    """Return what followed the first time that the present token came: looks a key up."""
    same_BTS = ids_BT[:, :, None] == ids_BT[:, None, :]
    first_BT = same_BTS.argmax(axis=2)  # argmax of equals is the first of them
    follower_BT = np.minimum(first_BT + 1, ids_BT.shape[1] - 1)
    return np.take_along_axis(ids_BT, follower_BT, axis=1)
