"""Tasks with a known answer: a model that lacks the layer under test cannot solve them.

    ids_BT, targets_BT = draw(
        Mqar(pairs=8), seed=0, step=0, split=Split.TRAIN, batch=8, length=128, vocab=256
    )
    accuracy(answer(Mqar(pairs=8), ids_BT), targets_BT) == 1.0

What is asked is in `../tasks.py`, as plain data; here is one file for each kind of task. A new one
is a spec there, a file here, and a line in KINDS.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sweeps.trial.data.documents import Split
from sweeps.trial.data.synthetic import (
    cycle,
    few_shot,
    induction,
    mqar,
    needle,
    phonebook,
    selective_copy,
    toys,
)
from sweeps.trial.data.synthetic.kind import UNSCORED, Kind
from sweeps.trial.data.tasks import (
    Cycle,
    FewShot,
    Induction,
    Mqar,
    Needle,
    Phonebook,
    Probe,
    Recall,
    SelectiveCopy,
    Task,
    Xor,
)

KINDS: dict[type, Kind] = {
    Recall: toys.RECALL,
    Xor: toys.XOR,
    Mqar: mqar.KIND,
    SelectiveCopy: selective_copy.KIND,
    Induction: induction.KIND,
    Cycle: cycle.KIND,
    Needle: needle.KIND,
    Phonebook: phonebook.KIND,
    FewShot: few_shot.KIND,
}

HELD_OUT_SEED = 0
STREAMS = {Split.TRAIN: 0, Split.VALID: 1, Split.TEST: 2}  # first word of a draw's seed


def draw(
    task: Task, *, seed: int, step: int, split: Split, batch: int, length: int, vocab: int
) -> tuple[Tensor, Tensor]:
    """Return (ids_BT, targets_BT), a function of the arguments; targets that nothing tells are
    UNSCORED. Raises ValueError where length or vocab is too small for the task.
    """
    rng = np.random.default_rng([STREAMS[split], seed, step])
    ids_BT, targets_BT = KINDS[type(task)].draw(task, rng, batch, length, vocab)
    return torch.from_numpy(np.ascontiguousarray(ids_BT)), torch.from_numpy(targets_BT)


def held_out(
    probe: Probe, *, split: Split, vocab: int, batch: int, limit_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield draws of a split, the same for every caller: at most `limit_tokens` tokens in all, but
    at least one sequence. The last batch may be smaller than `batch`.
    """
    rows = max(1, limit_tokens // probe.length)
    for step, first in enumerate(range(0, rows, batch)):
        yield draw(
            probe.task,
            seed=HELD_OUT_SEED,
            step=step,
            split=split,
            batch=min(batch, rows - first),
            length=probe.length,
            vocab=vocab,
        )


def answer(task: Task, ids_BT: Tensor) -> Tensor:
    """Return the right answer at every scored position, from the ids alone."""
    return torch.from_numpy(KINDS[type(task)].answer(task, ids_BT.numpy()))


def chance(task: Task, vocab: int) -> float:
    """Return the best accuracy to expect of a model that sees the present token alone."""
    return KINDS[type(task)].chance(task, vocab)


def scores(
    probe: Probe, ids_BT: Tensor, targets_BT: Tensor, logits_nV: Tensor
) -> dict[str, Tensor]:
    """Return what the logits at the scored positions, row by row, are worth, by key of a record."""
    found = KINDS[type(probe.task)].scores(probe.task, ids_BT, targets_BT, logits_nV)
    return {f"{probe.name} {name}".rstrip(): x for name, x in found.items()}


def accuracy(predicted_BT: Tensor, targets_BT: Tensor) -> float:
    """The share of the scored positions where the prediction is the target."""
    scored_BT = targets_BT != UNSCORED
    return float((predicted_BT == targets_BT)[scored_BT].double().mean())
