"""Reads a user's own text: files, folders of files, and data sets of the Hugging Face hub.

A group is a document, named by the hash of its text: a document keeps its place in the hashed order
when others are added, removed or moved. White space is kept as in code, since it may be code.
"""

import codecs
import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hybrid.console import described, reading
from sweeps.trial.data.documents import Document, normalise_layout
from sweeps.trial.data.sources import HubDataset, OwnText, TextFile

# One .txt file is cut at blank lines into about PIECES_PER_FILE documents, so that the held-out
# share is about three of them; never smaller than a paragraph of context, nor larger than needed.
PIECES_PER_FILE = 100
DOMAIN = "text"  # of all text of one's own: a file's name is no part of what it holds
MIN_PIECE_BYTES, MAX_PIECE_BYTES = 1_024, 65_536
# The first bytes of compressed files, and what unpacks them.
PACKED = {
    b"\x1f\x8b": "gzip -d",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"PK\x03\x04": "unzip",
    b"BZh": "bzip2 -d",
    b"\xfd7zXZ\x00": "xz -d",
}


def read_file(source: TextFile) -> Iterator[Document]:
    """Every document of a user's file or folder; raises at the first one that is not text."""
    path = Path(source.path)
    with reading(path):
        for where, value in _reader(path)(path, source.text_field):
            text = _checked_text(value, where)
            if not text:
                raise ValueError(f"{where}: the text is empty; remove it or fill it")
            yield _document(text)


def file_identity(source: TextFile) -> dict[str, str]:
    """Return what decides the documents of a file: its bytes, never its time stamp or its place.

    Reading 1 GB to hash it takes about a second; a time stamp can stay the same after an edit.
    """
    path = Path(source.path)
    digest = hashlib.sha256(_reader(path).__name__.encode())
    for part in folder_files(path) if path.is_dir() else [path]:
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return {"text_field": source.text_field, "sha256": digest.hexdigest()}


def located(source: OwnText) -> OwnText:
    """Return `source` with an absolute path or a revision, so that every folder finds the same."""
    if isinstance(source, TextFile):
        return replace(source, path=str(Path(source.path).resolve()))
    if Path(source.name).is_dir():
        return replace(source, name=str(Path(source.name).resolve()))
    return replace(source, revision=_revision(source))


def _revision(source: HubDataset) -> str | None:
    """Return the commit that the hub has now; offline, what `source` says.

    Raises OSError where the hub does not answer.
    """
    if _library("huggingface_hub.constants", source).HF_HUB_OFFLINE:
        return source.revision
    hub = _library("huggingface_hub", source)
    try:
        return str(hub.HfApi().dataset_info(source.name, revision=source.revision).sha)
    except Exception as error:  # the library and the one below it have many classes for this
        raise OSError(
            f"{source}: the hub does not tell its revision ({error}); HF_HUB_OFFLINE=1 takes what "
            "was downloaded before"
        ) from error


def _reader(path: Path) -> "Callable[[Path, str], Iterator[tuple[str, object]]]":
    if not path.exists():
        raise FileNotFoundError(f"TextFile: there is no file or folder {path}")
    if path.is_dir():
        return _read_folder
    if path.suffix not in FILE_READERS:
        raise ValueError(
            f"{path}: cannot read files that end in {path.suffix!r}; "
            f"give one that ends in {', '.join(FILE_READERS)}, or a folder of .txt files"
        )
    return FILE_READERS[path.suffix]


def _document(text: str) -> Document:
    group = hashlib.sha256(text.encode()).hexdigest()
    return Document(domain=DOMAIN, source=DOMAIN, group=group, text=text)


def _checked_text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: must be a string, got {type(value).__name__} {value!r:.60}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: has half of a surrogate pair at character {error.start}, "
            "which is not Unicode text"
        ) from error
    return normalise_layout(value)


