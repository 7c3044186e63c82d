"""Commands that look make nothing, commands that are refused leave nothing, and paths arrive."""

import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

import ablations.__main__ as ablations_cli
from ablations import catalog
from sweeps import execute, results
from sweeps.command_line import command
from sweeps.study import studies
from sweeps.study.storage import open_storage, parse, shown
from sweeps.trial.data.cache import only_builder
from sweeps.workers import jobs, process, server
from tests import tiny_search, tiny_sweep
from tests.commands import assert_one_sentence, invoke

SWEEP = """\
from dataclasses import replace
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.tasks import Mqar, Probe
from sweeps.trial.recipe import Recipe
from tests.models import SPECS
from tests.tiny_sweep import SWEEP as TINY

PROBE = Probe(task=Mqar(pairs=2), length=16)
SOURCE = Synthetic(tasks=(PROBE.task,), probes=(PROBE,))


def point(arm, seed, steps):
    recipe = Recipe(
        source=SOURCE, steps=steps, batch=2, tokens=16, lr=1e-3, seed=seed, contexts=(8,)
    )
    return SPECS["mixer-mamba"], recipe


SCALES = {"small": 2, "small-long": 4, "my scale": 2}
SWEEP = replace(
    TINY, name="my mini", arms=("a",), seeds=dict.fromkeys(SCALES, (0,)), scales=SCALES, point=point
)
"""


