"""A search that was edited: another study, told what of the old records still fits."""

import json
from dataclasses import replace
from functools import partial

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from hybrid import cost
from hybrid.spec import MLP, Layer, SpecError
from sweeps import late_terms
from sweeps.plans.digest import digest
from sweeps.plans.objectives import params_budget, task_error
from sweeps.plans.search import Hunt, Search
from sweeps.show import report, search_report
from sweeps.study import studies
from sweeps.study.replay import PLACE, REFUSED, REFUSED_BY, RULES, choice_json
from sweeps.study.studies import study_name
from sweeps.trial import records, weights
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Label, Outcome
from sweeps.trial.records import Ledger
from sweeps.trial.run import not_run
from sweeps.workers import jobs
from sweeps.workers.jobs import Job, Terms
from tests.models import SPECS

HERE = Engine(device="cpu", ops="torch")
BASE = SPECS["mixer-mamba"]


def model(layers: int):
    layer = Layer(mixer=BASE.layers[0].mixer, feed_forward=MLP(hidden=8))
    return replace(BASE, vocab=300, layers=(layer,) * layers)


def choosing(layers: tuple[int, ...], lr: float = 1e-3):
    def suggest(trial, scale):
        recipe = Recipe(steps=2, batch=2, tokens=16, lr=lr, contexts=(8,))
        return model(trial.suggest_categorical("layers", layers)), recipe

    return suggest


def hunt(n_trials: int = 2, **changes) -> Hunt:
    given = {
        "name": "mini",
        "question": "?",
        "scales": {"smoke": 1},
        "n_trials": {"smoke": n_trials},
        "suggest": choosing((1, 2)),
        "objectives": (task_error(),),
    }
    return Hunt(search=Search(**(given | changes)), scale="smoke", engine=HERE)


def error_twice(record):
    return 2 * task_error().of(record)


CHANGES = {
    "choices": {"suggest": choosing((3, 4))},
    "recipe": {"suggest": choosing((1, 2), lr=1e-2)},
    "rungs": {"rungs": (0.5,)},
    "slack": {"slack": {"task_error": 0.1}},
    "margin": {"margin": 0.1},
    "sampler": {"sampler": lambda seed: optuna.samplers.RandomSampler(seed=seed)},
    "pruner": {"pruner": lambda: optuna.pruners.MedianPruner(n_startup_trials=3)},
    "objective": {"objectives": (replace(task_error(), of=error_twice),)},
    "limit": {"constraints": lambda scale: (params_budget(10**9),)},
    "computed": {
        "constraints": lambda scale: (
            replace(params_budget(10**9), by_arithmetic=lambda spec, recipe: 1.0),
        )
    },
    "seeds": {"seeds": (1,)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_search_is_another_study(change):
    assert study_name("mini", hunt()) == study_name("mini", hunt())
    assert study_name("mini", hunt(**change)) != study_name("mini", hunt())
    if "constraints" in change:
        others = [hunt(**CHANGES[name]).identity for name in ("limit", "computed")]
        assert others[0] != others[1]


@pytest.mark.parametrize("change", [{"n_trials": 9}, {"question": "??"}, {"matched": "all"}])
def test_what_decides_nothing_leaves_the_study_as_it_is(change):
    assert study_name("mini", hunt(**change)) == study_name("mini", hunt())


def compiled(source: str):
    """Return f of a file with this text."""
    names = {"__name__": "a_file"}
    exec(source, names)
    return names["f"]


CODE = "K = (1, 2)\ndef g(x):\n    return x + 1\ndef f(x, y=1):\n    return g(x) in K\n"


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("(1, 2)", "(1, 3)"),
        CODE.replace("x + 1", "x + 2"),
        CODE.replace("y=1", "y=2"),
        CODE.replace("in K", "not in K"),
    ],
)
def test_a_digest_follows_constants_and_functions_that_are_called(other):
    assert digest(compiled(CODE)) != digest(compiled(other))