def _utf8(path: Path) -> str:
    """A file's text; a byte order mark, which some editors write, is no part of it."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; {_mend(content)}") from error


def _mend(content: bytes) -> str:
    """Say what makes text of a file that is not UTF-8, by what the file begins with."""
    for beginning, command in PACKED.items():
        if content.startswith(beginning):
            return f"the file is compressed; unpack it first, with {command}"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "convert it with iconv -f utf-16 -t utf-8"
    return "convert it, for example with iconv -t utf-8"


def _no_field(path: Path, text_field: str) -> None:
    if text_field != "text":
        raise ValueError(f"{path}: plain text has no fields, but text_field={text_field!r}")


def _read_txt(path: Path, text_field: str) -> Iterator[tuple[str, object]]:
    _no_field(path, text_field)
    text = normalise_layout(_utf8(path))
    if not text:
        raise ValueError(f"{path}: the file is empty; it must hold text")
    for number, piece in enumerate(cut_at_paragraphs(text), start=1):
        yield f"{path} part {number}", piece


def cut_at_paragraphs(text: str) -> Iterator[str]:
    """Runs of whole paragraphs; each but the last as large as the constants above ask."""
    share_bytes = len(text.encode()) // PIECES_PER_FILE
    piece_bytes = min(max(share_bytes, MIN_PIECE_BYTES), MAX_PIECE_BYTES)
    piece: list[str] = []
    size_bytes = 0
    for paragraph in re.split(r"\n{2,}", text):
        piece.append(paragraph)
        size_bytes += len(paragraph.encode())
        if size_bytes >= piece_bytes:
            yield "\n\n".join(piece)
            piece, size_bytes = [], 0
    if piece:
        yield "\n\n".join(piece)


def _read_folder(folder: Path, text_field: str) -> Iterator[tuple[str, object]]:
    """One document a .txt file, also in folders below; other files are not looked at."""
    _no_field(folder, text_field)
    for path in folder_files(folder):
        yield str(path), _utf8(path)


def folder_files(folder: Path) -> list[Path]:
    """Return the .txt files of a folder and of those below; a folder with such a name is none."""
    paths = sorted(path for path in folder.rglob("*.txt") if not path.is_dir())
    if not paths:
        raise FileNotFoundError(f"{folder}: the folder has no .txt file in it")
    return paths


def _read_jsonl(path: Path, text_field: str) -> Iterator[tuple[str, object]]:
    # split("\n"), not splitlines: JSON strings may hold U+2028 and the like unescaped.
    for number, line in enumerate(_utf8(path).split("\n"), start=1):
        where = f"{path} line {number}"
        if line.strip():
            yield f"{where}, field {text_field!r}", _json_field(line, where, text_field)


def _json_field(line: str, where: str, text_field: str) -> object:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError also for too long a number
        raise ValueError(
            f"{where}: not JSON that can be read ({error}); each line must be one JSON object"
        ) from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be a JSON object, got {type(row).__name__}")
    if text_field not in row:
        raise ValueError(f"{where}: no field {text_field!r}; its fields are {sorted(row)}")
    return row[text_field]


def _read_parquet(path: Path, text_field: str) -> Iterator[tuple[str, object]]:
    with _whole_parquet(path):
        names = pq.read_schema(path).names
    if text_field not in names:
        raise ValueError(f"{path}: no column {text_field!r}; its columns are {names}")
    with _whole_parquet(path), pq.ParquetFile(path) as file:
        values = file.read(columns=[text_field]).column(text_field).to_pylist()
    for row, value in enumerate(values):
        yield f"{path} row {row}, column {text_field!r}", value


@contextmanager
def _whole_parquet(path: Path) -> Iterator[None]:
    """Raise ValueError, with the file, for any of the many classes that pyarrow has for damage."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path}: not a whole Parquet file ({described(error)})") from error


FILE_READERS: dict[str, Callable[[Path, str], Iterator[tuple[str, object]]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def read_hub(source: HubDataset) -> Iterator[Document]:
    """Every row of a hub data set that has text.

    Rows of white space alone are left out, unlike in a file: some data sets (wikitext) mark
    paragraphs with them, and the user cannot mend them.
    """
    rows = _load_dataset(source)
    if source.text_field not in rows.column_names:
        raise ValueError(
            f"{source}: no column {source.text_field!r}; its columns are {rows.column_names}"
        )
    for row, value in enumerate(rows[source.text_field]):
        if text := _checked_text(value, f"{source} row {row}, column {source.text_field!r}"):
            yield _document(text)


def _load_dataset(source: HubDataset):
    datasets = _library("datasets", source)
    try:
        return datasets.load_dataset(
            source.name, source.config, split=source.split, revision=source.revision
        )
    except Exception as error:  # the library and the hub's client have a class for each trouble
        raise ValueError(f"{source} cannot be loaded: {described(error)}") from error


def _library(name: str, source: HubDataset) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{source} needs an optional library ({error}): pip install datasets"
        ) from error
