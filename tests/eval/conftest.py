"""Made-up records of every benchmark in a folder, and no network."""

import socket
from pathlib import Path

import pytest

from tests import benchmarks


@pytest.fixture
def offline(monkeypatch) -> None:
    def refuse(*_args, **_kwargs):
        raise AssertionError("something tried to reach a network")

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def records(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    benchmarks.write(folder)
    return folder
