"""What is trained on, as plain data: PackagedText(), TextFile(path="a.txt"), HubDataset(...), which
are text, and Synthetic(...), which is tasks with a known answer.

A Recipe holds one of these and writes it to JSON, hence only plain data, and no import of torch or
tokenizers. What a source names is looked at when it is read, not here: a recipe must be readable on
a machine that lacks the file.
"""

from dataclasses import dataclass
from typing import Any

from hybrid.spec import added
from sweeps.trial.data.tasks import Probe, Task

DOMAINS = ("books", "web", "code")


def _require_text(owner: object, field: str) -> None:
    value = getattr(owner, field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{type(owner).__name__}.{field} must be a string that is not empty, got {value!r}"
        )


@dataclass(frozen=True, kw_only=True)
class PackagedText:
    """Real text inside installed Python packages: the default, needs no network.

    The order of `domains` has no effect: they are always read in the order of DOMAINS.
    """

    domains: tuple[str, ...] = DOMAINS

    def __post_init__(self) -> None:
        if not isinstance(self.domains, tuple) or not self.domains:
            raise ValueError(
                f"PackagedText.domains must be a tuple of at least one name from {DOMAINS}, "
                f"got {self.domains!r}"
            )
        if unknown := [name for name in self.domains if name not in DOMAINS]:
            raise ValueError(f"PackagedText.domains has unknown {unknown}, known are {DOMAINS}")
        if len(set(self.domains)) < len(self.domains):
            raise ValueError(f"PackagedText.domains names a domain twice: {self.domains}")


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A user's own text: a .txt, .jsonl or .parquet file, or a folder of .txt files.

    `text_field` is the key (.jsonl) or column (.parquet) that holds the text; plain text has none.
    The one domain is called like the file without its suffix, or like the folder.
    """

    path: str
    text_field: str = "text"

    def __post_init__(self) -> None:
        _require_text(self, "path")
        _require_text(self, "text_field")


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """A data set of the Hugging Face hub, read with the optional library `datasets`.

    `split` may be a slice such as "train[:1%]": all of it is held in memory while it is tokenized.
    Without a `revision` the tokens cached on first use stay in use though the hub may have moved
    on; the text_sha256 of the opened tokens tells two such versions apart.
    """

    name: str
    config: str | None = None
    split: str = "train"
    text_field: str = "text"
    revision: str | None = None

    def __post_init__(self) -> None:
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


TextSource = PackagedText | TextFile | HubDataset
Source = TextSource | Synthetic


def on_text(own: Source, text: Source) -> Source:
    """Return `own` if it is tasks, else `text`: a text that a user gives replaces text alone."""
    return own if isinstance(own, Synthetic) else text
