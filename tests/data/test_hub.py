"""Data sets of the Hugging Face hub, on a made-up hub and with the real library."""

import sys
from types import SimpleNamespace

import pytest

from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import HubDataset
from sweeps.trial.data.streams import open_tokens
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
