"""Tasks with a known answer, as plain data: what is asked, not how it is drawn (synthetic/ does).

    Probe(task=Needle(depth=0.5), length=512).name == "length 512 needles 4 depth 0.5"

A task says nothing of the length of a sequence and of the vocabulary: those are the recipe's or the
probe's, and the model's. Free of torch and numpy, since a Recipe holds these.
"""

from dataclasses import Field, dataclass, fields
from enum import StrEnum
from typing import Any

from hybrid.spec import OMIT_DEFAULT, added


def _require_at_least(task: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(task, name)
        if type(value) is not int or value < least:
            raise ValueError(
                f"{type(task).__name__}: {name}={value!r} must be a whole number of at least "
                f"{least}"
            )


class Filler(StrEnum):
    """Tokens that fill a sequence between what a task asks.

    ANY: every token of the vocabulary. OTHER: every token but the keys of the sequence, so that
    each key has one place before it is asked for.
    """

    ANY = "any"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Associative recall: the smallest task that needs a mixer."""


@dataclass(frozen=True, kw_only=True)
class Xor:
    """Bitwise exclusive or of neighbours: the smallest task that needs a feed-forward too."""


@dataclass(frozen=True, kw_only=True)
class Mqar:
    """Multi-query associative recall (Zoology, arXiv 2312.04927).

    With `filler=ANY`, the published task, a filler can be a key of the table. A model that reads
    the last place of a key then finds another answer than one that reads the first. At a vocabulary
    of 8,192 this is rare, at 32 it is one filler in four with 8 pairs.
    """

    pairs: int
    filler: Filler = added(Filler.ANY)

    def __post_init__(self) -> None:
        _require_at_least(self, 1, "pairs")
        if not isinstance(self.filler, Filler):
            known = ", ".join(map(str, Filler))
            raise ValueError(f"Mqar: filler={self.filler!r} must be one of {known}")


# (length, pairs) as Zoology has them, with a vocabulary of 8192; and as many pairs as ever fit.
MQAR_PUBLISHED = ((64, 4), (128, 8), (256, 16), (512, 64))
MQAR_HARDER = ((64, 16), (128, 32), (256, 64), (512, 128))


@dataclass(frozen=True, kw_only=True)
class SelectiveCopy:
    """`symbols` scattered in noise, to be written down in order (arXiv 2312.00752, 4.1.1)."""

    symbols: int = 16

    def __post_init__(self) -> None:
        _require_at_least(self, 1, "symbols")


@dataclass(frozen=True, kw_only=True)
class Induction:
    """What followed the one special token, when it comes again (Mamba, section 4.1.2)."""


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """Random tokens, at most `longest`, that come again and again; any may follow any other."""

    longest: int

    def __post_init__(self) -> None:
        _require_at_least(self, 2, "longest")


@dataclass(frozen=True, kw_only=True)
class Needle:
    """Keys with values in a haystack; every key is asked for at the end.

    With a `depth` (0 the first place, 1 the last) the needle asked for first stands there, and it
    alone is scored; None scatters all and scores all.
    """

    needles: int = 4
    depth: float | None = None

    def __post_init__(self) -> None:
        _require_at_least(self, 1, "needles")
        if self.depth is not None and not 0 <= self.depth <= 1:
            raise ValueError(f"Needle: depth={self.depth!r} must lie in 0..1, or be None")


@dataclass(frozen=True, kw_only=True)
class Phonebook:
    """As many names with numbers as fit, then `queries` of the names (arXiv 2402.01032, 3.2).

    Names are several tokens, so that a single one does not tell whose number follows.
    """

    name_tokens: int = 2
    number_tokens: int = 3
    queries: int = 1

    def __post_init__(self) -> None:
        _require_at_least(self, 1, "name_tokens", "number_tokens", "queries")


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Items with labels; which of several synonyms names a class is set anew for each prompt.

    After the cause that the Jamba paper gives for Mamba's failures (section 6.2): "Very Good" where
    the examples say "Positive". The class of an item never changes, so it can be learned; which
    synonym is legal stands in the prompt alone.
    """

    classes: int
    synonyms: int

    def __post_init__(self) -> None:
        _require_at_least(self, 2, "classes", "synonyms")


@dataclass(frozen=True, kw_only=True)
class NoisyFewShot:
    """Items whose class has a label that the prompt sets anew and shows with errors.

    Each shown label is right with probability `right`, else it is one of the other labels. Scored
    is the right label. The best guess is the label that the class has had most often, which is
    right with probability `right` after one shot or two, and more often with every further shot.
    """

    classes: int
    labels: int
    right: float = 0.5

    def __post_init__(self) -> None:
        _require_at_least(self, 2, "classes", "labels")
        if not 1 / self.labels < self.right <= 1:
            raise ValueError(
                f"NoisyFewShot: right={self.right!r} must be above 1/labels={1 / self.labels:g}, "
                "which is chance, and at most 1"
            )


@dataclass(frozen=True, kw_only=True)
class TwoHop:
    """Two look-ups, one behind the other: a key has a middle, the middle has a value.

    The pairs of `chains` chains come in random order. At the end every key is asked for its value.
    """

    chains: int

    def __post_init__(self) -> None:
        _require_at_least(self, 2, "chains")


Task = (
    Recall
    | Xor
    | Mqar
    | SelectiveCopy
    | Induction
    | Cycle
    | Needle
    | Phonebook
    | FewShot
    | NoisyFewShot
    | TwoHop
)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A task at one length, as it is measured."""

    task: Task
    length: int

    def __post_init__(self) -> None:
        _require_at_least(self, 1, "length")

    @property
    def name(self) -> str:
        """The key of its accuracy in a record: the length, then what the task has set."""
        values = {f: getattr(self.task, f.name) for f in fields(self.task)}
        said = [f"{f.name.replace('_', ' ')} {x}" for f, x in values.items() if _is_named(f, x)]
        return " ".join([f"length {self.length}", *said])


def probes_of(task: Task, length: int, times: tuple[int, ...] = (1, 2, 4)) -> tuple[Probe, ...]:
    """Return probes of `task` at multiples of a training length, by default up to 4 times."""
    return tuple(Probe(task=task, length=n * length) for n in times)


def _is_named(field: Field, value: Any) -> bool:
    """Return whether the name has this value. Names from before a field was added stay."""
    return value is not None and not (OMIT_DEFAULT in field.metadata and value == field.default)
