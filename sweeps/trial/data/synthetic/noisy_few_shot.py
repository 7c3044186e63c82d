"""Few-shot labels with errors: item label item label ... item, where many shots tell more than one.

The first `labels` tokens are labels. Every other token is an item, its class the remainder of its
number. Each prompt draws a label for each class, independent of the other classes, and shows it
with errors. Items come in rounds of one of each class, so that in round r (from 0) every class has
had r shots. Scored is the right label of every item after the first round, by shots.
"""

import numpy as np
from numpy.random import Generator
from torch import Tensor

from sweeps.trial.data.synthetic.kind import UNSCORED, Arrays, Kind, interleaved, require
from sweeps.trial.data.tasks import NoisyFewShot


def draw(task: NoisyFewShot, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    classes, labels = task.classes, task.labels
    n_items = (vocab - labels) // classes  # of each class
    least = 2 * classes + 1
    require(length >= least, task, f"length must be at least {least}", length)
    require(n_items >= 1, task, f"vocab must be at least {labels + classes}", vocab)
    rounds = -(-(length + 1) // (2 * classes))
    order_BRC = rng.permuted(np.tile(np.arange(classes), (batch, rounds, 1)), axis=2)
    class_BI = order_BRC.reshape(batch, -1)
    items_BI = labels + class_BI + classes * rng.integers(n_items, size=class_BI.shape)
    label_BC = rng.integers(labels, size=(batch, classes))
    right_BI = np.take_along_axis(label_BC, class_BI, axis=1)
    wrong_BI = (right_BI + rng.integers(1, labels, size=class_BI.shape)) % labels
    is_right_BI = rng.random(class_BI.shape) < task.right
    ids_BT = interleaved(items_BI, np.where(is_right_BI, right_BI, wrong_BI))[:, :length]
    targets_BT = np.full((batch, length), UNSCORED)
    targets_BT[:, 2 * classes :: 2] = right_BI[:, classes : (length + 1) // 2]
    return ids_BT, targets_BT


def answer(task: NoisyFewShot, ids_BT: np.ndarray) -> np.ndarray:
    """Return the label that the present item's class has had most often, the first of several.

    This is the best guess: labels of classes and errors are independent, and each error is any of
    the other labels with equal chance.
    """
    B, T = ids_BT.shape
    counts_BCL = np.zeros((B, task.classes, task.labels), dtype=int)
    answer_BT, rows = np.zeros_like(ids_BT), np.arange(B)
    for at in range(0, T, 2):
        class_B = (ids_BT[:, at] - task.labels) % task.classes
        answer_BT[:, at] = counts_BCL[rows, class_B].argmax(axis=1)
        if at + 1 < T:
            counts_BCL[rows, class_B, ids_BT[:, at + 1]] += 1
    return answer_BT


def scores(
    task: NoisyFewShot, ids_BT: Tensor, targets_BT: Tensor, logits_nV: Tensor
) -> dict[str, Tensor]:
    scored_BT = targets_BT != UNSCORED
    right_n = logits_nV.argmax(dim=1) == targets_BT[scored_BT]
    shots_n = scored_BT.nonzero()[:, 1] // (2 * task.classes)
    return {f"shots {n}": right_n[shots_n == n] for n in shots_n.unique().tolist()}


KIND = Kind(
    draw=draw,
    answer=answer,
    chance=lambda task, vocab: 1 / task.labels,
    present=lambda task, seen_T, vocab: seen_T[1::2],
    scores=scores,
    noisy=True,
)
