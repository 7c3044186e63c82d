"""Token streams of one source: built once, then opened from the cache without reading the text.

    tokens = open_tokens(PackagedText(), vocab=4096)
    tokens.streams["books"][Split.VALID].ids    # a read-only array on disk

A stream is the separator, then each document followed by the separator, so that also the first
token of the first document is predicted from something.

The identity of a text of one's own is its `text_sha256`, which `pinned` puts into the source.
Paths, names and file formats are no part of it.
"""

import hashlib
import io
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import tokenizers
import torch
from torch import Tensor

from hybrid import codec
from sweeps.trial.data import (
    documents,
    packaged_corpus,
    packages,
    shared_lines,
    tokenizer,
    user_text,
)
from sweeps.trial.data.cache import (
    BrokenCache,
    cache_folder,
    checked_path,
    only_builder,
    read_manifest,
    write_manifest,
    write_named_by_content,
)
from sweeps.trial.data.documents import Document, Split, split_by_group, without_duplicates
from sweeps.trial.data.sources import (
    CORPUS_DOMAINS,
    DOMAINS,
    HubDataset,
    OwnText,
    PackagedCorpus,
    PackagedText,
    Source,
    TextFile,
)
from sweeps.trial.data.tokenizer import SEPARATOR_ID, ByteBPE

READERS: dict[type, Callable[[Any], Iterable[Document]]] = {
    PackagedText: packages.read_packages,
    PackagedCorpus: packaged_corpus.read_corpus,
    TextFile: user_text.read_file,
    HubDataset: user_text.read_hub,
}

# What, besides the code below and the vocabulary, decides the tokens of a source that is no text of
# one's own; must be cheap. The versions of the packages are pinned in the code. So a machine that
# has the cache needs no packages.
IDENTITIES: dict[type, Callable[[Any], dict[str, Any]]] = {
    PackagedText: lambda source: {"domains": [x for x in DOMAINS if x in source.domains]},
    PackagedCorpus: lambda source: {
        "domains": [x for x in CORPUS_DOMAINS if x in source.domains],
        "edition": source.edition,
    },
}

S = TypeVar("S", bound=Source)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How documents become training text: the split, the tokenizer's sample, the mixture."""

    split: Callable[[Sequence[Document]], dict[Split, list[Document]]]
    sample: Callable[[Sequence[Document]], Sequence[str]]  # of train
    mixture: Callable[[Mapping[str, int]], dict[str, float]]  # of the bytes of train


PLAIN = Preparation(
    split=split_by_group,
    sample=lambda train: [document.text for document in train],
    mixture=lambda train_bytes: {d: n / sum(train_bytes.values()) for d, n in train_bytes.items()},
)
PREPARATIONS: dict[type, Preparation] = {  # of what is not PLAIN
    PackagedCorpus: Preparation(
        split=packaged_corpus.split_corpus,
        sample=packaged_corpus.tokenizer_sample,
        mixture=packaged_corpus.mixture,
    ),
}

log = logging.getLogger(__name__)


