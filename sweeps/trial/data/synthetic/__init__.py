"""Tasks with a known answer: a model that lacks the layer under test cannot solve them.

    ids_BT, targets_BT = draw(
        Mqar(pairs=8), seed=0, step=0, split=Split.TRAIN, batch=8, length=128, vocab=256
    )
    accuracy(answer(Mqar(pairs=8), ids_BT), targets_BT) == 1.0

What is asked is in `../tasks.py`, as plain data; here is one file for each kind of task. A new one
is a spec there, a file here, and a line in KINDS.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

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
    noisy_few_shot,
    phonebook,
    selective_copy,
    toys,
    two_hop,
)
from sweeps.trial.data.synthetic.kind import UNSCORED, Kind
from sweeps.trial.data.tasks import (
    Cycle,
    FewShot,
    Induction,
    Mqar,
    Needle,
    NoisyFewShot,
    Phonebook,
    Probe,
    Recall,
    SelectiveCopy,
    Task,
    TwoHop,
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
    NoisyFewShot: noisy_few_shot.KIND,
    TwoHop: two_hop.KIND,
}

HELD_OUT_SEED = 0
STRATA = 16  # guesses at each scored position, for a floor
CERTAIN = 100.0  # the logit of a guess, all others being 0
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


def floor(probe: Probe, *, vocab: int, batch: int, limit_tokens: int) -> dict[str, float]:
    """Return the scores of guessing among the values that are present, by key of a record.

    They are taken on the validation draws. At each scored position STRATA guesses are spread
    evenly over the places that hold a value. A task whose answer is not among the tokens read has
    the floor of `chance`.
    """
    present = KINDS[type(probe.task)].present
    sums: dict[str, list[Tensor]] = defaultdict(list)
    rng = np.random.default_rng(HELD_OUT_SEED)
    for ids_BT, targets_BT in held_out(
        probe, split=Split.VALID, vocab=vocab, batch=batch, limit_tokens=limit_tokens
    ):
        places = (targets_BT != UNSCORED).nonzero().tolist()
        if present is None:
            keys = scores(probe, ids_BT, targets_BT, torch.zeros(len(places), vocab))
            return dict.fromkeys(keys, chance(probe.task, vocab))
        values = [present(probe.task, ids_BT[b, : t + 1].numpy(), vocab) for b, t in places]
        for guess_n in _guesses(values, rng):
            logits_nV = torch.nn.functional.one_hot(guess_n, vocab).float().mul(CERTAIN)
            for key, found_n in scores(probe, ids_BT, targets_BT, logits_nV).items():
                sums[key].append(found_n.double())
    return {key: torch.cat(found).mean().item() for key, found in sums.items()}


def _guesses(values: Sequence[np.ndarray], rng: np.random.Generator) -> Iterator[Tensor]:
    """Yield STRATA guesses, each one of `values` for every position."""
    size_n = np.array([len(each) for each in values])
    offset_n = rng.random(len(values))
    for stratum in range(STRATA):
        pick_n = ((stratum + offset_n) / STRATA * size_n).astype(int)
        yield torch.tensor([int(each[i]) for each, i in zip(values, pick_n, strict=True)])


def score_keys(probe: Probe, vocab: int) -> list[str]:
    """Return the keys that a record has of a probe."""
    draws = held_out(probe, split=Split.VALID, vocab=vocab, batch=1, limit_tokens=1)
    ids_BT, targets_BT = next(draws)
    scored = int((targets_BT != UNSCORED).sum())
    return list(scores(probe, ids_BT, targets_BT, torch.zeros(scored, vocab)))


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
