"""Sweeps on texts of one's own: which folder, which worker, and what a changed text does."""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from sweeps import catalog, folders, readiness
from sweeps.plans.named_texts import named_texts
from sweeps.plans.search import Hunt, Search
from sweeps.study import studies
from sweeps.study.replay import PLACE, choice_json
from sweeps.study.retries import FILE, forgive, forgiven, is_open
from sweeps.study.storage import open_storage
from sweeps.trial import records
from sweeps.trial.data.sources import TextFile
from sweeps.trial.data.streams import pinned
from sweeps.trial.recipe import Precision
from sweeps.trial.record import Label, Outcome
from sweeps.trial.run import not_run
from sweeps.workers import jobs
from tests import tiny_search
from tests.commands import invoke
from tests.text import write_text

SWEEP = """
from dataclasses import replace
from sweeps.trial.data.sources import TextFile
from tests.tiny_sweep import SWEEP as TINY

def point(arm, seed, scale):
    spec, recipe = TINY.point(arm, seed, scale)
    return spec, replace(recipe, {changes})

SCALES = {{"smoke": TINY.scales["smoke"]}}
SWEEP = replace(
    TINY, name="mini", arms=("h",), seeds={{"smoke": (0,)}}, scales=SCALES, point=point
)
"""
AT = "--scale smoke --results results"
RUN = f"{AT} --device cpu"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder to stand in, with a sweep of one trial and a text."""
    monkeypatch.setenv("HYBRID_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini.py").write_text(SWEEP.format(changes=""))
    write_text(tmp_path / "my.txt")
    return tmp_path


def change(path: Path) -> None:
    path.write_text(path.read_text().replace("a", "o"))


def said(command: str, status: int = 0) -> str:
    """Return what a command prints, one blank for each stretch of them."""
    done = invoke(command)
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    return " ".join((done.stdout + done.stderr).split())


def names() -> list[str]:
    return sorted(path.name for path in Path("results").iterdir())


def study_of(folder: str) -> str:
    url = studies.sqlite_url(Path("results", folder))
    (name,) = optuna.get_all_study_names(open_storage(url))
    return name


def found(folder: str) -> list[Outcome]:
    return [record.outcome for record in records.read(Path("results", folder))]


@pytest.mark.parametrize("name", ["lr.txt", "a@b.txt", "ä ?%.txt", "-.txt", ".txt.txt"])
def test_no_text_takes_the_folder_of_a_sweep(here, name):
    shutil.copy("my.txt", name)
    said(f"rebuild ratio {RUN} --text {shlex.quote(name)}")
    (folder,) = names()
    assert folder.startswith("ratio@")
    assert set(folder.partition("@")[2]) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


def test_texts_of_one_name_have_a_folder_each_and_one_text_has_one_folder(here):
    for place in ("a", "b"):
        Path(place).mkdir()
        shutil.copy("my.txt", f"{place}/my.txt")
    change(Path("b/my.txt"))
    for text in ("a/my.txt", "b/my.txt", "my.txt", "./my.txt", str(here / "my.txt")):
        assert "has changed" not in said(f"rebuild ratio {RUN} --text {text}")
    assert len(names()) == 2
    shutil.copy("my.txt", "renamed.txt")
    said(f"rebuild ratio {RUN} --text renamed.txt")
    assert len(names()) == 2


def test_a_changed_text_is_said_with_the_folder_of_what_it_held_before(here):
    said(f"rebuild mini.py {RUN} --text my.txt")
    (before,) = names()
    change(Path("my.txt"))
    looked = said(f"table mini.py {AT} --text my.txt", status=2)
    assert f"my.txt has changed: {before} is of what it held before" in looked
    assert f"my.txt has changed: {before} is of what it held before" in said(
        f"rebuild mini.py {RUN} --text my.txt"
    )
    assert len(names()) == 2


@pytest.mark.slow
def test_a_run_is_found_by_its_words_and_by_its_folder_in_every_command(here):
    said(f"run mini.py {RUN} --text my.txt")
    (folder,) = names()
    assert found(folder) == [Outcome.COMPLETE]
    for words in ("mini.py --text ./my.txt", folder):
        assert "1 done" in said(f"status {words} {AT}")
        assert "h" in said(f"table {words} {AT}")
        assert "h" in said(f"table {words} {AT} --markdown")
        assert folder in said(f"plot {words} {AT}")
        assert "took in" in said(f"compact {words} --results results")
        assert "1 trials from 1 records, 0 to run" in said(f"rebuild {words} {RUN}")
        assert "has failed for good" in said(f"retry {words} {AT}")
    said(f"run {folder} {RUN}")
    change(Path("my.txt"))
    assert "my.txt has changed" in said(f"run mini.py {RUN} --text my.txt")
    assert [found(name) for name in names()] == [[Outcome.COMPLETE]] * 2


def test_nothing_is_advised_that_does_not_work(here):
    looked = said(f"table mini.py {AT}", status=2)
    assert "run mini " not in looked
    assert "`python -m sweeps run mini.py --scale smoke --results results` makes some" in looked


def own_text(path: Path) -> str:
    return SWEEP.format(changes=f"source=TextFile(path={str(path)!r})")


def test_the_text_that_a_recipe_names_is_the_one_that_counts(here):
    Path("mini.py").write_text(own_text(here / "my.txt"))
    said(f"rebuild mini.py {RUN}")
    before = study_of("mini")
    change(Path("my.txt"))
    said(f"rebuild mini.py {RUN}")
    url = studies.sqlite_url(Path("results/mini"))
    assert len({before, *optuna.get_all_study_names(open_storage(url))}) == 2


def test_a_text_that_is_given_beside_a_recipes_own_is_refused(here):
    Path("mini.py").write_text(own_text(here / "my.txt"))
    shutil.copy("my.txt", "copy.txt")
    said(f"rebuild mini.py {RUN} --text copy.txt")  # says the same
    change(Path("copy.txt"))
    assert "names its own text" in said(f"rebuild mini.py {RUN} --text copy.txt", status=2)


def test_a_worker_elsewhere_finds_the_text_of_the_job(here, monkeypatch):
    said(f"run mini.py {RUN} --workers 0 --text my.txt")
    (folder,) = names()
    study, url = study_of(folder), studies.sqlite_url(Path("results", folder))
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    said(f"worker {study} --storage {url}")
    monkeypatch.chdir(here)
    assert found(folder) == [Outcome.COMPLETE]


@pytest.mark.parametrize("harm", [Path.unlink, change])
def test_a_worker_without_the_text_of_the_job_takes_no_trial(here, harm):
    said(f"run mini.py {RUN} --workers 0 --text my.txt")
    (folder,) = names()
    study, url = study_of(folder), studies.sqlite_url(Path("results", folder))
    shutil.rmtree("cache")
    shutil.copy("my.txt", "kept.txt")
    harm(Path("my.txt"))
    assert "my.txt" in said(f"worker {study} --storage {url}", status=2)
    assert found(folder) == []
    assert len(optuna.load_study(study_name=study, storage=open_storage(url)).trials) == 1
    shutil.copy("kept.txt", "my.txt")
    said(f"worker {study} --storage {url}")
    assert found(folder) == [Outcome.COMPLETE]


@pytest.mark.slow
def test_records_of_another_tokenizer_or_precision_are_not_gone_on_with(here):
    said(f"run mini.py {RUN} --text my.txt")
    (folder,) = names()
    (path,) = Path("results", folder, "trials").iterdir()
    (record,) = records.read(Path("results", folder))
    for column, value in {"tokenizer_sha256": "0" * 64, "precision": "other"}.items():
        path.unlink()
        records.write(replace(record, **{column: value}), [], Path("results", folder))
        assert f"{column}={value}" in said(f"run mini.py {RUN} --text my.txt", status=2)


@pytest.mark.slow
def test_what_failed_for_good_is_tried_again_when_a_person_says_so(here):
    failing = "measure_int8=True"  # of a model without experts: it fails each time
    spec = "replace(spec, layers=spec.layers[:1])"
    text = SWEEP.format(changes=failing).replace("return spec,", f"return {spec},")
    Path("mini.py").write_text(text)
    words = "mini.py --text my.txt"
    invoke(f"run {words} {RUN}")
    (folder,) = names()
    assert found(folder) == [Outcome.FAILED] * 2
    shown = said(f"status {words} {AT}")
    advised = shown.partition("tried again after: python -m sweeps ")[2].partition(" --results")[0]
    assert advised == f"retry {folder} --scale smoke"
    assert "1 trials wait to be tried again" in said(f"{advised} --results results")
    assert "again, after failed" in said(f"status {words} {AT}")
    invoke(f"run {words} {RUN}")
    assert found(folder) == [Outcome.FAILED] * 4
    assert [r.attempt for r in records.read(Path("results", folder))] == [0, 1, 2, 3]
    invoke(f"run {words} {RUN}")
    assert found(folder) == [Outcome.FAILED] * 4


def test_attempts_before_a_retry_do_not_count(tmp_path):
    class Failed:
        outcome = Outcome.FAILED

        def __init__(self, attempt: int):
            self.attempt = attempt

    attempts = [Failed(n) for n in range(3)]
    assert is_open(attempts[:1])
    assert not is_open(attempts[:2])
    assert is_open(attempts[:2], forgiven=2)
    assert is_open(attempts, forgiven=2)
    forgive(tmp_path, {"a": 2})
    forgive(tmp_path, {"b": 3})
    assert forgiven(tmp_path) == {"a": 2, "b": 3}


@pytest.mark.parametrize("content", ["{", "[]", '{"a": "b"}'])
def test_a_broken_file_of_retries_is_named(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=r"retries\.json"):
        forgiven(tmp_path)


def test_what_was_run_into_a_folder_is_read_back_or_named(tmp_path, source):
    made = jobs.fixed(
        jobs.Job(
            sweep="ratio",
            scale="smoke",
            source=source,
            engine=jobs.Engine(device="cpu"),
            folder=str(folders.to_run(tmp_path, "ratio", pinned(source))),
        )
    )
    jobs.keep(made)
    assert folders.job_of(made.records) == made
    assert isinstance(made.source, TextFile)
    (made.records / jobs.FILE).write_text("{")
    with pytest.raises(ValueError, match=r"job\.json"):
        folders.job_of(made.records)
    with pytest.raises(LookupError, match=r"no job\.json"):
        folders.job_of(tmp_path)


SEARCH = """
from dataclasses import replace
from sweeps.trial.data.sources import PackagedText, TextFile
from tests.tiny_search import SWEEP as TINY, suggest

