"""Batches as a function of seed and step, held-out windows of a whole split, bits per byte."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from sweeps.trial.data.batches import bits_per_byte, held_out, text_bytes
from sweeps.trial.data.documents import Split
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.tokenizer import MIN_VOCAB
from tests.data.samples import VOCAB, draw, write_jsonl


def test_a_batch_is_a_function_of_seed_and_step_only(two_domains):
    forward = [draw(two_domains, step=step) for step in range(4)]
    torch.manual_seed(1)
    np.random.seed(1)  # the global generators must have no effect
    for step in (3, 0, 2, 1):
        again = draw(two_domains, step=step)
        assert all(map(torch.equal, again, forward[step]))


def test_other_steps_and_other_seeds_see_other_windows(web):
    drawn = [draw(web, seed=seed, step=step)[0] for seed in range(3) for step in range(3)]
    assert len({tuple(ids_BT.flatten().tolist()) for ids_BT in drawn}) == 9


def test_targets_are_ids_moved_by_one_and_from_train(web):
    train = web.stream(Split.TRAIN, "web").ids.astype(np.uint16).tobytes()
    ids_BT, targets_BT = draw(web)
    assert ids_BT.dtype == targets_BT.dtype == torch.int64
    assert ids_BT.shape == targets_BT.shape == (4, 16)
    for ids_T, targets_T in zip(ids_BT, targets_BT, strict=True):
        assert torch.equal(ids_T[1:], targets_T[:-1])
        window = np.array([*ids_T.tolist(), targets_T[-1].item()], np.uint16)
        assert window.tobytes() in train


def test_windows_reach_the_first_and_the_last_token(small):
    tokens = open_tokens(small, VOCAB)
    n_tokens = tokens.stream(Split.TRAIN, "text").tokens
    short = replace(tokens.stream(Split.TRAIN, "text"), ids=np.arange(12, dtype=np.uint16))
    tiny = replace(tokens, streams={"text": {Split.TRAIN: short}})
    ids_BT, targets_BT = draw(tiny, batch=200, length=8)
    assert set(ids_BT[:, 0].tolist()) == {0, 1, 2, 3}
    assert targets_BT.max() == 11
    assert draw(tokens, batch=1, length=n_tokens - 1)[0].shape == (1, n_tokens - 1)


def test_domains_come_in_the_shares_of_the_mixture(two_domains):
    marked = {
        domain: {Split.TRAIN: replace(by_split[Split.TRAIN], ids=np.full(50, mark, np.uint16))}
        for mark, (domain, by_split) in enumerate(two_domains.streams.items())
    }
    ids_BT, _ = draw(replace(two_domains, streams=marked), batch=4_000)
    assert ids_BT[:, 0].double().mean().item() == pytest.approx(0.25, abs=0.03)
    alone = replace(two_domains, streams=marked, mixture={"mirror": 1.0})
    assert draw(alone, batch=50)[0].unique().tolist() == [1]


@pytest.mark.parametrize("length", [0, 10**9])
def test_a_window_that_does_not_fit_is_refused(web, length):
    with pytest.raises(ValueError, match=r"length=\d+ must be at least 1 and less than the \d+"):
        draw(web, length=length)
    with pytest.raises(ValueError, match="valid of domain 'web'"):
        held_out(web, split=Split.VALID, domain="web", length=length, batch=1)


# Held-out windows


def starts(tokens, *, length, batch=3, limit_tokens=None):
    """Where windows start, from a stream that counts up."""
    stream = tokens.stream(Split.VALID, "web")
    counting = replace(stream, ids=np.arange(1_001, dtype=np.uint16))
    counted = replace(tokens, streams={"web": {Split.VALID: counting}})
    batches = held_out(
        counted,
        split=Split.VALID,
        domain="web",
        length=length,
        batch=batch,
        limit_tokens=limit_tokens,
    )
    found = []
    for ids_BT, targets_BT in batches:
        assert len(ids_BT) <= batch
        for ids_T, targets_T in zip(ids_BT, targets_BT, strict=True):
            assert ids_T.tolist() == list(range(ids_T[0], ids_T[0] + len(ids_T)))
            assert len(ids_T) == length or limit_tokens is None
            assert torch.equal(targets_T, ids_T + 1)
            found.append(ids_T[0].item())
    return found


@pytest.mark.parametrize("length", [1, 7, 100, 333, 1_000])
@pytest.mark.parametrize("limit_tokens", [1_000, 10**6])
def test_held_out_windows_take_all_of_a_split_without_overlap(web, length, limit_tokens):
    found = starts(web, length=length, limit_tokens=limit_tokens)
    assert len(found) == 1_000 // length
    assert all(second - first >= length for first, second in pairwise(found))


@pytest.mark.parametrize("length", [1, 7, 100, 333, 1_000])
def test_without_a_limit_every_token_is_predicted_once(web, length):
    assert starts(web, length=length) == list(range(0, 1_000, length))


@pytest.mark.parametrize("length", [33, 256])
def test_without_a_limit_all_bytes_of_a_split_count(web, length):
    for split in Split:
        found = held_out(web, split=split, domain="web", length=length, batch=3)
        n_bytes = sum(text_bytes(web, targets_BT) for _, targets_BT in found)
        assert n_bytes == web.stream(split, "web").text_bytes


def test_few_held_out_windows_are_spread_evenly(web):
    assert starts(web, length=100, limit_tokens=499) == [0, 250, 500, 750]


def test_held_out_windows_do_not_depend_on_the_batch(web):
    assert starts(web, length=7, batch=1) == starts(web, length=7, batch=64)


@pytest.mark.parametrize("wrong", [{"limit_tokens": 15}, {"batch": 0}])
def test_held_out_without_a_whole_window_is_refused(web, wrong):
    with pytest.raises(ValueError, match="batch >= 1 and limit_tokens >= length"):
        held_out(web, **{"split": Split.TEST, "domain": "web", "length": 16, "batch": 1, **wrong})


# Bits per byte


def test_bits_per_byte_of_a_uniform_model_by_hand(tmp_path):
    """Without merges each token is a byte: log2(V) bits a byte, and a separator's on top."""
    source = write_jsonl(tmp_path / "hand.jsonl", ["abcd" * 5, "efgh" * 5, "ijkl" * 5])
    tokens = open_tokens(source, MIN_VOCAB)
    (batch,) = held_out(tokens, split=Split.TEST, domain="text", length=21, batch=1)
    n_bytes = text_bytes(tokens, batch[1])
    assert n_bytes == 20
    nats = 21 * math.log(257)
    assert bits_per_byte(nats=nats, n_bytes=n_bytes) == pytest.approx(21 * math.log2(257) / 20)


def test_bits_per_byte_counts_exactly_the_predicted_text(web):
    for _, targets_BT in held_out(
        web, split=Split.VALID, domain="web", length=64, batch=4, limit_tokens=1024
    ):
        texts = [web.tokenizer.decode([i for i in row if i]) for row in targets_BT.tolist()]
        if any("�" in text for text in texts):  # a window that ends inside a character
            continue
        assert text_bytes(web, targets_BT) == sum(len(text.encode()) for text in texts)


def test_bits_per_byte_of_no_text_is_refused():
    with pytest.raises(ValueError, match="n_bytes=0"):
        bits_per_byte(nats=1.0, n_bytes=0)
