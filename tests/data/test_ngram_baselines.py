"""N-gram tables: counted on what is said, judged on what the model is judged on, counted once."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sweeps.trial.data import ngram_baselines
from sweeps.trial.data.batches import HeldOutWindows, held_out, train_batch
from sweeps.trial.data.documents import Split
from sweeps.trial.data.ngram_baselines import (
    DISCOUNT,
    BigramTable,
    TrainWindows,
    ngram_bits_per_byte,
)
from tests.data.samples import never

TEST = HeldOutWindows(split=Split.TEST, length=32, limit_tokens=None)
VALID = HeldOutWindows(split=Split.VALID, length=16, limit_tokens=1600)
TRAIN = TrainWindows(seed=3, steps=5, batch=4, length=16)


def pairs(*tokens: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array(tokens)
    return ids[:-1], ids[1:]


def bits_by_hand(seen: list[tuple[int, int]], judged: list[tuple[int, int]], vocab: int) -> float:
    """The bigram written out as its formula is, one pair at a time."""
    both, first = Counter(seen), Counter(v for v, _ in seen)
    second, followers = Counter(w for _, w in seen), Counter(v for v, _ in set(seen))
    total = 0.0
    for v, w in judged:
        unigram = (second[w] + 1) / (len(seen) + vocab)
        p = unigram
        if first[v]:
            kept = max(both[v, w] - DISCOUNT, 0) / first[v]
            p = kept + DISCOUNT * followers[v] / first[v] * unigram
        total -= math.log2(p)
    return total


def as_pairs(ids_BT, targets_BT) -> list[tuple[int, int]]:
    return list(zip(ids_BT.ravel().tolist(), targets_BT.ravel().tolist(), strict=True))


def test_probabilities_add_up_to_one_after_every_token():
    table = BigramTable(7, [pairs(1, 2, 1, 2, 3, 3), pairs(1, 4, 1)])
    for first in range(7):  # 0, 5 and 6 were never seen
        p_V = table.bigram(np.full(7, first), np.arange(7))
        assert p_V.sum() == pytest.approx(1, abs=1e-12)
        assert (p_V > 0).all()
    assert table.unigram(np.arange(7)).sum() == pytest.approx(1, abs=1e-12)


def test_chunks_count_as_the_whole():
    tokens = np.random.default_rng(0).integers(9, size=200)
    whole = BigramTable(9, [pairs(*tokens)])
    parts = BigramTable(9, [pairs(*tokens[:77]), pairs(*tokens[76:150]), pairs(*tokens[149:])])
    assert np.array_equal(whole.codes_P, parts.codes_P)
    assert np.array_equal(whole.counts_P, parts.counts_P)
    assert whole.counts_P.sum() == 199


def test_a_table_of_nothing_guesses_evenly():
    table = BigramTable(4, [])
    assert table.bigram(np.array([2]), np.array([1])).tolist() == [0.25]


def test_the_table_of_all_training_text_is_that_of_the_formula(two_domains, monkeypatch):
    monkeypatch.setattr(ngram_baselines, "CHUNK_TOKENS", 100_000)  # several chunks
    (found,) = ngram_bits_per_byte(two_domains, None, [VALID])
    seen = []
    for domain in two_domains.domains:
        ids = two_domains.stream(Split.TRAIN, domain).ids.astype(int)
        seen += as_pairs(ids[:-1], ids[1:])
    for domain in two_domains.domains:
        judged = [
            pair
            for ids, targets in held_out(
                two_domains, split=Split.VALID, domain=domain, length=16, batch=8, limit_tokens=1600
            )
            for pair in as_pairs(ids, targets)
        ]
        assert len(judged) == 1600
        n_bytes = sum(int(two_domains.bytes_per_token_V[w]) for _, w in judged)
        by_hand = bits_by_hand(seen, judged, two_domains.vocab) / n_bytes
        assert found.bigram[domain] == pytest.approx(by_hand, rel=1e-9)
        assert found.bigram[domain] < found.unigram[domain] < 8


def test_the_table_of_windows_is_counted_on_the_windows_of_the_run(web, monkeypatch):
    monkeypatch.setattr(ngram_baselines, "CHUNK_TOKENS", 100)  # two steps a chunk
    (found,) = ngram_bits_per_byte(web, TRAIN, [VALID])
    drawn = (train_batch(web, seed=3, step=step, batch=4, length=16) for step in range(5))
    seen = [pair for ids, targets in drawn for pair in as_pairs(ids, targets)]
    batches = held_out(web, split=Split.VALID, domain="web", length=16, batch=64, limit_tokens=1600)
    judged = [pair for ids, targets in batches for pair in as_pairs(ids, targets)]
    n_bytes = sum(int(web.bytes_per_token_V[w]) for _, w in judged)
    assert found.bigram["web"] == pytest.approx(bits_by_hand(seen, judged, web.vocab) / n_bytes)


def test_more_text_makes_a_better_table(web):
    (few,) = ngram_bits_per_byte(web, TRAIN, [TEST])
    (more,) = ngram_bits_per_byte(web, replace(TRAIN, steps=200), [TEST])
    (all_text,) = ngram_bits_per_byte(web, None, [TEST])
    assert all_text.bigram["web"] < more.bigram["web"] < few.bigram["web"]


def test_a_text_and_a_set_of_windows_are_counted_once(web, monkeypatch):
    cold = ngram_bits_per_byte(web, None, [TEST, VALID])
    monkeypatch.setattr(ngram_baselines, "BigramTable", never)
    monkeypatch.setattr(ngram_baselines, "only_builder", never)  # works from a read-only folder
    assert ngram_bits_per_byte(web, None, [TEST, VALID]) == cold
    assert ngram_bits_per_byte(web, None, [VALID]) == cold[1:]


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"steps": 6}, {"batch": 5}, {"length": 17}],
    ids=lambda change: next(iter(change)),
)
def test_other_windows_are_counted_anew(web, change):
    (one,) = ngram_bits_per_byte(web, TRAIN, [TEST])
    (other,) = ngram_bits_per_byte(web, replace(TRAIN, **change), [TEST])
    assert one.bigram != other.bigram


def test_another_mixture_is_another_set_of_windows(two_domains):
    (one,) = ngram_bits_per_byte(two_domains, TRAIN, [VALID])
    even = replace(two_domains, mixture={"web": 0.5, "mirror": 0.5})
    (other,) = ngram_bits_per_byte(even, TRAIN, [VALID])
    assert one.bigram != other.bigram


def test_a_damaged_entry_is_counted_again(web, cache_folder, caplog):
    cold = ngram_bits_per_byte(web, TRAIN, [TEST])
    (entry,) = (cache_folder / "baselines").rglob("*.json")
    entry.write_bytes(entry.read_bytes()[:-3])
    assert ngram_bits_per_byte(web, TRAIN, [TEST]) == cold
    assert "counting it again" in caplog.text


def test_windows_longer_than_the_text_are_refused(web):
    with pytest.raises(ValueError, match="must be at least 1 and less than"):
        ngram_bits_per_byte(web, None, [replace(TEST, length=10**7)])