def test_a_digest_does_not_see_comments_docstrings_and_lines():
    said = CODE.replace("def f(x, y=1):\n", 'def f(x, y=1):\n    """Say."""\n    # why\n\n')
    assert digest(compiled(CODE)) == digest(compiled(said))
    assert digest(partial(max, 1)) != digest(partial(max, 2))


def recorded(folder, plan: Hunt, place: str, layers: int, outcome=Outcome.COMPLETE):
    """Write what a worker records of one trial of `plan`."""
    trial = optuna.trial.FixedTrial({"layers": layers})
    trial.set_user_attr(PLACE, place)
    spec, recipe = plan._suggest(trial)
    point = plan._point(spec, recipe)
    chosen = choice_json(trial, plan.rules)
    label = Label(sweep="mini", scale="smoke", arm=point.arm, trial_params=chosen)
    accuracy = {"mqar": 0.5} if outcome is Outcome.COMPLETE else None
    known = not_run(spec, recipe, label=label, engine=HERE)
    known = replace(known, outcome=outcome, error=None, task_accuracy=accuracy, ops=HERE.ops)
    records.write(known, [], folder)
    return known


def restored(plan: Hunt, folder):
    """Return the study that a new database is told of, and what waits in it."""
    study = studies.open_study("s", InMemoryStorage(), plan)
    studies.restore(study, plan, Ledger(folder))
    waiting = study.get_trials(states=(TrialState.WAITING,))
    return study, [studies.chosen(trial) for trial in waiting]


def test_records_that_fit_are_taken_over_and_others_are_counted(tmp_path):
    old = hunt()
    recorded(tmp_path, old, "00000", 1)
    recorded(tmp_path, old, "00001", 2)
    assert restored(old, tmp_path)[1] == []
    new = hunt(suggest=choosing((2, 3)))
    study, waiting = restored(new, tmp_path)
    assert [t.params for t in study.get_trials(states=(TrialState.COMPLETE,))] == [{"layers": 2}]
    assert waiting == [{}]  # to be sampled anew, in the space of now
    assert studies.left_out(new, Ledger(tmp_path)) == (
        "1 trial of another space, recipe, text or engine than the search has now",
    )
    other = hunt(suggest=choosing((1, 2), lr=1.0))
    assert restored(other, tmp_path)[1] == [{}, {}]


def test_a_run_that_other_rules_ended_early_is_open_again(tmp_path):
    strict = hunt(n_trials=1, margin=0.1)
    known = recorded(tmp_path, strict, "00000", 1, Outcome.PRUNED)
    assert json.loads(known.trial_params)[RULES] == strict.rules
    assert restored(strict, tmp_path)[1] == []
    assert restored(hunt(n_trials=1, margin=9.0), tmp_path)[1] == [{"layers": 1}]


def test_what_an_old_budget_refused_is_tried_under_a_larger_one(tmp_path):
    small = hunt(n_trials=1, constraints=lambda scale: (params_budget(1),))
    recorded(tmp_path, small, "00000", 1, Outcome.REFUSED)
    most = cost.params(model(1))
    large = hunt(n_trials=1, constraints=lambda scale: (params_budget(most),))
    study, waiting = restored(large, tmp_path)
    assert waiting == [{"layers": 1}]
    assert not any(REFUSED in t.user_attrs for t in study.trials)


def test_fewer_trials_cancel_those_that_wait_beyond_and_say_so(tmp_path):
    study, waiting = restored(hunt(n_trials=5), tmp_path)
    assert len(waiting) == 5
    fewer = hunt(n_trials=2)
    assert studies.cancel_beyond(study, fewer) == 3
    left = study.get_trials(states=(TrialState.WAITING,))
    assert [t.user_attrs[PLACE] for t in left] == ["00000", "00001"]
    assert studies.deaths(study, "00003") == 0
    recorded(tmp_path, hunt(), "00007", 1)
    (said,) = studies.left_out(fewer, Ledger(tmp_path))
    assert said == "1 trial at places beyond the 2 that there are now"


