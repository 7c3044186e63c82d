"""Few-shot labels: item label item label ... item, where the prompt decides how a class is called.

The first `classes * synonyms` tokens are labels, `synonyms` in a row for each class; every other
token is an item, its class the remainder of its number. For each prompt one synonym of each class
is legal. Items come in rounds of one of each class, so that after the first round all legal labels
have been seen; scored is the label of every item after that.

Three scores. `free`: the most likely of all tokens is the label. `forced`: the most likely of the
legal labels is; knowing the class is enough. `legal mass`: the probability of all legal labels
together, which is knowing the format, right or wrong.
"""

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from sweeps.trial.data.synthetic.kind import UNSCORED, Arrays, Kind, interleaved, require
from sweeps.trial.data.tasks import FewShot

SCORES = FREE, FORCED, LEGAL_MASS = ("free", "forced", "legal mass")


def draw(task: FewShot, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    classes, synonyms, labels = task.classes, task.synonyms, task.classes * task.synonyms
    n_items = (vocab - labels) // classes  # of each class
    least = 2 * classes + 1
    require(length >= least, task, f"length must be at least {least}", length)
    require(n_items >= 1, task, f"vocab must be at least {labels + classes}", vocab)
    rounds = -(-(length + 1) // (2 * classes))
    order_BRC = rng.permuted(np.tile(np.arange(classes), (batch, rounds, 1)), axis=2)
    class_BI = order_BRC.reshape(batch, -1)
    items_BI = labels + class_BI + classes * rng.integers(n_items, size=class_BI.shape)
    legal_BC = synonyms * np.arange(classes) + rng.integers(synonyms, size=(batch, classes))
    ids_BT = interleaved(items_BI, np.take_along_axis(legal_BC, class_BI, axis=1))
    targets_BT = np.full((batch, length), UNSCORED)
    targets_BT[:, 2 * classes :: 2] = ids_BT[:, 2 * classes + 1 : length + 1 : 2]
    return ids_BT[:, :length], targets_BT


def answer(task: FewShot, ids_BT: np.ndarray) -> np.ndarray:
    """The label that the first item of the present item's class had."""
    labels = task.classes * task.synonyms
    is_label_BT = ids_BT < labels
    class_BT = np.where(is_label_BT, ids_BT // task.synonyms, (ids_BT - labels) % task.classes)
    same_BTS = (class_BT[:, :, None] == class_BT[:, None, :]) & is_label_BT[:, None, :]
    return np.take_along_axis(ids_BT, same_BTS.argmax(axis=2), axis=1)


def scores(
    task: FewShot, ids_BT: Tensor, targets_BT: Tensor, logits_nV: Tensor
) -> dict[str, Tensor]:
    scored_BT = targets_BT != UNSCORED
    target_n = targets_BT[scored_BT]
    legal_nC = ids_BT[:, 1 : 2 * task.classes : 2][scored_BT.nonzero()[:, 0]]
    forced_n = logits_nV.gather(1, legal_nC).argmax(dim=1, keepdim=True)
    return {
        FREE: logits_nV.argmax(dim=1) == target_n,
        FORCED: legal_nC.gather(1, forced_n)[:, 0] == target_n,
        LEGAL_MASS: torch.softmax(logits_nV, dim=1).gather(1, legal_nC).sum(dim=1),
    }


KIND = Kind(
    draw=draw,
    answer=answer,
    chance=lambda task, vocab: 1 / task.synonyms,
    present=lambda task, seen_T, vocab: seen_T[1 : 2 * task.classes : 2],
    scores=scores,
)
