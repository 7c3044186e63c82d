"""Phonebook (Jelassi et al., arXiv 2402.01032, section 3.2): names with numbers, then names again.

    name number | name number | ... | name number        the last `queries` are looked up

Token 0 ends an entry, the lower half of the vocabulary spells names, the upper half numbers. As
many entries as fit are in the book, and what is left over is 0 before them. Every token of a number
that is looked up is scored; those before it in the same number are shown.
"""

import numpy as np
from numpy.random import Generator

from sweeps.trial.data.synthetic.kind import UNSCORED, Arrays, Kind, distinct, require
from sweeps.trial.data.tasks import Phonebook

END = 0


def entries(task: Phonebook, length: int) -> int:
    """Return how many entries the book of a sequence has."""
    return (length + 2) // _entry_tokens(task) - task.queries


def _entry_tokens(task: Phonebook) -> int:
    return task.name_tokens + task.number_tokens + 1


def draw(task: Phonebook, rng: Generator, batch: int, length: int, vocab: int) -> Arrays:
    each, queries, n = _entry_tokens(task), task.queries, entries(task, length)
    letters = vocab // 2 - 1
    least = 2 * queries * each - 2
    require(n >= queries, task, f"length must be at least {least} (a book and its queries)", length)
    require(vocab >= 4, task, "vocab must be at least 4 (an end, a letter, two digits)", vocab)
    rule = f"vocab must spell {n} names of {task.name_tokens} tokens with vocab // 2 - 1 letters"
    require(letters**task.name_tokens >= n, task, rule, vocab)
    names_BI = distinct(rng, batch, n, letters**task.name_tokens)
    powers_N = letters ** np.arange(task.name_tokens)
    spelled_BIN = END + 1 + names_BI[:, :, None] // powers_N % letters
    numbers_BID = rng.integers(vocab // 2, vocab, size=(batch, n, task.number_tokens))
    ends_BI1 = np.full((batch, n, 1), END)
    book_BIE = np.concatenate([spelled_BIN, numbers_BID, ends_BI1], axis=2)
    asked_BI = distinct(rng, batch, queries, n)
    asked_BIE = np.take_along_axis(book_BIE, asked_BI[:, :, None], axis=1)
    stream_BT = np.concatenate([book_BIE, asked_BIE], axis=1).reshape(batch, -1)[:, :-1]
    left_over = length + 1 - stream_BT.shape[1]
    ids_BT = np.pad(stream_BT, ((0, 0), (left_over, 0)), constant_values=END)
    targets_BT = np.full((batch, length), UNSCORED)
    for query in range(queries):
        at = left_over + (n + query) * each + task.name_tokens  # of the number's first token
        number = slice(at, at + task.number_tokens)
        targets_BT[:, at - 1 : number.stop - 1] = ids_BT[:, number]
    return ids_BT[:, :length], targets_BT


def answer(task: Phonebook, ids_BT: np.ndarray) -> np.ndarray:
    """What came after the same name and as much of its number, when it first stood in an entry."""
    predicted_BT = np.zeros_like(ids_BT)
    for ids_T, predicted_T in zip(ids_BT, predicted_BT, strict=True):
        seen: dict[tuple[int, ...], int] = {}
        entry: tuple[int, ...] = ()
        for at, token in enumerate(ids_T.tolist()):
            entry = () if token == END else (*entry, token)
            if len(entry) >= task.name_tokens:
                start = seen.setdefault(entry[: task.name_tokens], at)
                place = start + len(entry) - task.name_tokens + 1
                predicted_T[at] = ids_T[place] if place < len(ids_T) else END
    return predicted_BT


def present(task: Phonebook, seen_T: np.ndarray, vocab: int) -> np.ndarray:
    """Return the tokens at the same place of the numbers in all entries before the present one."""
    each, (ends,) = _entry_tokens(task), np.nonzero(seen_T == END)
    start = ends[-1] + 1  # of the present entry; a book and an END come before it
    left_over = start % each
    return seen_T[left_over:start].reshape(-1, each)[:, len(seen_T) - start]


KIND = Kind(
    draw=draw,
    answer=answer,
    chance=lambda task, vocab: 1 / (vocab - vocab // 2),
    present=present,
)
