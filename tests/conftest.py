"""Shared by the tests: a small text of one's own, so that no test waits for the packaged one."""

from pathlib import Path

import pytest

from sweeps.trial.data.sources import TextFile
from tests.text import write_text


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def source(tmp_path_factory, cache_folder, monkeypatch) -> TextFile:
    """A made-up text of about 60 kB, the same for every test of the session."""
    monkeypatch.setenv("HYBRID_CACHE", str(cache_folder))
    path = cache_folder / "tale.txt"
    if not path.exists():
        write_text(path)
    return TextFile(path=str(path))
