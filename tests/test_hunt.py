"""A search that workers really run: its records, its study made anew from them, its figures."""

import json
import warnings
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from sweeps import tradeoff
from sweeps.plans.rules import EARLY, RUNGS
from sweeps.plans.search import LR_AT_EDGE, Hunt
from sweeps.show import search_report
from sweeps.study import studies
from sweeps.study.replay import OUTCOME, PLACE, REFUSED
from sweeps.trial import records
from sweeps.trial.data.sources import TextFile
from sweeps.trial.engine import Engine
from sweeps.trial.record import Outcome, Record
from sweeps.trial.records import Ledger
from sweeps.workers.jobs import Job
from tests import tiny_search
from tests.text import write_text
from tests.workers import Notes, forget_study, job, worker

REMEMBERED = (REFUSED, EARLY, RUNGS, LR_AT_EDGE)


@contextmanager
def edges_expected():
    """Both rates are edges, so every choice warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*edge of the rates.*", UserWarning)
        yield


def told(study: Study) -> list[tuple[Any, ...]]:
    """Return what a study knows of its finished trials, but for numbers and times."""
    found = [
        (
            trial.user_attrs[PLACE],
            trial.state.name,
            trial.values,
            sorted(trial.params.items()),
            sorted(trial.constraints.items()),
            {name: trial.user_attrs[name] for name in REMEMBERED if name in trial.user_attrs},
        )
        for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    ]
    return sorted(found, key=repr)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, cache_folder) -> tuple[Job, Study]:
    """The search, run to its end by one worker."""
    path = cache_folder / "tale.txt"
    if not path.exists():
        write_text(path)
    with pytest.MonkeyPatch.context() as patch, edges_expected():
        patch.setenv("HYBRID_CACHE", str(cache_folder))
        source = TextFile(path=str(path))
        made = job(tmp_path_factory.mktemp("hunt"), source, sweep=str(tiny_search.__file__))
        one = worker(made)
        one.work(Notes())
    return made, one.study


@pytest.mark.slow
def test_every_place_is_complete_or_ruled_out_and_tuning_is_recorded(searched):
    made, study = searched
    found = records.read(made.records)
    done = [t for t in study.trials if t.state is TrialState.COMPLETE]
    pruned = [t for t in study.trials if studies.settles(t) and t not in done]
    assert {t.user_attrs[PLACE] for t in (*done, *pruned)} == set(made.plan().places())
    assert all("at least as good" in t.user_attrs[OUTCOME] for t in pruned)
    assert all(t.user_attrs[LR_AT_EDGE] in tiny_search.RATES.grid for t in done)
    complete = [r for r in found if r.outcome is Outcome.COMPLETE]
    assert [r.seed for r in complete].count(tiny_search.RATES.seed) == 2 * (len(done) + len(pruned))
    compared = {chosen_at(r): r for r in complete if r.seed == 0}
    assert len(compared) == len(done)
    for trial in done:
        record = compared[trial.user_attrs[PLACE]]
        assert trial.values == [record.valid_bits_per_byte["text"], record.cache_bytes[8]]


def chosen_at(record: Record) -> str:
    return json.loads(record.trial_params)["place"]


@pytest.mark.slow
def test_what_is_over_budget_is_a_record_that_was_never_built(searched):
    made, study = searched
    refused = [t for t in study.trials if REFUSED in t.user_attrs]
    found = [r for r in records.read(made.records) if r.outcome is Outcome.REFUSED]
    assert {t.params["layers"] for t in refused} == {3}
    assert len(found) == len(refused)  # none was chosen twice
    assert all(t.constraints["params_budget"] > 0 for t in refused)
    assert all(r.train_tokens is None for r in found)


@pytest.mark.slow
def test_a_search_is_rebuilt_from_its_records_alone(searched):
    made, study = searched
    before = told(study)
    forget_study(made)
    with edges_expected():
        again, notes = worker(made), Notes()
        assert told(again.study) == before
        again.work(notes)
    assert notes.points == []


@pytest.mark.slow
def test_its_figures_are_optunas_and_its_table_marks_the_best(searched, tmp_path, monkeypatch):
    monkeypatch.setattr(search_report, "LEAST_FOR_IMPORTANCE", 2)
    made, _ = searched
    plan = made.plan()
    with edges_expected():
        study = search_report.study_of(plan, Ledger(made.records))
    names = {path.stem for path in search_report.draw(plan, study, tmp_path / "tiny")}
    assert {
        "tiny-pareto-bits_per_byte-cache_bytes",
        "tiny-slice-bits_per_byte",
        "tiny-slice-cache_bytes",
        "tiny-importance-bits_per_byte",
        "tiny-importance-cache_bytes",
    } <= names
    assert all(path.stat().st_size > 0 for path in tmp_path.iterdir())
    table = search_report.as_rich(plan, study)
    marked = [cell for cell in table.columns[0].cells if str(cell).startswith("*")]
    assert len(marked) == len(study.best_trials) > 0


def test_importance_is_that_for_good_values_in_either_direction(monkeypatch):
    """Optuna asks for low values to be good, so what is maximized is handed over negated."""
    hunt = Hunt(search=tradeoff.SWEEP, scale="smoke", engine=Engine(device="cpu", ops="torch"))
    asked = {}

    def remember(study, *, target, target_name):
        asked[target_name] = target(create_trial(values=[1.0, 2.0, 3.0]))

    monkeypatch.setattr(search_report.drawings, "plot_param_importances", remember)
    made = search_report._drawings(hunt, optuna.create_study(), complete=4)
    for name, draw in made:
        if name.startswith("importance"):
            draw()
    assert asked == {"bits_per_byte": 1.0, "decode_tokens_per_s": -2.0, "cache_bytes": 3.0}
