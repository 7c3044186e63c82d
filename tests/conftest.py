"""Shared by the tests: a small text of one's own, and servers of one's own (mark `service`)."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.trial.data.sources import TextFile
from tests import services, trained
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


@pytest.fixture(scope="session")
def kept(tmp_path_factory, cache_folder) -> Path:
    """Results with one run that kept its weights and one that did not."""
    path, folder = cache_folder / "tale.txt", tmp_path_factory.mktemp("kept")
    if not path.exists():
        write_text(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_CACHE", str(cache_folder))
        trained.train(TextFile(path=str(path)), folder, steps=20, keep_weights=True)
        trained.train(TextFile(path=str(path)), folder, steps=2, keep_weights=False)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[services.Postgres]:
    """A PostgreSQL of the session's own; a test that stops it starts it again."""
    if services.find_postgres() is None:
        pytest.skip(services.HOW_TO_INSTALL)
    # Not pytest's own folder, which only its owner may enter: the server runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    folder.chmod(0o755)
    try:
        with services.postgres(folder / "cluster") as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database(postgres: services.Postgres) -> str:
    """The URL of the session's own database; tests differ in the names of their studies."""
    return postgres.new_database("shared")


@pytest.fixture(scope="session")
def proxy(database: str) -> Iterator[services.Proxy]:
    """A proxy before `database`; a test that stops it starts it again."""
    with services.Proxy(database) as running:
        yield running
