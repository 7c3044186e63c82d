"""Sweeps as they are declared: what is matched, what is kept, what a wrong name says."""

import pytest
from optuna.trial import TrialState

from hybrid import cost
from sweeps import catalog, ratio
from sweeps.study import studies
from sweeps.trial import weights
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.engine import Engine
from sweeps.trial.measure import held_out_loss
from sweeps.trial.recipe import Precision
from sweeps.trial.record import Label, Outcome
from sweeps.trial.records import Ledger
from sweeps.workers.process import run_in_process
from tests import tiny_sweep
from tests.workers import Notes, forget_study, job, worker


def test_a_sweep_runs_every_point_once_and_a_second_call_nothing(tmp_path, source):
    first, second = Notes(), Notes()
    made = worker(job(tmp_path, source))
    made.work(first)
    again = worker(job(tmp_path, source))
    again.work(second)
    assert {r.matched for r in first.records} == {"nothing but the width"}
    assert first.points == [("h", 0), ("a", 0), ("h", 1), ("a", 1)]
    assert [r.outcome for r in first.records] == [Outcome.COMPLETE] * 4
    assert second.points == []
    assert [t.state for t in again.study.trials] == [TrialState.COMPLETE] * 4
    best = min(sum(r.valid_bits_per_byte.values()) for r in first.records)
    assert again.study.best_value == best
    assert first.done == 4


def test_a_longer_plan_keeps_what_a_shorter_one_did(tmp_path, source):
    short = job(tmp_path, source)
    worker(short).work(Notes())
    forget_study(short)
    other = worker(short)
    assert studies.settled_places(other.study, other.plan) == set(other.plan.places())
    assert len(Ledger(short.records).records()) == 4


def test_weights_are_kept_when_asked_for(tmp_path, source):
    (point,) = tiny_sweep.SWEEP.points("smoke", source)[:1]
    label = Label(sweep="tiny", scale="smoke", arm="h")
    engine = Engine(device="cpu")
    record = run_in_process(point, label, engine, tmp_path, lambda event: None, keep_weights=True)
    model = weights.load(point.spec, weights.path_of(record, tmp_path))
    tokens = open_tokens(source, point.spec.vocab)
    loss = held_out_loss(model, tokens, "text", point.recipe, Precision(record.precision))
    assert loss.bits_per_byte == record.valid_bits_per_byte["text"]


@pytest.mark.parametrize("scale", ratio.SCALES)
def test_the_arms_of_the_ratio_sweep_have_equal_parameters(scale):
    points = ratio.SWEEP.points(scale, PackagedText())
    counts = {p.arm: cost.params(p.spec) for p in points}
    assert set(counts) == set(ratio.ARMS)
    assert max(counts.values()) - min(counts.values()) <= 0.02 * counts[ratio.MATCHED_TO]
    for count in counts.values():
        assert abs(count - counts[ratio.MATCHED_TO]) <= 0.01 * counts[ratio.MATCHED_TO]
    assert {p.spec.ratio for p in points} == set(ratio.ARMS)


def test_an_unknown_sweep_or_scale_lists_those_that_exist():
    with pytest.raises(ValueError, match="there is no sweep 'ratoi'; there are: ratio"):
        catalog.find("ratoi")
    with pytest.raises(ValueError, match="no scale 'huge'; it has smoke, cpu, gpu"):
        ratio.SWEEP.points("huge", PackagedText())


def test_a_file_is_a_sweep_if_it_says_so(tmp_path):
    assert catalog.find(tiny_sweep.__file__).name == "tiny"
    with pytest.raises(FileNotFoundError, match="does not exist; it would define SWEEP"):
        catalog.find(str(tmp_path / "none.py"))
    other = tmp_path / "other.py"
    other.write_text("SWEEP = 3\n")
    with pytest.raises(ValueError, match="must define SWEEP"):
        catalog.find(str(other))