@pytest.fixture
def sweep_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("designs") / "mini.py"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def stand(tmp_path, monkeypatch) -> Path:
    """An empty folder that the command stands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Nothing is made


LOOKS = [
    "status ratio",
    "status ratio --results typo",
    "status ratio --storage sqlite:///study.db",
    "worker ratio-smoke-00000000",
    "worker ratio-smoke-00000000 --results typo",
    "worker ratio-smoke-00000000 --storage sqlite:///study.db",
    "table ratio --results typo",
    "table tradeoff --results typo",
    "plot ratio --results typo",
    "plot tradeoff --results typo",
    "compact ratio --results typo",
]


@pytest.mark.parametrize("look", LOOKS)
def test_a_command_that_looks_makes_nothing(look, stand):
    assert_one_sentence(look, "error: ", stand)


@pytest.mark.parametrize("look", ["list", "judge ratio", "plot ratio"])
def test_looking_at_findings_makes_nothing(look, stand):
    CliRunner().invoke(ablations_cli.app, [*look.split(), "--results", "typo"])
    assert list(stand.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "."])
@pytest.mark.parametrize("command", ["status", "compact"])
def test_a_name_of_another_place_is_refused(command, name, stand):
    assert_one_sentence(f"{command} {name} --results here", "name of the sweep's folder", stand)


@pytest.mark.parametrize("content", [b"", b"no database at all, but more than a few bytes of it"])
def test_a_file_that_holds_no_studies_is_left_as_it_is(content, stand):
    file = stand / "study.db"
    file.write_bytes(content)
    done = invoke(f"status ratio --storage sqlite:///{file}")
    assert done.exit_code == 2
    assert str(file) in " ".join(done.stderr.split())
    assert [file.read_bytes(), *stand.iterdir()] == [content, file]


@pytest.mark.parametrize("design", [tiny_sweep, tiny_search])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"one short line"])
def test_a_text_that_is_refused_leaves_no_study_and_no_lock(
    design, content, stand, tmp_path_factory, monkeypatch
):
    cache = tmp_path_factory.mktemp("own-cache")
    monkeypatch.setenv("HYBRID_CACHE", str(cache))
    monkeypatch.setattr(server, "begin_loading", lambda: None)
    text = tmp_path_factory.mktemp("text") / "my.txt"
    if content is not None:
        text.write_bytes(content)
    call = f"run {design.__file__} --scale smoke --device cpu --text {text} --results results"
    assert_one_sentence(call, "error: ", stand)
    assert list(cache.rglob("lock")) == []


@pytest.mark.parametrize(
    "options", ["--device cuda:99", "--device tpu", "--ops nope", "--storage nope", "--scale nope"]
)
def test_a_finding_that_cannot_run_here_leaves_nothing(options, stand):
    words = ["run", "ratio", "--scale", "smoke", *options.split(), "--results", "results"]
    done = CliRunner().invoke(ablations_cli.app, words)
    assert done.exit_code == 2
    assert list(stand.iterdir()) == []


@pytest.mark.parametrize("options", ["--storage nope", "--device tpu", "--ops nope"])
def test_a_sweep_that_cannot_run_here_leaves_nothing(options, stand):
    assert_one_sentence(f"run ratio --scale smoke {options} --results results", "error: ", stand)


# The lock of the cache


def test_who_waits_for_a_builder_that_fails_builds(tmp_path):
    """Many builders at once, of which all but a few fail: no one finds its folder gone."""

    def fail(folder: Path) -> None:
        assert (folder / "lock").exists()
        raise ValueError("refused")

    def build(number: int) -> bool:
        folder = tmp_path / f"key-{number // 8}"
        with only_builder(folder):
            if number % 8:
                fail(folder)
            (folder / "manifest.json").write_text("built")
        return True

    def outcome(number: int) -> bool:
        try:
            return build(number)
        except ValueError:
            return False

    with ThreadPoolExecutor(16) as pool:
        built = list(pool.map(outcome, range(800)))
    assert [number for number, done in enumerate(built) if done] == list(range(0, 800, 8))
    assert len(list(tmp_path.glob("key-*/manifest.json"))) == 100


def test_a_builder_that_fails_keeps_what_was_built_before(tmp_path):
    with only_builder(tmp_path / "key"):
        (tmp_path / "key" / "part").write_text("built")
    with pytest.raises(ValueError, match="refused"), only_builder(tmp_path / "key"):
        raise ValueError("refused")
    assert sorted(path.name for path in (tmp_path / "key").iterdir()) == ["lock", "part"]


# Paths in URLs


PATHS = (
    "plain",
    "a?b",
    "ok?mode=ro",
    "my%20sweep",
    "a#b",
    "a b",
    "größe",
    "{x}",
    "a&b=c+d;e",
    "a@b:c",
)


@pytest.mark.parametrize("name", [*PATHS, "$HOME", "'\"`", "a\nb", "~", "\\", "日本", "e\u0301"])
def test_a_path_goes_into_a_url_and_back(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    url = studies.sqlite_url(folder)
    assert list(folder.iterdir()) == []
    assert parse(url).database == str(folder / studies.SQLITE)
    assert parse(shown(url)) == parse(url)
    optuna.create_study(storage=open_storage(url), study_name="s")
    assert optuna.get_all_study_names(open_storage(shown(url), make=False)) == ["s"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert studies.SQLITE in {path.name for path in folder.iterdir()}


def test_a_path_that_no_url_can_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is not Unicode.*--results"):
        studies.sqlite_url(tmp_path / b"\xff".decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("rest", ["a?b/study.db", "a?mode=ro", "a?"])
def test_a_url_whose_path_would_be_cut_off_is_refused(rest, tmp_path):
    with pytest.raises(ValueError, match=r"in a path, [?] is written %3F"):
        open_storage(f"sqlite:///{tmp_path}/{rest}")
    assert list(tmp_path.iterdir()) == []


def test_options_of_sqlite_are_taken(tmp_path):
    open_storage(f"sqlite:///{tmp_path}/study.db?timeout=5")
    assert (tmp_path / "study.db").is_file()


# Which study


def rebuilt(file: Path, scale: str, folder: Path) -> str:
    words = ["rebuild", str(file), "--scale", scale, "--device", "cpu", "--results", str(folder)]
    done = invoke(shlex.join(words))
    assert done.exit_code == 0, done.output
    names = optuna.get_all_study_names(open_storage(studies.sqlite_url(folder / "my mini")))
    return names[-1]


def test_studies_are_told_apart_by_what_is_kept_in_them(sweep_file, tmp_path):
    scales = ("small", "small-long", "my scale")
    names = {scale: rebuilt(sweep_file, scale, tmp_path) for scale in scales}
    for scale, name in names.items():
        seen = execute.look(tmp_path / "my mini", scale, storage="")
        assert [study for study, _ in seen] == [name]
        assert jobs.of_study(execute._found(name, tmp_path)).scale == scale
    with pytest.raises(LookupError, match="no study of 'my mini' at scale 'long'"):
        execute.look(tmp_path / "my mini", "long", storage="")


def test_a_study_is_found_though_its_folder_has_another_name(sweep_file, tmp_path):
    name = rebuilt(sweep_file, "small-long", tmp_path)
    (tmp_path / "my mini").rename(tmp_path / "elsewhere")
    assert execute._found(name, tmp_path).study_name == name
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_a_study_of_another_program_is_none_of_ours(sweep_file, tmp_path):
    name = rebuilt(sweep_file, "small", tmp_path)
    url = studies.sqlite_url(tmp_path / "my mini")
    optuna.create_study(storage=open_storage(url), study_name="my mini-small-00000000")
    seen = execute.look(tmp_path / "my mini", "small", storage="")
    assert [study for study, _ in seen] == [name]


# Printed commands


@pytest.mark.parametrize("folder", ["plain", "my results", "a'b", "$HOME", "a?b"])
def test_the_printed_command_of_a_worker_can_be_pasted(folder, sweep_file, stand, monkeypatch):
    monkeypatch.setattr(server, "begin_loading", lambda: None)
    monkeypatch.setattr(process, "warm_up", lambda engine: None)
    words = ["run", str(sweep_file), "--scale", "my scale", "--device", "cpu", "--workers", "0"]
    done = invoke(shlex.join([*words, "--results", folder]))
    assert done.exit_code == 0, done.output
    said = next(line for line in done.stdout.splitlines() if "waits for workers: " in line)
    python, dash, package, *typed = shlex.split(said.partition(": ")[2])
    assert (python, dash, package, typed[0]) == ("python", "-m", "sweeps", "worker")
    helped: list[str] = []
    monkeypatch.setattr(execute, "work", lambda job, plan, study, console: helped.append(job.scale))
    pasted = invoke(shlex.join(typed))
    assert pasted.exit_code == 0, pasted.output
    assert helped == ["my scale"]


def test_advised_commands_are_quoted(tmp_path):
    assert command("sweeps", "run", "my mini") == "python -m sweeps run 'my mini'"
    with pytest.raises(LookupError) as missing:
        results.load("my mini", folder=tmp_path)
    said = missing.value.made_by(command("sweeps", "run", "my mini"))
    assert "`python -m sweeps run 'my mini'` makes some" in str(said)
    for finding in catalog.FINDINGS:
        said = shlex.split(finding.command("cpu"))
        assert said == ["python", "-m", "ablations", "run", finding.name, "--scale", "cpu"]
