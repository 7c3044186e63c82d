"""The corpus: the prose of PackagedText, and the Python sources of packages that are installed.

Every package is one that this project needs anyway, at the version that constraints.txt pins. Code
is split by package: what is held out comes from packages that are in no training text.

Domains: `code` has one document a file. `code_long` has one document a subpackage, in which the
tests of a module stand behind the module, so that names are used long after they were introduced.

Not read: files that differ between machines, since the build of a package generates them or only
some Python has them, and tables of numbers, which no context foretells.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

import numpy as np

from sweeps.trial.data.documents import Document, Split, normalise_layout, split_by_group
from sweeps.trial.data.packages import PACKAGES, read_packages
from sweeps.trial.data.shared_lines import without_shared_lines
from sweeps.trial.data.sources import PackagedCorpus, PackagedText

DIFFERENT = {"__config__.py"}  # names of files
DIFFERENT_FOLDERS = {("numpy", "distutils")}
TEST_FOLDERS = {"tests", "test"}
MAX_DIGITS_PER_LETTER = 0.5  # a file with more is a table of numbers
TOKENIZER_BYTES = (
    16_000_000  # of each domain: so that code does not crowd prose out of the vocabulary
)
SAMPLED_LINES = 100  # a piece of the tokenizer's sample
MIXTURE_POWER = 0.5

PROSE = tuple(package for package in PACKAGES if package.domain != "code")


@dataclass(frozen=True, kw_only=True)
class CodePackage:
    """A package whose sources are read from `folder`."""

    domain: str
    split: Split
    distribution: str
    version: str
    folder: str

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"


def _code(domain: str, split: Split, *packages: tuple[str, str, str]) -> tuple[CodePackage, ...]:
    return tuple(
        CodePackage(domain=domain, split=split, distribution=name, version=version, folder=folder)
        for name, version, folder in packages
    )


# A change here is another text: raise EDITION in sources.py.
CODE = (
    *_code(
        "code",
        Split.TRAIN,
        ("pandas", "3.1.1", "pandas"),
        ("numba", "0.68.1", "numba"),
        ("SQLAlchemy", "2.1.9", "sqlalchemy"),
        ("matplotlib", "3.11.2", "matplotlib"),
        ("fonttools", "4.68.0", "fontTools"),
        ("Pygments", "2.21.0", "pygments"),
        ("huggingface_hub", "2.4.0", "huggingface_hub"),
        ("pyarrow", "26.0.1", "pyarrow"),
    ),
    *_code("code", Split.VALID, ("pyparsing", "3.3.3", "pyparsing"), ("click", "8.5.1", "click")),
    *_code("code", Split.TEST, ("Jinja2", "3.1.6", "jinja2"), ("fsspec", "2026.9.0", "fsspec")),
    *_code(
        "code_long",
        Split.TRAIN,
        ("sympy", "1.14.0", "sympy"),
        ("scipy", "1.17.1", "scipy"),
        ("numpy", "2.4.6", "numpy"),
        ("networkx", "3.6.1", "networkx"),
    ),
    *_code("code_long", Split.VALID, ("mpmath", "1.3.0", "mpmath")),
    *_code("code_long", Split.TEST, ("optuna", "5.0.0", "optuna")),
)


def read_corpus(source: PackagedCorpus) -> Iterator[Document]:
    """Yield every document of the chosen domains.

    Raises ModuleNotFoundError or ValueError where packages are absent or of another version, and
    names the one command that installs them all.
    """
    code = [package for package in CODE if package.domain in source.domains]
    _require_installed([*(p for p in PROSE if p.domain in source.domains), *code])
    if prose := tuple(x for x in dict.fromkeys(p.domain for p in PROSE) if x in source.domains):
        yield from read_packages(PackagedText(domains=prose))
    for package in code:
        yield from read_code(package)


def read_code(package: CodePackage) -> Iterator[Document]:
    """Yield the documents of one package: a file each, or a subpackage each."""
    files = dict(_files(package))
    if not files:
        raise FileNotFoundError(
            f"{package.requirement} has no Python sources in {package.folder}/: "
            f"pip install --force-reinstall --no-deps {package.requirement}"
        )
    grouped = _by_subpackage(files) if package.domain == "code_long" else _by_file(files)
    for group, text in grouped.items():
        if normal := normalise_layout(text):
            yield Document(
                domain=package.domain, source=package.distribution, group=group, text=normal
            )


def split_corpus(documents: Sequence[Document]) -> dict[Split, list[Document]]:
    """Return prose split by group and code by package, without the lines that train shares."""
    return without_shared_lines(split_with_shared_lines(documents))


def split_with_shared_lines(documents: Sequence[Document]) -> dict[Split, list[Document]]:
    """Return prose split by group and code by package, as they are written."""
    by_package = {package.distribution: package.split for package in CODE}
    splits = split_by_group([x for x in documents if x.source not in by_package])
    for document in documents:
        if document.source in by_package:
            splits[by_package[document.source]].append(document)
    return splits


def tokenizer_sample(train: Sequence[Document]) -> list[str]:
    """Return pieces of the training text, of each domain at most about TOKENIZER_BYTES."""
    texts = defaultdict(list)
    for document in train:
        texts[document.domain].append(document.text)
    return [piece for members in texts.values() for piece in _thinned(members)]


def mixture(train_bytes: Mapping[str, int]) -> dict[str, float]:
    """Return shares in proportion to a power of the bytes, so that small domains are heard too."""
    weight = {domain: n**MIXTURE_POWER for domain, n in train_bytes.items()}
    return {domain: x / sum(weight.values()) for domain, x in weight.items()}


def _require_installed(packages: Sequence) -> None:
    """Compare the installed versions with the pins, all of them, before anything is read."""
    installed = {package.distribution: _version(package.distribution) for package in packages}
    wrong = {
        p.requirement: installed[p.distribution]
        for p in packages
        if installed[p.distribution] != p.version
    }
    if not wrong:
        return
    said = ", ".join(f"{name} (here: {version or 'none'})" for name, version in wrong.items())
    kind = ValueError if all(wrong.values()) else ModuleNotFoundError
    raise kind(
        f"losses compare only on the same text, and the corpus is the text of {said}: "
        f"pip install {' '.join(wrong)}"
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _files(package: CodePackage) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield path and text of the sources that the installed package lists as its own, in order."""
    listed = metadata.files(package.distribution) or []
    for path in sorted(listed, key=lambda path: path.parts):
        if path.parts[0] == package.folder and path.suffix == ".py" and not _differs(path):
            text = Path(path.locate()).read_text(encoding="utf-8")
            if not _is_table(text):
                yield path, text