def test_refusals_are_counted_by_what_refused(tmp_path):
    def cannot(trial, scale):
        raise SpecError("no such model")

    study = studies.open_study("s", InMemoryStorage(), hunt())
    for by in ("by arithmetic", "by the spec", "by the spec"):
        trial = study.ask()
        trial.set_user_attr(REFUSED, "why")
        trial.set_user_attr(REFUSED_BY, by)
        study.tell(trial, state=TrialState.PRUNED)
    said = search_report._counts(study)
    assert said.endswith("1 refused by arithmetic, 2 refused by the spec")


def test_a_search_has_a_table_in_markdown(tmp_path):
    plan = hunt()
    recorded(tmp_path, plan, "00000", 1)
    said = report.of_plan(plan, Ledger(tmp_path)).markdown().splitlines()
    assert said[0] == "| trial | layers | task error | how it ended |"
    assert said[2] == "| *0 | 1 | 0.5 | complete |"
    assert "not dominated" in said[-1]


def job(folder, **terms) -> Job:
    return Job(
        sweep="mini",
        scale="smoke",
        source=PackagedText(),
        engine=HERE,
        folder=str(folder),
        terms=Terms(**terms),
    )


def test_weights_that_are_asked_for_too_late_are_missed_aloud(tmp_path):
    plan = hunt()
    known = recorded(tmp_path, plan, "00000", 1)
    asked = partial(late_terms.of_finished, job(tmp_path, keep_weights=True), plan, url="")
    (said,) = asked(Ledger(tmp_path))
    assert "1 finished trial kept no weights" in said
    assert _late(tmp_path, plan) == []
    path = weights.path_of(known, tmp_path)
    path.parent.mkdir()
    path.touch()
    assert list(asked(Ledger(tmp_path))) == []


def test_a_run_that_failed_as_often_as_it_may_is_named(tmp_path):
    plan = hunt()
    known = recorded(tmp_path, plan, "00000", 1, Outcome.TIMED_OUT)
    assert _late(tmp_path, plan) == []
    records.write(replace(known, attempt=1), [], tmp_path)
    (said,) = _late(tmp_path, plan)
    assert "1 trial failed 2 times and will not run again" in said
    typed = f"python -m sweeps retry {tmp_path.name} --scale smoke --results {tmp_path.parent}"
    assert f"`{typed}`" in said
    (said,) = _late(tmp_path, plan, "postgresql+psycopg://me:secret@host/name")
    assert f"`{typed} --storage 'postgresql+psycopg://me:***@host/name'`" in said


def _late(folder, plan, url: str | None = None) -> list[str]:
    here = studies.sqlite_url(folder) if url is None else url
    return list(late_terms.of_finished(job(folder), plan, Ledger(folder), here))


def test_terms_that_come_beside_running_workers_are_for_new_ones(tmp_path):
    study, _ = restored(hunt(), tmp_path)
    jobs.attach(study, job(tmp_path))
    study.ask()
    assert list(late_terms.of_running(job(tmp_path), study)) == []
    (said,) = late_terms.of_running(job(tmp_path, keep_weights=True), study)
    assert "workers that already run (1 trial) keep the limits" in said


def on_two_texts(trial, scale):
    """Train models of one layer on books, and others on the default text."""
    spec, recipe = choosing((1, 2))(trial, scale)
    books = PackagedText(domains=("books",))
    return spec, replace(recipe, source=books if len(spec.layers) == 1 else recipe.source)


@pytest.mark.parametrize("last", [1, 2])
def test_a_search_that_chooses_its_text_is_shown_whatever_ran_last(last, tmp_path):
    plan = hunt(suggest=on_two_texts)
    recorded(tmp_path, plan, "00000", 3 - last)
    recorded(tmp_path, plan, "00001", last)
    said = report.of_sweep(plan.search, "smoke", tmp_path).markdown()
    assert said.count("| 0.5 | complete |") == 2
