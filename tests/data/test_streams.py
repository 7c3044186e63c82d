"""Streams of tokens by domain and split, and the mixture of domains."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sweeps.trial.data import streams
from sweeps.trial.data.batches import text_bytes
from sweeps.trial.data.documents import Document, Split, split_by_group
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.tokenizer import SEPARATOR, SEPARATOR_ID
from sweeps.trial.data.user_text import read_file
from tests.data.samples import VOCAB, draw, words


def test_streams_hold_every_document_between_separators(small):
    tokens = open_tokens(small, VOCAB)
    for split, members in split_by_group(list(read_file(small))).items():
        stream = tokens.stream(split, "text")
        text = SEPARATOR.join(["", *(document.text for document in members), ""])
        assert tokens.tokenizer.decode(stream.ids.tolist()) == text
        assert stream.documents == len(members) == (stream.ids == SEPARATOR_ID).sum() - 1


def test_the_bytes_of_a_stream_are_those_of_its_tokens(web):
    for split in Split:
        stream = web.stream(split, "web")
        ids = torch.from_numpy(stream.ids.astype(np.int64))
        assert text_bytes(web, ids) == stream.text_bytes
        assert stream.ids.dtype == np.uint16
        assert not stream.ids.flags.writeable


def test_an_unknown_domain_names_the_known_ones(web):
    with pytest.raises(ValueError, match=r"no domain 'books' .* it has \('web',\)"):
        web.stream(Split.TRAIN, "books")


def test_a_source_that_is_none_is_refused():
    with pytest.raises(TypeError, match="PackagedText, PackagedCorpus, TextFile, HubDataset"):
        open_tokens("books", VOCAB)


@pytest.mark.parametrize("mixture", [{}, {"web": 0.5}, {"web": 1.5, "mirror": -0.5}, {"x": 1.0}])
def test_a_mixture_is_shares_of_known_domains(two_domains, mixture):
    with pytest.raises(ValueError, match=r"mixture (must be shares|names)"):
        replace(two_domains, mixture=mixture)


def test_by_default_domains_are_mixed_by_their_bytes(monkeypatch):
    texts = {"books": words(90), "web": words(40, seed=1)}
    fake = [
        Document(domain=domain, source=domain, group=str(number), text=text)
        for domain, members in texts.items()
        for number, text in enumerate(members)
    ]
    monkeypatch.setitem(streams.READERS, PackagedText, lambda source: fake)
    cold = open_tokens(PackagedText(), VOCAB)
    train_bytes = {domain: cold.stream(Split.TRAIN, domain).text_bytes for domain in texts}
    assert cold.mixture == {d: n / sum(train_bytes.values()) for d, n in train_bytes.items()}
    warm = open_tokens(PackagedText(), VOCAB)
    for one, two in zip(*(draw(tokens, step=0, batch=16) for tokens in (cold, warm)), strict=True):
        assert torch.equal(one, two)
