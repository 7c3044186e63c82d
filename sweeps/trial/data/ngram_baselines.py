"""Unigram and bigram tables of a text, and their bits per byte on held-out text.

    counted = TrainWindows(seed=0, steps=1024, batch=8, length=512)   # None: all training text
    (found,) = ngram_bits_per_byte(tokens, counted, [HeldOutWindows(split=Split.TEST, ...)])
    found.bigram    # {"books": 2.14, ...}

One table is counted over all domains, as one model is trained on all of them. It is judged on
exactly the held-out tokens that the model is judged on. What was found is kept beside the tokens in
the cache, under all that decides it, so that the runs of a sweep share it.

The bigram is interpolated with the unigram by absolute discounting (Ney, Essen and Kneser 1994,
and Chen and Goodman 1999, equation 12). The unigram adds one to each count.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.trial.data import batches
from sweeps.trial.data.batches import HeldOutWindows, bits_per_byte, held_out, train_batch
from sweeps.trial.data.cache import (
    BrokenCache,
    cache_folder,
    only_builder,
    read_manifest,
    write_manifest,
)
from sweeps.trial.data.documents import Split
from sweeps.trial.data.streams import Tokens

DISCOUNT = 0.75
CHUNK_TOKENS = 1 << 22  # counted at once: bounds the memory

Pairs = tuple[np.ndarray, np.ndarray]  # tokens, and the token after each; int64, shape (n,)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainWindows:
    """The windows that a run trains on: `steps` batches from step 0."""

    seed: int
    steps: int
    batch: int
    length: int


@dataclass(frozen=True, kw_only=True)
class NgramBits:
    """Bits per byte of both tables, by domain."""

    unigram: dict[str, float]
    bigram: dict[str, float]


class BigramTable:
    """Counts of pairs of tokens, as sorted codes `first * vocab + second`."""

    def __init__(self, vocab: int, pairs: Iterable[Pairs]) -> None:
        self.vocab = vocab
        codes, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        for first_n, second_n in pairs:
            codes, counts = _merged(codes, counts, first_n * vocab + second_n)
        first, second = codes // vocab, codes % vocab
        self.codes_P, self.counts_P = codes, counts
        self.firsts_V = np.bincount(first, weights=counts, minlength=vocab)
        self.followers_V = np.bincount(first, minlength=vocab)
        seconds_V = np.bincount(second, weights=counts, minlength=vocab)
        self.unigram_V = (seconds_V + 1) / (seconds_V.sum() + vocab)

    def unigram(self, second_n: np.ndarray) -> np.ndarray:
        """Return the probability of each token."""
        return self.unigram_V[second_n]

    def bigram(self, first_n: np.ndarray, second_n: np.ndarray) -> np.ndarray:
        """Return the probability of each token of `second_n` after the one of `first_n`."""
        seen_n = self.firsts_V[first_n]
        kept_n = np.maximum(self._counts(first_n * self.vocab + second_n) - DISCOUNT, 0)
        freed_n = np.where(seen_n > 0, DISCOUNT * self.followers_V[first_n], 1)
        return (kept_n + freed_n * self.unigram(second_n)) / np.maximum(seen_n, 1)

    def _counts(self, code_n: np.ndarray) -> np.ndarray:
        if not len(self.codes_P):
            return np.zeros(len(code_n))
        place_n = np.minimum(np.searchsorted(self.codes_P, code_n), len(self.codes_P) - 1)
        return np.where(self.codes_P[place_n] == code_n, self.counts_P[place_n], 0)


def _merged(codes: np.ndarray, counts: np.ndarray, new_n: np.ndarray) -> tuple:
    """Return sorted distinct codes and their counts, those of `new_n` added."""
    new_codes, new_counts = np.unique(new_n, return_counts=True)
    both, place = np.unique(np.concatenate([codes, new_codes]), return_inverse=True)
    sums = np.bincount(place, weights=np.concatenate([counts, new_counts]), minlength=len(both))
    return both, sums.astype(np.int64)


def ngram_bits_per_byte(
    tokens: Tokens, counted: TrainWindows | None, judged: Sequence[HeldOutWindows]
) -> list[NgramBits]:
    """Return what tables of `counted` reach on each of `judged`, from the cache where it is there.

    `counted` None stands for all training text of the source. Raises ValueError where a window is
    longer than a stream.
    """
    folder = _folder(tokens)
    paths = [folder / f"{_key(tokens, counted, windows)}.json" for windows in judged]
    if kept := _kept(paths):
        return kept
    with only_builder(folder):
        if kept := _kept(paths):  # another process counted while this one waited
            return kept
        pairs = _all_pairs(tokens) if counted is None else _window_pairs(tokens, counted)
        table = BigramTable(tokens.vocab, pairs)
        found = [_judge(table, tokens, windows) for windows in judged]
        for path, bits in zip(paths, found, strict=True):
            write_manifest(path, asdict(bits))
        return found


def domain_bigram_bits_per_byte(
    tokens: Tokens, judged: Sequence[HeldOutWindows]
) -> list[dict[str, float]]:
    """Return what a bigram table of each domain's own training text reaches on that domain.

    It is the harder bar where one domain has most of the text: its counts drown the others'.
    """
    found: list[dict[str, float]] = [{} for _ in judged]
    for domain, by_split in tokens.streams.items():
        alone = replace(tokens, streams={domain: by_split}, mixture={domain: 1.0})
        for bits, of_domain in zip(found, ngram_bits_per_byte(alone, None, judged), strict=True):
            bits |= of_domain.bigram
    return found


def _judge(table: BigramTable, tokens: Tokens, windows: HeldOutWindows) -> NgramBits:
    unigram, bigram = {}, {}
    for domain in tokens.domains:
        batched = held_out(tokens, domain=domain, batch=64, **asdict(windows))
        bytes_, nats_1, nats_2 = 0, 0.0, 0.0
        for ids_BT, targets_BT in batched:
            first_n, second_n = ids_BT.numpy().ravel(), targets_BT.numpy().ravel()
            bytes_ += batches.text_bytes(tokens, targets_BT)
            nats_1 -= float(np.log(table.unigram(second_n)).sum())
            nats_2 -= float(np.log(table.bigram(first_n, second_n)).sum())
        unigram[domain] = bits_per_byte(nats=nats_1, n_bytes=bytes_)
        bigram[domain] = bits_per_byte(nats=nats_2, n_bytes=bytes_)
    return NgramBits(unigram=unigram, bigram=bigram)


def _all_pairs(tokens: Tokens) -> Iterator[Pairs]:
    for domain in tokens.domains:
        ids = tokens.stream(Split.TRAIN, domain).ids
        for start in range(0, len(ids) - 1, CHUNK_TOKENS):
            part = ids[start : start + CHUNK_TOKENS + 1].astype(np.int64)
            yield part[:-1], part[1:]


def _window_pairs(tokens: Tokens, windows: TrainWindows) -> Iterator[Pairs]:
    steps_at_once = math.ceil(CHUNK_TOKENS / (windows.batch * windows.length))
    for start in range(0, windows.steps, steps_at_once):
        steps = range(start, min(start + steps_at_once, windows.steps))
        drawn = [
            train_batch(
                tokens, seed=windows.seed, step=step, batch=windows.batch, length=windows.length
            )
            for step in steps
        ]
        ids_BT, targets_BT = (np.concatenate(part) for part in zip(*drawn, strict=True))
        yield ids_BT.ravel(), targets_BT.ravel()


def _folder(tokens: Tokens) -> Path:
    name = hashlib.sha256(f"{tokens.text_sha256} {tokens.tokenizer_sha256}".encode()).hexdigest()
    return cache_folder() / "baselines" / name


def _key(tokens: Tokens, counted: TrainWindows | None, judged: HeldOutWindows) -> str:
    """Return a hash of all that decides the figures, besides the text and its tokenizer."""
    identity: dict[str, Any] = {
        "counted": None if counted is None else {**asdict(counted), "mixture": tokens.mixture},
        "judged": asdict(judged),
        "domains": tokens.domains,
        "code": _code_sha256(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@cache
def _code_sha256() -> str:
    files = [Path(__file__), Path(str(batches.__file__))]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _kept(paths: Sequence[Path]) -> list[NgramBits] | None:
    """Return the tables of all files, or None where a file is missing or broken."""
    try:
        return [NgramBits(**read_manifest(path)) for path in paths]
    except FileNotFoundError:
        return None
    except BrokenCache as problem:
        log.warning("%s; counting it again", problem)
        return None
