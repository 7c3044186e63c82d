"""A source of text that does harm when it is read: for what a trial's process may die of.

Importing this module makes it known, in a trial's process too, which imports it to read its job.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from sweeps.trial import material
from sweeps.trial.data import streams
from sweeps.trial.data.documents import Document

PIECE_BYTES = 16 << 20
MOST_PIECES = 256


@dataclass(frozen=True, kw_only=True)
class Harm:
    fault: str


def allocate() -> None:
    held = []
    while len(held) < MOST_PIECES:  # however a test may fail, it does not take the machine
        print(f"holding {len(held)} pieces")
        held.append(b"x" * PIECE_BYTES)
        time.sleep(0.01)


def hang() -> None:
    print("about to hang")
    time.sleep(600)


def crash() -> None:
    print("about to read address 0")
    ctypes.string_at(0)


def refuse() -> None:
    raise ValueError("never any good")


FAULTS: dict[str, Callable[[], None]] = {
    "allocate": allocate,
    "hang": hang,
    "crash": crash,
    "refuse": refuse,
}


def read(source: Harm) -> Iterator[Document]:
    FAULTS[source.fault]()
    yield from ()


streams.READERS[Harm] = read
streams.IDENTITIES[Harm] = asdict
material.OPENERS[Harm] = material.open_text
