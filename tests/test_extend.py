"""docs/extend.md: every patch in it applies to a copy of the checkout, and its tests pass there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeps.trial.data import streams
from tests.text import write_text

ROOT = Path(__file__).parents[1]
NEEDED = ("hybrid", "sweeps", "ablations", "benchmarks", "notebooks", "tests", "docs")
SECTIONS = {
    section.partition("\n")[0]: section
    for section in (ROOT / "docs/extend.md").read_text().split("\n## ")[1:]
}
PATCHED = [title for title, text in SECTIONS.items() if "```diff" in text]


def blocks(section: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the checkout, one for all additions: the kernels are compiled in it once."""
    folder = tmp_path_factory.mktemp("copy")
    for name in NEEDED:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@contextmanager
def applied(patches: list[str], folder: Path) -> Iterator[None]:
    """Apply patches to the folder, and take them back at the end."""
    for patch in patches:
        run(["git", "apply", "-"], folder, patch)
    try:
        yield
    finally:
        for patch in reversed(patches):
            run(["git", "apply", "--reverse", "-"], folder, patch)


def run(words: list[str], folder: Path, text: str = "") -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        words, cwd=folder, env=environment, input=text, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("title", PATCHED)
def test_an_addition_applies_and_passes_its_tests(title, copy):
    (command,) = blocks(SECTIONS[title], "")
    paths = [name for name in NEEDED if name != "docs"]
    with applied(blocks(SECTIONS[title], "diff"), copy):
        said = run([sys.executable, *shlex.split(command)[1:]], copy)
        assert re.search(r"\d+ passed", said)
        run([sys.executable, "-m", "ruff", "check", *paths], copy)
        run([sys.executable, "-m", "ruff", "format", "--check", *paths], copy)


def test_every_addition_is_shown():
    assert len(SECTIONS) == 5
    assert len(PATCHED) == 4


def test_a_source_of_text_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(streams, "READERS", dict(streams.READERS))
    monkeypatch.setattr(streams, "IDENTITIES", dict(streams.IDENTITIES))
    monkeypatch.setenv("HYBRID_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "tale.txt")
    (code,) = blocks(SECTIONS["A source of text"], "python")
    exec(compile(code, "docs/extend.md", "exec"), {"__name__": "extend"})
    assert "lines" in capsys.readouterr().out
