"""A user's own text in each of its forms, and what is wrong with it said with its place."""

import gzip

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweeps.trial.data import user_text
from sweeps.trial.data.batches import train_batch
from sweeps.trial.data.sources import TextFile
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.user_text import MIN_PIECE_BYTES, cut_at_paragraphs
from tests.data.samples import VOCAB, a_parquet, words, write_jsonl


def a_txt(path):
    path.write_text("\n\n".join(words(100)), encoding="utf-8-sig")


def a_jsonl(path):
    write_jsonl(path, words(100))


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
    assert tokens.domains == ("text",)
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
        ("a.txt", b"one paragraph", "text", r"text: 1 distinct document group.*at least three"),
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


def torn_parquet(path):
    """Write a file whose pages are damaged while its footer is whole."""
    pd.DataFrame({"text": [f"some text {i}" for i in range(999)]}).to_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)


def bytes_as_text(path):
    """Write a column of strings that are not UTF-8."""
    strings = pa.Array.from_buffers(
        pa.string(), 1, pa.array([b"caf\xe9"], type=pa.binary()).buffers()
    )
    pq.write_table(pa.table({"text": strings}), path)


@pytest.mark.parametrize(
    ("name", "write", "vocab", "must_say", "must_not_say"),
    [
        ("a.parquet", torn_parquet, VOCAB, "not a whole Parquet file", None),
        ("a.parquet", bytes_as_text, VOCAB, "not a whole Parquet file", None),
        ("a.jsonl", lambda p: p.write_text('{"text": "a"}\n{"text": ' + "9" * 5000 + "}"), VOCAB,
         "a.jsonl line 2: not JSON that can be read", None),
        ("a.jsonl", lambda p: p.write_text('{"text": "a"}\n' + "[" * 100_000), VOCAB,
         "a.jsonl line 2: not JSON that can be read", None),
        ("a.jsonl", lambda p: p.write_bytes(gzip.compress(b'{"text": "a"}')), VOCAB,
         "the file is compressed; unpack it first, with gzip -d", "iconv"),
        ("a.txt", lambda p: p.write_bytes("some text".encode("utf-16")), VOCAB,
         "convert it with iconv -f utf-16 -t utf-8", None),
        ("a", lambda p: (p / "inner.txt").mkdir(parents=True), VOCAB,
         "the folder has no .txt file in it", "IsADirectory"),
        ("a.txt", lambda p: p.write_text("\n\n".join(words(100))), 4096,
         "ModelSpec.vocab), or give more text", None),
        ("a.txt", lambda p: p.write_text("one paragraph"), VOCAB, "at least three", None),
    ],
)  # fmt: skip
def test_every_refusal_of_a_text_names_its_file(
    tmp_path, monkeypatch, name, write, vocab, must_say, must_not_say
):
    monkeypatch.setenv("HYBRID_CACHE", str(tmp_path / "cache"))
    write(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        open_tokens(TextFile(path=str(tmp_path / name)), vocab)
    assert str(tmp_path / name) in str(refused.value)
    assert must_say in str(refused.value)
    assert must_not_say is None or must_not_say not in str(refused.value)


def test_whatever_class_a_library_raises_the_file_is_named(tmp_path, monkeypatch):
    class OfALibrary(Exception):
        pass

    def broken(*_, **__):
        raise OfALibrary("no such codec")

    a_parquet(tmp_path / "a.parquet")
    a_txt(tmp_path / "a.txt")
    monkeypatch.setattr(pq.ParquetFile, "read", broken)
    monkeypatch.setattr(user_text, "cut_at_paragraphs", broken)
    for name in ("a.parquet", "a.txt"):
        with pytest.raises(ValueError, match=rf"{name}: .*OfALibrary: no such codec"):
            list(user_text.read_file(TextFile(path=str(tmp_path / name))))