class OtherText(ValueError):
    """What a source reads here is not the text that it is pinned to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """The tokens of one domain and split, and the bytes of text that they stand for."""

    ids: np.ndarray  # one dimension, uint16 or uint32, read-only, on disk
    text_bytes: int
    documents: int

    @property
    def tokens(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """One source as token streams, by domain and split.

    `mixture` holds the share of training windows that each domain gets; PREPARATIONS has the
    default, for most sources its share of the bytes of train. Another one is a difference:
    replace(tokens, mixture={"books": 1.0}).
    """

    source: Source
    tokenizer: ByteBPE
    text_sha256: str  # of the normalised documents in their splits: equal text, equal hash
    streams: Mapping[str, Mapping[Split, Stream]]
    mixture: Mapping[str, float]

    def __post_init__(self) -> None:
        if unknown := set(self.mixture) - set(self.streams):
            raise ValueError(f"mixture names {sorted(unknown)}, the domains are {self.domains}")
        shares = list(self.mixture.values())
        if any(share < 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ValueError(f"mixture must be shares that add up to 1, got {dict(self.mixture)}")

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.streams)

    @property
    def vocab(self) -> int:
        return self.tokenizer.vocab

    @property
    def tokenizer_sha256(self) -> str:
        return self.tokenizer.sha256

    @cached_property
    def bytes_per_token_V(self) -> Tensor:
        """int64: the bytes of text that each token stands for; the separator stands for none."""
        return torch.from_numpy(self.tokenizer.bytes_per_token())

    def stream(self, split: Split, domain: str) -> Stream:
        if domain not in self.streams:
            raise ValueError(f"no domain {domain!r} in {self.source}; it has {self.domains}")
        return self.streams[domain][Split(split)]


def pinned(source: S) -> S:
    """Return `source` so that it names one text for good, wherever it is read afterwards.

    A text of one's own gets its `text_sha256` and an absolute path, a data set of the hub its
    revision. What is pinned already is returned as it is, and nothing is read. Raises what reading
    the text raises.
    """
    if not isinstance(source, OwnText) or source.text_sha256 is not None:
        return source
    return cast(S, _with_sha256(user_text.located(source)))


def content_of(source: Source) -> dict[str, Any]:
    """Return what identifies a pinned source, as JSON data: equal for equal content."""
    if isinstance(source, OwnText):
        if source.text_sha256 is None:
            raise ValueError(f"{source} is not pinned: streams.pinned reads what it holds")
        return {"kind": "Text", "text_sha256": source.text_sha256}
    if type(source) in IDENTITIES:
        return {"kind": type(source).__name__, **IDENTITIES[type(source)](source)}
    return dict(codec.encode(source))


def verify(source: Source) -> None:
    """Raise OtherText where a pinned text of one's own holds something else here."""
    if isinstance(source, OwnText):
        _require_pinned_text(source, _read_sha256(source))


def open_tokens(source: Source, vocab: int) -> Tokens:
    """The tokens of a source, from the cache if it holds them whole, else built and cached.

    Raises OtherText where they are to be built and a pinned source holds another text here.
    """
    if type(source) not in READERS:
        known = ", ".join(kind.__name__ for kind in READERS)
        raise TypeError(f"a source of text must be one of {known}, got {source!r}")
    tokenizer.check_vocab(vocab)
    if isinstance(source, OwnText) and source.text_sha256 is None:
        source = _with_sha256(source)
    key = _key(source, vocab)
    folder = cache_folder() / "tokens" / key
    if opened := _opened(source, folder):
        return opened
    with only_builder(folder):
        if opened := _opened(source, folder):  # another process built it while this one waited
            return opened
        with reading_source(source):
            manifest = _build(source, vocab, folder)
        if _key(source, vocab) != key:
            raise _changed(source)
        write_manifest(folder / "manifest.json", manifest)
        return _from_manifest(source, folder, manifest)


@contextmanager
def reading_source(source: Source) -> Iterator[None]:
    """Name a user's file in the ValueError of whatever refuses its text: split or tokenizer."""
    try:
        yield
    except ValueError as error:
        name = source.path if isinstance(source, TextFile) else str(source)
        named = isinstance(error, OtherText) or name in str(error)
        if named or isinstance(source, PackagedText):
            raise
        raise ValueError(f"{name}: {error}") from error


def _preparation(source: Source) -> Preparation:
    return PREPARATIONS.get(type(source), PLAIN)


def _key(source: Source, vocab: int) -> str:
    return _hash(
        {
            "content": content_of(source),
            "vocab": vocab,
            "tokenizers": tokenizers.__version__,
            "code": _code_sha256(),
        }
    )


