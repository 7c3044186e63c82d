"""What is trained on, as plain data: PackagedText(), PackagedCorpus(), TextFile(path="a.txt"),
HubDataset(...), which are text, and Synthetic(...), which is tasks with a known answer.

A Recipe holds one of these and writes it to JSON, hence only plain data, and no import of torch or
tokenizers. What a source names is looked at when it is read, not here: a recipe must be readable on
a machine that lacks the file.
"""

import re
from dataclasses import dataclass
from typing import Any

from hybrid.spec import added
from sweeps.trial.data.tasks import Probe, Task

DOMAINS = ("books", "web", "code")
CORPUS_DOMAINS = (*DOMAINS, "code_long")
EDITION = 1  # of the corpus: its packages, their versions, and what is left out of them


def _require_text(owner: object, field: str) -> None:
    value = getattr(owner, field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{type(owner).__name__}.{field} must be a string that is not empty, got {value!r}"
        )


def _require_sha256(owner: "TextFile | HubDataset") -> None:
    value = owner.text_sha256
    if value is not None and not re.fullmatch("[0-9a-f]{64}", str(value)):
        raise ValueError(
            f"{type(owner).__name__}.text_sha256 must be 64 hexadecimal digits, got {value!r}"
        )


def _require_domains(owner: str, domains: object, known: tuple[str, ...]) -> None:
    if not isinstance(domains, tuple) or not domains:
        raise ValueError(
            f"{owner}.domains must be a tuple of at least one name from {known}, got {domains!r}"
        )
    if unknown := [name for name in domains if name not in known]:
        raise ValueError(f"{owner}.domains has unknown {unknown}, known are {known}")
    if len(set(domains)) < len(domains):
        raise ValueError(f"{owner}.domains names a domain twice: {domains}")


@dataclass(frozen=True, kw_only=True)
class PackagedText:
    """Real text inside installed Python packages: the default, needs no network.

    The order of `domains` has no effect: they are always read in the order of DOMAINS.
    """

    domains: tuple[str, ...] = DOMAINS

    def __post_init__(self) -> None:
        _require_domains("PackagedText", self.domains, DOMAINS)


@dataclass(frozen=True, kw_only=True)
class PackagedCorpus:
    """Four times the text of PackagedText, from more packages, without lines that leak.

    Code is held out by whole packages. Lines that train shares with held-out text are removed from
    train. `edition` is part of a run's identity: another text gets another number. docs/text.md
    lists packages, sizes and licences. The order of `domains` has no effect.
    """

    domains: tuple[str, ...] = CORPUS_DOMAINS
    edition: int = EDITION

    def __post_init__(self) -> None:
        _require_domains("PackagedCorpus", self.domains, CORPUS_DOMAINS)
        if type(self.edition) is not int or self.edition != EDITION:
            raise ValueError(
                f"PackagedCorpus.edition must be {EDITION}, the one that this code reads, "
                f"got {self.edition!r}"
            )


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A user's own text: a .txt, .jsonl or .parquet file, or a folder of .txt files.

    `text_field` is the key (.jsonl) or column (.parquet) that holds the text; plain text has none.
    `text_sha256` is the identity of the text, which `streams.pinned` fills in. With it, the path
    only says where the text was found, and another content under that path is refused.
    """

    path: str
    text_field: str = "text"
    text_sha256: str | None = None

    def __post_init__(self) -> None:
        _require_text(self, "path")
        _require_text(self, "text_field")
        _require_sha256(self)


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """A data set of the Hugging Face hub, read with the optional library `datasets`.

    `name` may be a folder of this machine. `split` may be a slice such as "train[:1%]": all of it
    is held in memory while it is tokenized. `text_sha256` is as in TextFile. `streams.pinned` also
    fills in the `revision` that the hub has at that moment.
    """

    name: str
    config: str | None = None
    split: str = "train"
    text_field: str = "text"
    revision: str | None = None
    text_sha256: str | None = None

    def __post_init__(self) -> None:
        _require_sha256(self)
        for field in ("name", "split", "text_field"):
            _require_text(self, field)
        for field in ("config", "revision"):
            if getattr(self, field) is not None:
                _require_text(self, field)


def _require_all(owner: object, field: str, kind: Any) -> None:
    """Raise ValueError unless the field is a tuple of at least one instance of `kind`."""
    items, name = getattr(owner, field), f"{type(owner).__name__}.{field}"
    if not isinstance(items, tuple) or not items:
        raise ValueError(f"{name} must be a tuple of at least one, got {items!r}")
    if wrong := [item for item in items if not isinstance(item, kind)]:
        raise ValueError(f"{name} holds {wrong[0]!r}, which is none of its kind")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Tasks of a curriculum, one a step and all in turn, in the steps (from 0) before `end`."""

    tasks: tuple[Task, ...]
    end: int

    def __post_init__(self) -> None:
        _require_all(self, "tasks", Task)
        if type(self.end) is not int or self.end < 1:
            raise ValueError(f"Stage.end={self.end!r} must be a whole number of at least 1")


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Tasks to train on, one a step and all in turn, and what is measured in the end.

    The length of a sequence is the recipe's while training, the probe's while measuring. With a
    `curriculum` its stages come first, one after the other, and `tasks` after the last of them.
    """

    tasks: tuple[Task, ...]
    probes: tuple[Probe, ...]
    curriculum: tuple[Stage, ...] = added(())

    def __post_init__(self) -> None:
        _require_all(self, "tasks", Task)
        _require_all(self, "probes", Probe)
        if self.curriculum != ():
            _require_all(self, "curriculum", Stage)
        ends = [stage.end for stage in self.curriculum]
        if ends != sorted(set(ends)):
            raise ValueError(
                f"Synthetic.curriculum has stages that end at {ends}, each must end after the one "
                "before it"
            )
        names = [probe.name for probe in self.probes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"Synthetic.probes has two called {min(twice)!r}: records name them so"
            )

    @property
    def all_tasks(self) -> tuple[Task, ...]:
        """Return every task that is trained on, those of the curriculum first."""
        return (*(task for stage in self.curriculum for task in stage.tasks), *self.tasks)

    def task(self, step: int) -> Task:
        """Return the task of a step (from 0)."""
        stage = next((stage for stage in self.curriculum if step < stage.end), None)
        tasks = self.tasks if stage is None else stage.tasks
        return tasks[step % len(tasks)]


OwnText = TextFile | HubDataset
TextSource = PackagedText | PackagedCorpus | OwnText
Source = TextSource | Synthetic


def on_text(own: Source, text: Source | None) -> Source:
    """Return what a recipe with the source `own` is trained on when `text` is given for its sweep.

    Tasks stay tasks. None is "not given" and replaces nothing. A given text replaces the default.
    Raises ValueError where the recipe names a text of its own and another one is given.
    """
    if text is None or isinstance(own, Synthetic):
        return own
    if own == PackagedText():
        return text
    if not _is_same_text(own, text):
        raise ValueError(
            f"the recipe names its own text, {own}, so no other can be given; got {text}. "
            "Leave out --text and --dataset, or the recipe's source"
        )
    return own


def _is_same_text(one: Source, other: Source) -> bool:
    if isinstance(one, OwnText) and isinstance(other, OwnText) and one.text_sha256 is not None:
        return one.text_sha256 == other.text_sha256
    return one == other
