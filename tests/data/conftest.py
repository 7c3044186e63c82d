"""Texts and tokens that the tests of the data room share; each is built once."""

from dataclasses import replace

import pytest

from sweeps.trial.data.sources import PackagedText
from sweeps.trial.data.streams import open_tokens
from tests.data.samples import VOCAB, words, write_jsonl


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HYBRID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    """Real text, tokenized; one build for every test that only reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_CACHE", str(tmp_path_factory.mktemp("web")))
        yield open_tokens(PackagedText(domains=("web",)), VOCAB)


@pytest.fixture(scope="session")
def two_domains(web):
    """As if the source had two domains, the first with three quarters of the windows."""
    by_split = web.streams["web"]
    other = {split: replace(stream, ids=stream.ids[::-1]) for split, stream in by_split.items()}
    return replace(
        web, streams={"web": by_split, "mirror": other}, mixture={"web": 0.75, "mirror": 0.25}
    )


@pytest.fixture
def small(tmp_path):
    return write_jsonl(tmp_path / "small.jsonl", words(100))
