"""Data sets of the Hugging Face hub, on a made-up hub and with the real library."""

import sys
from types import SimpleNamespace

import pytest

from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import HubDataset
from sweeps.trial.data.streams import OtherText, open_tokens, pinned
from tests.data.samples import VOCAB, a_parquet, words


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
    fake_revision(monkeypatch, "c0ffee")
    return asked


def fake_revision(monkeypatch, revision, offline=False):
    """Let the hub say that a data set is at `revision` when it is asked for "main"."""

    def dataset_info(name, revision=None):
        return SimpleNamespace(sha=revision or now)

    now = revision
    constants = SimpleNamespace(HF_HUB_OFFLINE=offline)
    hub = SimpleNamespace(HfApi=lambda: SimpleNamespace(dataset_info=dataset_info))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)


def test_a_hub_data_set_end_to_end(monkeypatch):
    asked = fake_hub(monkeypatch, Rows(body=[*words(100), "", " \n"]))
    source = HubDataset(
        name="owner/stories", config="en", split="train[:1%]", text_field="body", revision="abc"
    )
    tokens = open_tokens(pinned(source), VOCAB)
    assert asked[:1] == [(("owner/stories", "en"), {"split": "train[:1%]", "revision": "abc"})]
    assert tokens.domains == ("text",)
    assert sum(tokens.stream(split, "text").documents for split in Split) == 100
    before = len(asked)
    open_tokens(pinned(tokens.source), VOCAB)
    assert len(asked) == before


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


def test_a_hub_data_set_is_pinned_to_the_revision_and_the_content_of_the_moment(monkeypatch):
    source = HubDataset(name="owner/stories")
    fake_hub(monkeypatch, Rows(text=words(100)))
    first = pinned(source)
    assert first.revision == "c0ffee"
    assert pinned(first) == first
    fake_hub(monkeypatch, Rows(text=words(100, seed=1)))
    assert pinned(source).text_sha256 != first.text_sha256
    with pytest.raises(OtherText, match="owner/stories holds another text here"):
        open_tokens(first, VOCAB)


@pytest.mark.parametrize("revision", [None, "v2"])
def test_offline_a_revision_stays_as_it_was_given(monkeypatch, revision):
    fake_hub(monkeypatch, Rows(text=words(100)))
    fake_revision(monkeypatch, "c0ffee", offline=True)
    assert pinned(HubDataset(name="owner/stories", revision=revision)).revision == revision


def test_a_hub_that_does_not_answer_is_one_sentence(monkeypatch):
    fake_hub(monkeypatch, Rows(text=words(100)))
    monkeypatch.setattr(sys.modules["huggingface_hub"], "HfApi", lambda: None)
    with pytest.raises(OSError, match=r"does not tell its revision.*HF_HUB_OFFLINE=1"):
        pinned(HubDataset(name="owner/stories"))


def test_the_real_library_reads_a_local_data_set(tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="the optional library datasets is not installed")
    (tmp_path / "stories").mkdir()
    a_parquet(tmp_path / "stories" / "train.parquet")
    tokens = open_tokens(HubDataset(name=str(tmp_path / "stories"), split="train[:90%]"), VOCAB)
    assert sum(tokens.stream(split, "text").documents for split in Split) == 90
