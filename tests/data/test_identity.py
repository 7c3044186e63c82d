"""The identity of a text: its content, whatever its place, its name and its format."""

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hybrid import codec
from hybrid.spec import MLP, Layer, Mamba, ModelSpec
from sweeps.trial.checkpoint import Checkpoints
from sweeps.trial.data import streams
from sweeps.trial.data.sources import HubDataset, PackagedText, Source, TextFile
from sweeps.trial.data.streams import OtherText, content_of, open_tokens, pinned
from sweeps.trial.data.user_text import cut_at_paragraphs
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Label
from sweeps.trial.run import run, run_id
from tests.data.samples import VOCAB, never, words

LAYER = Layer(mixer=Mamba(), feed_forward=MLP(hidden=16))
SPEC = ModelSpec(vocab=VOCAB, width=16, layers=(LAYER,))


def id_on(source: Source) -> str:
    return run_id(SPEC, recipe_on(source), label=Label(), engine=Engine(device="cpu"))


def recipe_on(source: Source) -> Recipe:
    return Recipe(source=source, steps=4, batch=2, tokens=16, lr=1e-3, contexts=(8,))


def text_of(seed: int) -> str:
    """Return a text whose parts are the documents of every format below."""
    return "\n\n".join(words(60, seed))


def parts_of(seed: int) -> list[str]:
    return list(cut_at_paragraphs(text_of(seed)))


def as_txt(path: Path, seed: int) -> Source:
    path.with_suffix(".txt").write_text(text_of(seed))
    return TextFile(path=str(path.with_suffix(".txt")))


def as_jsonl(path: Path, seed: int) -> Source:
    lines = [json.dumps({"text": part}) for part in parts_of(seed)]
    path.with_suffix(".jsonl").write_text("\n".join(lines))
    return TextFile(path=str(path.with_suffix(".jsonl")))


def as_another_field(path: Path, seed: int) -> Source:
    lines = [json.dumps({"body": part, "text": "x"}) for part in parts_of(seed)]
    path.with_suffix(".jsonl").write_text("\n".join(lines))
    return TextFile(path=str(path.with_suffix(".jsonl")), text_field="body")


def as_parquet(path: Path, seed: int) -> Source:
    pd.DataFrame({"text": parts_of(seed)}).to_parquet(path.with_suffix(".parquet"))
    return TextFile(path=str(path.with_suffix(".parquet")))


def as_folder(path: Path, seed: int) -> Source:
    path.mkdir(exist_ok=True)
    for number, part in enumerate(parts_of(seed)):
        (path / f"{number:03d}.txt").write_text(part)
    return TextFile(path=str(path))


def as_data_set(path: Path, seed: int) -> Source:
    pytest.importorskip("datasets", reason="the optional library datasets is not installed")
    path.mkdir(exist_ok=True)
    pd.DataFrame({"text": parts_of(seed)}).to_parquet(path / "train.parquet")
    return HubDataset(name=str(path))


FORMATS = [as_txt, as_jsonl, as_another_field, as_parquet, as_folder, as_data_set]


@pytest.mark.parametrize("write", FORMATS)
def test_one_content_is_one_experiment_in_every_format(tmp_path, write):
    assert id_on(write(tmp_path / "mine", 0)) == id_on(as_txt(tmp_path / "other", 0))


@pytest.mark.parametrize("write", FORMATS)
def test_another_content_under_the_old_name_is_another_experiment(tmp_path, write):
    before = id_on(write(tmp_path / "mine", 0))
    assert before != id_on(write(tmp_path / "mine", 1))
    assert before == id_on(write(tmp_path / "mine", 0))


def spellings(path: Path, folder: Path) -> list[str]:
    link, linked = folder / "link.txt", folder / "linked"
    link.symlink_to(path)
    linked.symlink_to(path.parent)
    relative = os.path.relpath(path)
    return [str(path), relative, f"./{relative}", str(link), str(linked / path.name)]


def test_every_spelling_of_a_path_is_one_pinned_source(tmp_path, monkeypatch):
    source = as_txt(tmp_path / "mine", 0)
    monkeypatch.chdir(tmp_path)
    found = {pinned(TextFile(path=spelled)) for spelled in spellings(Path(source.path), tmp_path)}
    assert found == {pinned(source)}
    assert Path(found.pop().path).is_absolute()


def test_a_folder_is_one_with_and_without_a_stroke_at_its_end(tmp_path):
    source = as_folder(tmp_path / "mine", 0)
    assert pinned(source) == pinned(replace(source, path=f"{source.path}/"))


def test_a_pinned_source_is_data_that_a_job_can_hold(tmp_path):
    source = pinned(as_jsonl(tmp_path / "mine", 0))
    assert codec.loads(Source, codec.dumps(source)) == source
    assert pinned(source) is source


@pytest.mark.parametrize("wrong", ["", "abc", "G" * 64, 7])
def test_what_is_no_sha256_is_refused(wrong):
    with pytest.raises(ValueError, match="text_sha256 must be 64 hexadecimal digits"):
        TextFile(path="a.txt", text_sha256=wrong)


def test_the_order_of_packaged_domains_is_no_part_of_the_identity():
    one, other = PackagedText(domains=("books", "web")), PackagedText(domains=("web", "books"))
    assert id_on(one) == id_on(other) != id_on(PackagedText())


def test_the_default_text_is_identified_as_the_committed_records_are():
    assert content_of(PackagedText()) == codec.encode(PackagedText())


def test_tokens_of_a_pinned_text_need_no_file_once_they_are_cached(tmp_path, monkeypatch):
    source = pinned(as_txt(tmp_path / "mine", 0))
    tokens = open_tokens(source, VOCAB)
    assert tokens.text_sha256 == source.text_sha256
    Path(source.path).unlink()
    monkeypatch.setitem(streams.READERS, TextFile, never)
    assert open_tokens(source, VOCAB).tokenizer_sha256 == tokens.tokenizer_sha256


def test_a_pinned_source_is_never_read_as_another_text(tmp_path, cache_folder):
    source = pinned(as_txt(tmp_path / "mine", 0))
    as_txt(tmp_path / "mine", 1)
    with pytest.raises(OtherText, match=r"mine\.txt holds another text here"):
        open_tokens(source, VOCAB)
    assert not list(cache_folder.rglob("*.npy"))


def test_a_run_does_not_go_on_from_a_checkpoint_of_another_text(tmp_path):
    path, here = tmp_path / "mine", Checkpoints(folder=tmp_path / "here", every_seconds=0)

    def stop(event: object) -> None:
        if getattr(event, "step", 0) == 2:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run(SPEC, recipe_on(as_txt(path, 0)), checkpoints=here, watch=stop)
    again = run(SPEC, recipe_on(as_txt(path, 0)), checkpoints=here, watch=lambda event: None)
    assert again.resumed_steps == [3]
    assert run(SPEC, recipe_on(as_txt(path, 1)), checkpoints=here).resumed_steps == []
