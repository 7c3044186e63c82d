"""docs/extend.md: every patch in it applies to a copy of the checkout, and its tests pass there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
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


@pytest.fixture
def copy(tmp_path) -> Path:
    for name in NEEDED:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


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
    for patch in blocks(SECTIONS[title], "diff"):
        run(["git", "apply", "-"], copy, patch)
    (command,) = blocks(SECTIONS[title], "")
    said = run([sys.executable, *shlex.split(command)[1:]], copy)
    assert re.search(r"\d+ passed", said)
    paths = [name for name in NEEDED if name != "docs"]
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
