"""What is trained on, as plain data: PackagedText(), PackagedCorpus(), TextFile(path="a.txt"),
HubDataset(...), which are text, and Synthetic(...), which is tasks with a known answer.

A Recipe holds one of these and writes it to JSON, hence only plain data, and no import of torch or
tokenizers. What a source names is looked at when it is read, not here: a recipe must be readable on
a machine that lacks the file.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Tasks to train on, one a step and all in turn, and what is measured in the end.

    The length of a sequence is the recipe's while training, the probe's while measuring.
    """

    tasks: tuple[Task, ...]
    probes: tuple[Probe, ...]

    def __post_init__(self) -> None:
        for field, kind in (("tasks", Task), ("probes", Probe)):
            items = getattr(self, field)
            if not isinstance(items, tuple) or not items:
                raise ValueError(
                    f"Synthetic.{field} must be a tuple of at least one, got {items!r}"
                )
            if wrong := [item for item in items if not isinstance(item, kind)]:
                raise ValueError(f"Synthetic.{field} holds {wrong[0]!r}, which is none of its kind")
        names = [probe.name for probe in self.probes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"Synthetic.probes has two called {min(twice)!r}: records name them so"
            )


TextSource = PackagedText | PackagedCorpus | TextFile | HubDataset
Source = TextSource | Synthetic


def on_text(own: Source, text: Source) -> Source:
    """Return `own` if it is tasks, else `text`: a text that a user gives replaces text alone."""
    return own if isinstance(own, Synthetic) else text