def _hash(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _with_sha256(source: OwnText) -> OwnText:
    return replace(source, text_sha256=_read_sha256(source))


def _read_sha256(source: OwnText) -> str:
    """Return the sha256 of the text that `source` holds now; of a file, cached by its bytes."""
    if not isinstance(source, TextFile):
        return _text_sha256(_splits(source))
    identity = user_text.file_identity(source)
    path = cache_folder() / "texts" / f"{_hash({**identity, 'code': _code_sha256()})}.json"
    try:
        return str(read_manifest(path)["text_sha256"])
    except FileNotFoundError:
        pass
    except BrokenCache as problem:
        log.warning("%s; reading the text again", problem)
    sha256 = _text_sha256(_splits(source))
    if user_text.file_identity(source) != identity:
        raise _changed(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(path, {"text_sha256": sha256})
    return sha256


def _require_pinned_text(source: OwnText, sha256: str) -> None:
    if sha256 != source.text_sha256:
        where = source.path if isinstance(source, TextFile) else source.name
        raise OtherText(
            f"{where} holds another text here than the one asked for: its text_sha256 is "
            f"{sha256}, not {source.text_sha256}"
        )


def _changed(source: Source) -> RuntimeError:
    return RuntimeError(f"{source} was changed while it was read: start again")


def _splits(source: Source) -> dict[Split, list[Document]]:
    """Read the documents of a source and split them."""
    with reading_source(source):
        found = without_duplicates(READERS[type(source)](source))
        if not found:
            raise ValueError(f"{source} has no text at all")
        return _preparation(source).split(found)


@cache
def _code_sha256() -> str:
    """Of the files that turn text into tokens, so that nobody need remember to raise a version."""
    modules = (documents, packaged_corpus, packages, shared_lines, tokenizer, user_text)
    files = [str(module.__file__) for module in modules]
    content = [Path(file).read_bytes() for file in [*files, __file__]]
    return hashlib.sha256(b"\0".join(content)).hexdigest()


def _opened(source: Source, folder: Path) -> Tokens | None:
    try:
        return _from_manifest(source, folder, read_manifest(folder / "manifest.json"))
    except FileNotFoundError:
        return None
    except BrokenCache as problem:
        log.warning("%s; building it again", problem)
        return None


def _from_manifest(source: Source, folder: Path, manifest: dict[str, Any]) -> Tokens:
    tokenizer_path = checked_path(folder, manifest["tokenizer_sha256"], ".json")
    streams = {
        domain: {Split(split): _stream(folder, **entry) for split, entry in by_split.items()}
        for domain, by_split in manifest["streams"].items()
    }
    train_bytes = {domain: streams[domain][Split.TRAIN].text_bytes for domain in streams}
    return Tokens(
        source=source,
        tokenizer=ByteBPE(tokenizer_path.read_text(encoding="utf-8")),
        text_sha256=manifest["text_sha256"],
        streams=streams,
        mixture=_preparation(source).mixture(train_bytes),
    )


def _stream(folder: Path, *, sha256: str, text_bytes: int, documents: int) -> Stream:
    ids = np.load(checked_path(folder, sha256, ".npy"), mmap_mode="r")
    return Stream(ids=ids, text_bytes=text_bytes, documents=documents)


def _build(source: Source, vocab: int, folder: Path) -> dict[str, Any]:
    """Reads, splits, trains the tokenizer, encodes and writes; returns the manifest."""
    log.info("building the tokens of %s with vocab=%d", source, vocab)
    splits = _splits(source)
    text_sha256 = _text_sha256(splits)
    if isinstance(source, OwnText):
        _require_pinned_text(source, text_sha256)
    preparation = _preparation(source)
    with tokenizer.all_cores():
        bpe = tokenizer.train(preparation.sample(splits[Split.TRAIN]), vocab)
        streams: dict[str, dict[str, Any]] = {}
        for split, members in splits.items():
            for domain, texts in _by_domain(members).items():
                streams.setdefault(domain, {})[split] = _write_stream(folder, bpe, texts)
    return {
        "tokenizer_sha256": write_named_by_content(folder, ".json", bpe.json_text.encode()),
        "text_sha256": text_sha256,
        "streams": streams,
    }


def _by_domain(members: Sequence[Document]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for document in members:
        texts.setdefault(document.domain, []).append(document.text)
    return texts


def _write_stream(folder: Path, bpe: ByteBPE, texts: Sequence[str]) -> dict[str, Any]:
    dtype = np.uint16 if bpe.vocab <= 1 << 16 else np.uint32
    parts = [np.array([SEPARATOR_ID], dtype)]
    parts += [np.array([*ids, SEPARATOR_ID], dtype) for ids in bpe.encode_many(texts)]
    content = io.BytesIO()
    np.save(content, np.concatenate(parts))
    return {
        "sha256": write_named_by_content(folder, ".npy", content.getvalue()),
        "text_bytes": sum(len(text.encode()) for text in texts),
        "documents": len(texts),
    }


def _text_sha256(splits: Mapping[Split, Sequence[Document]]) -> str:
    digest = hashlib.sha256()
    for split, members in splits.items():
        for document in members:
            digest.update(f"{split}\0{document.domain}\0{document.text}\0".encode())
    return digest.hexdigest()
