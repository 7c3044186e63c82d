"""The tokenizer decodes what it encoded, counts its bytes and is made of the train split alone."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.trial.data import tokenizer
from sweeps.trial.data.batches import text_bytes
from sweeps.trial.data.documents import Split, split_by_group
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.tokenizer import MIN_VOCAB, SEPARATOR, SEPARATOR_ID, ByteBPE
from sweeps.trial.data.user_text import read_file
from tests.data.samples import VOCAB, words


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_decoding_what_was_encoded_gives_the_text(web, text):
    assert web.tokenizer.decode(web.tokenizer.encode(text)) == text


@settings(deadline=None)
@given(st.text())
def test_bytes_of_tokens_add_up_to_the_bytes_of_their_text(web, text):
    ids = torch.tensor(web.tokenizer.encode(text), dtype=torch.int64)
    assert text_bytes(web, ids) == len(text.encode())


def test_a_text_that_quotes_the_separator_does_not_end_a_document(web):
    ids = web.tokenizer.encode(f"a{SEPARATOR}b")
    assert SEPARATOR_ID not in ids
    assert web.tokenizer.decode(ids) == f"a{SEPARATOR}b"


def test_vocab_and_separator_of_the_tokenizer(web):
    assert web.vocab == VOCAB == len(web.bytes_per_token_V)
    assert web.tokenizer.decode([SEPARATOR_ID]) == SEPARATOR
    assert web.bytes_per_token_V[SEPARATOR_ID] == 0
    assert Counter(web.bytes_per_token_V.tolist())[1] == 256


def test_the_same_text_gives_the_same_tokenizer_whatever_the_order_and_threads(monkeypatch):
    texts = words(300)
    first = tokenizer.train(texts, VOCAB)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert tokenizer.train(texts[::-1], VOCAB).sha256 == first.sha256
    assert tokenizer.train(words(300, seed=1), VOCAB).sha256 != first.sha256
    assert ByteBPE(first.json_text).encode(texts[0]) == first.encode(texts[0])


@pytest.mark.parametrize("vocab", [0, MIN_VOCAB - 1, 4096.0])
def test_a_wrong_vocab_is_refused(small, vocab):
    with pytest.raises(ValueError, match=r"at least 257 .*got"):
        open_tokens(small, vocab)


def test_too_little_text_for_the_vocab_says_how_many_tokens_it_gives(small):
    with pytest.raises(ValueError, match=r"vocab=5000 is too large for .* which give \d+ tokens"):
        open_tokens(small, 5000)


def test_the_tokenizer_is_trained_on_train_alone(tmp_path, small):
    tokens = open_tokens(small, VOCAB)
    train = [d.text for d in split_by_group(list(read_file(small)))[Split.TRAIN]]
    assert tokenizer.train(train, VOCAB).sha256 == tokens.tokenizer_sha256
