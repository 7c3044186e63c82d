"""Long lines that training text shares with held-out text: their share, and their removal.

A line counts from MIN_CHARACTERS on, without the blanks at its ends. Shorter lines (`return x`) are
shared by all code and tell nothing.

The lines are removed from train. Held-out text stays as its authors wrote it, so that bits per byte
of it are those of real text, and stay comparable when the training text changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sweeps.trial.data.documents import Document, Split

MIN_CHARACTERS = 50

Splits = Mapping[Split, Sequence[Document]]


def without_shared_lines(splits: Splits) -> dict[Split, list[Document]]:
    """Return the splits, train without the long lines that stand in valid or test.

    A document of which nothing is left is dropped.
    """
    held_out = _long_lines([*splits[Split.VALID], *splits[Split.TEST]])
    stripped = ((document, _without(document.text, held_out)) for document in splits[Split.TRAIN])
    train = [replace(document, text=text) for document, text in stripped if text]
    return {**{split: list(members) for split, members in splits.items()}, Split.TRAIN: train}


def shared_share(splits: Splits, split: Split) -> dict[str, float]:
    """Return, for each domain, the share of the long lines of `split` that stand in train too.

    A domain without a long line in `split` has none to share and gets 0.
    """
    train = _long_lines(splits[Split.TRAIN])
    total: dict[str, int] = {}
    shared: dict[str, int] = {}
    for document in splits[split]:
        lines = list(_each_long_line(document.text))
        total[document.domain] = total.get(document.domain, 0) + len(lines)
        shared[document.domain] = shared.get(document.domain, 0) + sum(x in train for x in lines)
    return {domain: shared[domain] / max(n, 1) for domain, n in total.items()}


def _without(text: str, lines: set[str]) -> str:
    kept = [line for line in text.split("\n") if line.strip() not in lines]
    return "\n".join(kept).strip("\n")


def _long_lines(documents: Iterable[Document]) -> set[str]:
    return {line for document in documents for line in _each_long_line(document.text)}


def _each_long_line(text: str) -> Iterable[str]:
    return (line for x in text.split("\n") if len(line := x.strip()) >= MIN_CHARACTERS)
