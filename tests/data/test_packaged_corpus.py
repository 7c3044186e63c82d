"""The corpus: which files are read, in which order, into which split, and what is refused."""

import hashlib
import re
import tomllib
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hybrid import codec
from sweeps.trial.data import packaged_corpus, streams
from sweeps.trial.data.documents import Document, Split
from sweeps.trial.data.packaged_corpus import (
    CODE,
    CodePackage,
    mixture,
    read_code,
    read_corpus,
    split_corpus,
    tokenizer_sample,
)
from sweeps.trial.data.packages import PACKAGES
from sweeps.trial.data.shared_lines import shared_share
from sweeps.trial.data.sources import CORPUS_DOMAINS, EDITION, PackagedCorpus, PackagedText
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.recipe import Recipe
from tests.data.samples import ROOT, words

PINS = [*PACKAGES, *CODE]


def install(folder: Path, files: dict[str, str], name: str = "demo", version: str = "1.0") -> None:
    """Write a package as pip leaves it: its files, its metadata and the list of both."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))


def demo(domain: str = "code", split: Split = Split.TRAIN, name: str = "demo") -> CodePackage:
    return CodePackage(domain=domain, split=split, distribution=name, version="1.0", folder=name)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def test_a_document_is_a_file_that_the_package_lists_as_its_own(site):
    install(
        site,
        {
            "demo/b.py": "b = one",
            "demo/a.py": "def a():\n    return 2  \n",
            "demo/empty.py": "\n",
            "demo/__config__.py": "machine = 'this one'",
            "demo/table.py": "t = [1234567890, 1234567890]",
            "demo/data.txt": "no source",
            "../../bin/demo": "no source",
            "other/c.py": "c = 3",
        },
    )
    (site / "demo" / "stray.py").write_text("somebody = 'put this here'")
    found = [(x.domain, x.source, x.group, x.text) for x in read_code(demo())]
    assert found == [
        ("code", "demo", "demo/a.py", "def a():\n    return 2"),
        ("code", "demo", "demo/b.py", "b = one"),
    ]


def test_a_long_document_is_a_subpackage_with_each_module_before_its_tests(site):
    names = ["_ab.py", "b.py", "tests/test_b.py", "tests/test_ab.py", "deep/c.py", "__init__.py"]
    install(site, {f"demo/one/{name}": f"x = '{name}'" for name in names} | {"demo/top.py": "y"})
    top, one = read_code(demo("code_long"))
    assert (top.group, top.text) == ("demo", "# demo/top.py\ny")
    assert one.group == "demo/one"
    assert re.findall("^# demo/one/(.*)$", one.text, re.MULTILINE) == [
        "_ab.py",
        "tests/test_ab.py",
        "b.py",
        "tests/test_b.py",
        "__init__.py",
        "deep/c.py",
    ]
    assert "# demo/one/_ab.py\nx = '_ab.py'\n\n\n# demo/one/tests/test_ab.py\n" in one.text


def test_a_package_without_sources_says_how_to_get_them(site):
    install(site, {"elsewhere/a.py": "a"})
    with pytest.raises(FileNotFoundError, match=r"no Python sources in demo/: pip install .*==1.0"):
        list(read_code(demo()))


def test_one_command_mends_all_packages_of_the_wrong_version(site, monkeypatch):
    install(site, {"demo/a.py": "a"}, version="0.9")
    install(site, {"other/a.py": "a"}, name="other", version="1.0")
    wanted = (demo(), demo(name="other"), replace(demo(), domain="code_long", version="2"))
    monkeypatch.setattr(packaged_corpus, "CODE", wanted)
    with pytest.raises(ValueError, match=r"demo==1.0 \(here: 0.9\): pip install demo==1.0$"):
        next(read_corpus(PackagedCorpus(domains=("code",))))
    absent = (*wanted, demo(name="absent"))
    monkeypatch.setattr(packaged_corpus, "CODE", absent)
    with pytest.raises(ModuleNotFoundError, match=r"none\): pip install demo==1.0 absent==1.0$"):
        next(read_corpus(PackagedCorpus(domains=("code",))))


def test_code_is_split_by_package_and_prose_as_before(monkeypatch):
    table = tuple(demo(split=split, name=f"for_{split}") for split in Split)
    monkeypatch.setattr(packaged_corpus, "CODE", table)
    code = [
        Document(domain="code", source=f"for_{split}", group=f"{number}", text=f"{split} {text}")
        for split in Split
        for number, text in enumerate(words(3))
    ]
    prose = [
        Document(domain="web", source="wiki", group=str(number), text=text)
        for number, text in enumerate(words(60, seed=1))
    ]
    splits = split_corpus([*code, *prose])
    for split in Split:
        assert {x.source for x in splits[split]} == {f"for_{split}", "wiki"}
    before = streams.PLAIN.split(prose)
    assert [x for x in splits[Split.TEST] if x.domain == "web"] == before[Split.TEST]


def test_the_split_of_the_corpus_leaks_no_long_line(monkeypatch):
    monkeypatch.setattr(packaged_corpus, "CODE", (demo(), demo(split=Split.TEST, name="held")))
    licence = "This is the licence of two packages, which is longer than fifty characters."
    documents = [
        Document(domain="code", source=source, group="a.py", text=f"{licence}\n{source} = 1")
        for source in ("demo", "held")
    ]
    splits = split_corpus(documents)
    assert [x.text for x in splits[Split.TRAIN]] == ["demo = 1"]
    assert splits[Split.TEST] == documents[1:]


def test_the_tokenizer_reads_as_much_of_each_domain(monkeypatch):
    monkeypatch.setattr(packaged_corpus, "TOKENIZER_BYTES", 10_000)
    large = "".join(f"line {number}\n" for number in range(10_000))
    documents = [
        Document(domain=domain, source="s", group="g", text=text)
        for domain, text in (("code", large), ("web", "a\nb"))
    ]
    sample = tokenizer_sample(documents)
    assert sample[-1] == "a\nb"
    assert 5_000 < sum(map(len, sample[:-1])) <= 11_000
    assert "line 9" in "".join(sample[:-1])[-1000:]  # to the end of the text
    assert tokenizer_sample(documents) == sample


def test_small_domains_get_more_windows_than_their_share_of_bytes():
    assert mixture({"web": 1_000_000, "code": 16_000_000}) == {"web": 0.2, "code": 0.8}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"domains": ("poems",)}, r"unknown \['poems'\]"),
        ({"domains": ()}, "at least one name"),
        ({"domains": ("code", "code")}, "twice"),
        ({"edition": EDITION + 1}, f"edition must be {EDITION}"),
        ({"edition": True}, "edition must be"),
    ],
)
def test_a_corpus_that_is_none_is_refused(given, said):
    with pytest.raises(ValueError, match=f"PackagedCorpus.*{said}"):
        PackagedCorpus(**given)


def test_a_recipe_on_the_corpus_is_written_and_read_and_one_on_the_old_text_is_as_it_was():
    recipe = Recipe(source=PackagedCorpus(), steps=1, batch=1, tokens=4, lr=1e-3)
    assert codec.loads(Recipe, codec.dumps(recipe)) == recipe
    assert codec.dumps(PackagedText()) == (
        '{"domains": ["books", "web", "code"], "kind": "PackagedText"}'
    )


def test_pins_are_those_of_constraints_txt():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.lower() for line in lines if not line.startswith("#")}
    assert [p.requirement for p in PINS if p.requirement.lower() not in pinned] == []


def test_every_package_comes_with_the_core_dependencies():
    """So that nobody installs a package for its text, save those that are nothing but text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed, waiting = set(), [Requirement(line) for line in project["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in needed and (
            not requirement.marker or requirement.marker.evaluate({"extra": ""})
        ):
            needed.add(name)
            waiting += [Requirement(line) for line in metadata.requires(name) or []]
    assert {canonicalize_name(p.distribution) for p in PINS} <= needed


def test_each_domain_has_train_valid_and_test():
    for domain in ("code", "code_long"):
        assert {package.split for package in CODE if package.domain == domain} == set(Split)
    assert {p.domain for p in PINS} == set(CORPUS_DOMAINS)
    names = [package.distribution for package in CODE]
    assert len(names) == len(set(names))


def test_another_text_is_another_edition():
    """If this fails, raise EDITION and put the new digest here: the runs are others then."""
    table = "\n".join(f"{p.domain} {p.split} {p.requirement} {p.folder}" for p in CODE)
    assert (EDITION, hashlib.sha256(table.encode()).hexdigest()[:12]) == (1, "3208b2f2b736")


LICENCE_ROW = re.compile(r"^\| (\w+) \| (\w+) \| `([\w-]+)==([\w.]+)` \| ([^|]+) \|$", re.MULTILINE)


def test_licences_in_the_docs_are_those_that_the_packages_state():
    page = (ROOT / "docs" / "text.md").read_text()
    rows = {row[2]: row for row in LICENCE_ROW.findall(page)}
    assert list(rows) == [package.distribution for package in CODE]
    for package in CODE:
        domain, split, _, version, licence = rows[package.distribution]
        assert (domain, split, version) == (package.domain, package.split, package.version)
        assert licence.strip() == stated_licence(package.distribution)


def stated_licence(distribution: str) -> str:
    """Return the licence expression, or the licences among the classifiers, or the first line."""
    found = metadata.metadata(distribution)
    named = [c.split(" :: ")[-1] for c in found.get_all("Classifier", []) if "License ::" in c]
    return found.get("License-Expression") or ", ".join(named) or found["License"].splitlines()[0]


def test_the_sources_of_a_real_package_are_read():
    package = next(p for p in CODE if p.distribution == "Jinja2")
    found = {document.group: document.text for document in read_code(package)}
    assert "jinja2/lexer.py" in found
    assert "class Lexer:" in found["jinja2/lexer.py"]
    assert 400_000 < sum(map(len, found.values())) < 600_000


@pytest.mark.slow  # reads and encodes 60 MB
def test_the_long_code_is_large_and_leaks_nothing():
    source = PackagedCorpus(domains=("code_long",))
    splits = split_corpus(list(read_corpus(source)))
    for split in (Split.VALID, Split.TEST):
        assert shared_share(splits, split) == {"code_long": 0.0}
    tokens = open_tokens(source, 2048)
    assert tokens.stream(Split.TRAIN, "code_long").tokens > 15_000_000
    assert tokens.stream(Split.TRAIN, "code_long").documents < 200
