"""The cache of tokens: equal content is one entry; what is damaged or raced is noticed."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sweeps.trial.data import cache, streams
from sweeps.trial.data.sources import TextFile
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.user_text import read_file
from tests.data.samples import ROOT, VOCAB, contents, never, words, write_jsonl


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HYBRID_CACHE")
    assert cache.cache_folder() == tmp_path / "xdg" / "hybrid-workbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "hybrid-workbench"


def test_a_second_start_reads_no_text_and_sees_the_same(small, monkeypatch):
    cold = open_tokens(small, VOCAB)
    monkeypatch.setitem(streams.READERS, TextFile, never)
    monkeypatch.setattr(streams, "only_builder", never)  # so that it works from a read-only folder
    assert contents(open_tokens(small, VOCAB)) == contents(cold)


def test_equal_content_shares_the_cache_whatever_its_time_and_place(small, tmp_path, monkeypatch):
    cold = open_tokens(small, VOCAB)
    moved = tmp_path / "elsewhere" / "small.jsonl"
    moved.parent.mkdir()
    moved.write_bytes(Path(small.path).read_bytes())
    os.utime(moved, (1, 1))
    monkeypatch.setitem(streams.READERS, TextFile, never)
    assert contents(open_tokens(TextFile(path=str(moved)), VOCAB)) == contents(cold)


def test_an_edited_file_gives_new_tokens_even_with_its_size_and_time_kept(small):
    before = open_tokens(small, VOCAB)
    path = Path(small.path)
    status = path.stat()
    path.write_text(path.read_text().replace("hybrid", "HYBRID"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = open_tokens(small, VOCAB)
    assert after.text_sha256 != before.text_sha256
    assert after.tokenizer_sha256 != before.tokenizer_sha256


def test_a_file_that_changes_while_it_is_read_is_not_cached(small, monkeypatch, cache_folder):
    def read_and_change(source):
        yield from read_file(source)
        Path(source.path).write_text('{"text": "other"}\n')

    monkeypatch.setitem(streams.READERS, TextFile, read_and_change)
    with pytest.raises(RuntimeError, match="changed while it was read"):
        open_tokens(small, VOCAB)
    assert not list(cache_folder.rglob("manifest.json"))


def test_another_vocab_or_field_is_another_entry(tmp_path):
    path = tmp_path / "two.jsonl"
    rows = [{"text": text, "note": text.upper()} for text in words(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    opened = [
        open_tokens(TextFile(path=str(path), text_field=field), vocab).tokenizer_sha256
        for field, vocab in [("text", 300), ("note", 300), ("text", 301)]
    ]
    assert len(set(opened)) == 3


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
def test_a_damaged_cache_is_noticed_and_built_again(small, cache_folder, damage):
    cold = contents(open_tokens(small, VOCAB))
    paths = sorted((cache_folder / "tokens").glob("*/*.*"))
    assert Counter(path.suffix for path in paths) == {".npy": 3, ".json": 2}
    for path in paths:
        before = path.read_bytes()
        damage(path)
        assert contents(open_tokens(small, VOCAB)) == cold
        assert path.read_bytes() == before


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    cache.write_atomically(path, b"old")
    monkeypatch.setattr(cache.os, "replace", never)
    with pytest.raises(AssertionError):
        cache.write_atomically(path, b"new")
    assert [file.read_bytes() for file in tmp_path.glob("kept*")] == [b"old"]


def test_writers_of_one_file_never_share_a_temporary_one(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(cache.os, "replace", lambda temporary, path: used.append(temporary))
    for _ in range(2):
        cache.write_atomically(tmp_path / "same", b"content")
    assert len(set(used)) == 2
    assert {path.parent for path in used} == {tmp_path}


def test_what_a_killed_builder_left_is_cleared(small, cache_folder):
    open_tokens(small, VOCAB)
    folder = next((cache_folder / "tokens").iterdir())
    (folder / "manifest.json").unlink()
    (folder / "half.npy.123-abc.tmp").write_bytes(b"half")
    open_tokens(small, VOCAB)
    assert not list(folder.glob("*.tmp"))


BUILD_AT_ONCE = """
import contextlib, os, pathlib, sys, time
from sweeps.trial.data import streams
from sweeps.trial.data.sources import TextFile
if {without_lock}:
    @contextlib.contextmanager
    def no_lock(folder):
        folder.mkdir(parents=True, exist_ok=True)
        yield
    streams.only_builder = no_lock
built = []
build = streams._build
def counted(*arguments):
    built.append(1)
    time.sleep(0.2)
    return build(*arguments)
streams._build = counted
here = pathlib.Path({folder!r})
(here / f"ready-{{os.getpid()}}").touch()
while len(list(here.glob("ready-*"))) < 2:
    time.sleep(0.005)
tokens = streams.open_tokens(TextFile(path={path!r}), 300)
sums = [int(stream.ids.sum()) for stream in tokens.streams["text"].values()]
print(len(built), tokens.tokenizer_sha256, sums)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("without_lock", "builds"), [(False, 1), (True, 2)])
def test_two_processes_build_the_same_cache_at_once(tmp_path, without_lock, builds):
    source = write_jsonl(tmp_path / "at_once.jsonl", words(2_000))
    code = BUILD_AT_ONCE.format(without_lock=without_lock, folder=str(tmp_path), path=source.path)
    command = [sys.executable, "-W", "error", "-c", code]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].decode().split(" ", 1) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(int(n_built) for n_built, _ in outputs) == builds
    assert outputs[0][1] == outputs[1][1]
    assert outputs[0][1].split()[0] == open_tokens(source, VOCAB).tokenizer_sha256


def test_building_leaves_no_threads_that_a_fork_could_trip_over(small, monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    open_tokens(small, VOCAB)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    open_tokens(small, VOCAB + 1)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