def _differs(path: PurePosixPath) -> bool:
    return path.name in DIFFERENT or path.parts[:2] in DIFFERENT_FOLDERS


def _is_table(text: str) -> bool:
    counts = np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=256)
    letters = counts[ord("A") : ord("Z") + 1].sum() + counts[ord("a") : ord("z") + 1].sum()
    return counts[ord("0") : ord("9") + 1].sum() > MAX_DIGITS_PER_LETTER * letters


def _by_file(files: Mapping[PurePosixPath, str]) -> dict[str, str]:
    return {str(path): text for path, text in files.items()}


def _by_subpackage(files: Mapping[PurePosixPath, str]) -> dict[str, str]:
    """Return one text a subpackage: its files behind each other, each under its path."""
    parts: dict[str, list[str]] = defaultdict(list)
    for path in sorted(files, key=_beside_its_tests):
        subpackage = "/".join(path.parts[: min(2, len(path.parts) - 1)])
        parts[subpackage].append(f"# {path}\n{normalise_layout(files[path])}")
    return {subpackage: "\n\n\n".join(texts) for subpackage, texts in parts.items()}


def _beside_its_tests(path: PurePosixPath) -> tuple[tuple[str, ...], str, bool, str]:
    """Return a sort key: `a/tests/test_b.py` comes next after `a/b.py` and `a/_b.py`."""
    folder = tuple(part for part in path.parent.parts if part not in TEST_FOLDERS)
    topic = path.stem.removeprefix("test_").strip("_")
    return folder, topic, bool(TEST_FOLDERS & set(path.parts)), path.name


def _thinned(texts: Sequence[str]) -> list[str]:
    """Return every n-th piece of SAMPLED_LINES lines, for the least n that keeps to the limit."""
    every = -(-sum(map(len, texts)) // TOKENIZER_BYTES)
    pieces = [piece for text in texts for piece in _pieces(text)]
    return pieces[::every]


def _pieces(text: str) -> list[str]:
    lines = text.splitlines(keepends=True)
    return [
        "".join(lines[first : first + SAMPLED_LINES])
        for first in range(0, len(lines), SAMPLED_LINES)
    ]