PACKAGED = PackagedText(domains=("books",))

def on_mine(trial, steps):
    spec, recipe = suggest(trial, steps)
    return spec, replace(recipe, source=TextFile(path="my.txt"))

SWEEP = replace(TINY, name="mine", n_trials={"smoke": 1}, suggest=on_mine)
"""


def hunt_here(source: TextFile | None = None) -> Hunt:
    search = catalog.find("mine.py")
    assert isinstance(search, Search)
    engine = jobs.resolved(jobs.Engine(device="cpu"))
    return Hunt(search=search, scale="smoke", source=source, engine=engine)


def recorded_by(plan: Hunt, folder: Path, **columns) -> None:
    """Write a complete record of the plan's first place, without running it."""
    study = optuna.create_study(directions=["minimize"] * 2)
    study.enqueue_trial({"layers": 1})  # within the budget, which three layers are not
    trial = study.ask({})
    trial.set_user_attr(PLACE, "00000")
    spec, recipe = plan._suggest(trial)
    label = Label(
        sweep=plan.name, scale="smoke", arm="a", trial_params=choice_json(trial, plan.rules)
    )
    known = not_run(spec, recipe, label=label, engine=plan.engine)
    done = replace(known, outcome=Outcome.COMPLETE, error=None, valid_bits_per_byte={"text": 2.0})
    records.write(replace(done, **columns), [], folder)


