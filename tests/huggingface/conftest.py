"""A checkpoint folder in one file, and one in shards."""

from pathlib import Path

import pytest

from hybrid import huggingface
from tests.huggingface.jambas import HYBRID, ours_of


@pytest.fixture
def folder(tmp_path) -> Path:
    huggingface.save(ours_of(HYBRID), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def sharded(tmp_path) -> Path:
    huggingface.save(ours_of(HYBRID), tmp_path / "sharded", max_shard_bytes=10_000)
    return tmp_path / "sharded"