@pytest.mark.parametrize("column", ["precision", "text_sha256", "tokenizer_sha256"])
def test_a_search_is_not_continued_on_records_of_another_text_or_precision(here, column):
    """What packages and the machine make of a recipe is not in the run's id."""
    Path("mine.py").write_text(SEARCH.replace('TextFile(path="my.txt")', "PACKAGED"))
    plan = hunt_here()
    folder = here / "results" / "mine"
    as_here = {"precision": "fp32", "text_sha256": "a" * 64, "tokenizer_sha256": "b" * 64}
    recorded_by(plan, folder, **{**as_here, column: "other"})
    job = jobs.Job(
        sweep="mine.py", scale="smoke", source=None, engine=plan.engine, folder=str(folder)
    )
    with pytest.MonkeyPatch.context() as patch:
        tokens = SimpleNamespace(text_sha256="a" * 64, tokenizer_sha256="b" * 64)
        patch.setattr(readiness, "open_tokens", lambda source, vocab: tokens)
        patch.setattr(readiness, "choose_precision", lambda precision, device: Precision.FP32)
        with pytest.raises(ValueError, match=f"{column}=other"):
            list(readiness.make_ready(job, plan))


def test_a_search_whose_own_text_has_changed_is_another_study_and_says_so(here):
    Path("mine.py").write_text(SEARCH)
    before = hunt_here()
    folder = here / "results" / "mine"
    recorded_by(before, folder)
    job = jobs.Job(
        sweep="mine.py", scale="smoke", source=None, engine=before.engine, folder=str(folder)
    )
    assert list(readiness.make_ready(job, before)) == []
    change(Path("my.txt"))
    assert hunt_here().identity != before.identity
    (line,) = readiness.make_ready(job, hunt_here())
    assert f"the text of {here / 'my.txt'} has changed: 1 records in {folder}" in line
    looked = said(f"table mine.py {AT}", status=2)
    assert "there are 1 trial of another space, recipe, text or engine" in looked
    assert "--text" not in looked


def test_a_search_that_names_no_text_of_its_own_asks_for_none(here):
    Path("mine.py").write_text(SEARCH)
    assert named_texts(tiny_search.suggest, 4) == set()
    assert named_texts(hunt_here().search.suggest, 4) == {TextFile(path="my.txt")}
    Path("my.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"my\.txt"):
        _ = hunt_here().identity


def test_a_worker_makes_no_folder_of_records_anew(here):
    looked = said(f"run mini.py {RUN} --text my.txt --workers 0 --storage sqlite:///here.db")
    words = shlex.split(looked.partition("waits for workers: ")[2])
    assert f"sqlite:///{here}/here.db" in words
    (folder,) = names()
    shutil.move("results", "moved")
    refused = said(shlex.join(words[3:]), status=2)
    assert f"{here / 'results' / folder} is not on this machine" in refused
    assert not Path("results").exists()


@pytest.mark.parametrize("command", ["status", "retry"])
def test_a_folder_lists_the_scales_of_its_sweep(here, command):
    said(f"rebuild mini.py {RUN} --text my.txt")
    (folder,) = names()
    asked = said(f"{command} {folder} --scale nope --results results", status=2)
    assert "--scale nope: sweep 'mini' has no scale 'nope'; it has smoke" in asked
