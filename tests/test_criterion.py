"""A run on tasks ends at its criterion, and is otherwise the run without one."""

import contextlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from hybrid import codec
from sweeps.trial import criterion as criteria
from sweeps.trial import records, trunk
from sweeps.trial.checkpoint import FILE, Checkpoints
from sweeps.trial.criterion import Evaluation, is_met, tokens_to, tokens_to_accuracy
from sweeps.trial.data.sources import Stage, Synthetic
from sweeps.trial.data.tasks import FewShot, Mqar, Probe, Recall
from sweeps.trial.engine import Engine, Parallel
from sweeps.trial.recipe import WSD, Criterion, Precision, Recipe
from sweeps.trial.record import Outcome, Record
from sweeps.trial.run import run
from sweeps.trial.train import Step, learning_rate
from tests.models import SPECS

HERE = Engine(device="cpu")
SPEC = replace(SPECS["hybrid"], vocab=16)
CONSTANT = WSD(warmup_steps=2, decay_fraction=0)
TASK = Recall()
PROBES = (Probe(task=TASK, length=8), Probe(task=TASK, length=16))
RECIPE = Recipe(
    source=Synthetic(tasks=(TASK,), probes=PROBES),
    steps=10,
    batch=4,
    tokens=8,
    lr=3e-3,
    schedule=CONSTANT,
    criterion=Criterion(every=2),
    precision=Precision.FP32,
    valid_tokens=64,
    contexts=(8,),
)
EACH = RECIPE.batch * RECIPE.tokens  # tokens a step


class CutOff(BaseException):
    """As sudden as a kill to the code that runs, and the test lives on."""


class Seen:
    """What a run shows. `cut_at` is the step after which it is cut off."""

    def __init__(self, recipe: Recipe, folder: Path | None = None, cut_at: int | None = None):
        self.curve: list[Step] = []
        self.cut_at = cut_at
        self.record: Record | None = None
        self.weights: dict[str, torch.Tensor] = {}
        checkpoints = folder and Checkpoints(folder=folder, every_seconds=0)
        with contextlib.suppress(CutOff):
            self.record = run(
                SPEC, recipe, engine=HERE, watch=self.watch, keep=self.keep, checkpoints=checkpoints
            )

    def watch(self, step: Step) -> None:
        self.curve.append(step)
        if step.step == self.cut_at:
            raise CutOff

    def keep(self, model) -> None:
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}


def exact(curve: list[Step]) -> list[dict]:
    return [{k: v for k, v in asdict(step).items() if k != "seconds"} for step in curve]


@pytest.fixture
def accuracies(monkeypatch):
    """Let the evaluations of a run have made-up accuracies, by steps done."""
    by_steps: dict[int, float] = {}

    def evaluate(self, step: Step) -> None:
        done, every = step.step + 1, self.recipe.criterion.every
        if done % every == 0:
            found = by_steps.get(done, 0.0)
            self.evaluations.append(Evaluation(steps=done, tokens=step.tokens, accuracy=found))

    monkeypatch.setattr(trunk.Trunk, "_evaluate", evaluate)
    return by_steps


def evaluations(*accuracies: float) -> list[Evaluation]:
    return [
        Evaluation(steps=10 * i, tokens=100 * i, accuracy=x) for i, x in enumerate(accuracies, 1)
    ]


# ---- when ------------------------------------------------------------------------------------


def test_a_level_counts_at_the_first_of_two_in_a_row():
    seen = evaluations(0.2, 0.6, 0.4, 0.5, 0.9, 0.99, 1.0)
    assert tokens_to(seen, 0.5) == 400
    assert tokens_to(seen, 0.9) == 500
    assert tokens_to(seen, 0.99) == 600
    assert tokens_to(seen, 1.0) is None
    assert tokens_to([], 0.5) is None


def test_the_levels_of_a_record_are_those_reached_and_the_criterion_is_one():
    criterion = Criterion(every=10, accuracy=0.8)
    assert tokens_to_accuracy(criterion, evaluations(0.6, 0.7, 0.85, 0.8)) == {0.5: 100, 0.8: 300}
    assert tokens_to_accuracy(criterion, evaluations(0.1, 0.99)) == {}


def test_a_criterion_is_met_by_the_last_two():
    criterion = Criterion(every=10)
    assert is_met(criterion, evaluations(0.0, 0.99, 1.0))
    assert not is_met(criterion, evaluations(0.99, 0.98, 1.0))
    assert not is_met(criterion, evaluations(1.0))
    assert not is_met(criterion, [])


# ---- a run -----------------------------------------------------------------------------------


def test_a_run_ends_when_it_was_at_its_criterion_twice(accuracies, tmp_path):
    accuracies |= {2: 0.99, 4: 0.5, 6: 0.99, 8: 1.0}
    seen = Seen(RECIPE)
    record = seen.record
    assert record.outcome is Outcome.COMPLETE, record.error
    assert len(seen.curve) == 8
    assert record.train_tokens == 8 * EACH
    assert record.tokens_to_accuracy == {0.5: 2 * EACH, 0.9: 6 * EACH, 0.99: 6 * EACH}
    path = records.write(record, seen.curve, tmp_path)
    assert records.read_one(path) == record


def test_a_run_that_does_not_learn_ends_at_its_cap_with_nothing_reached(accuracies, tmp_path):
    accuracies[10] = 1.0  # the last evaluation alone is not enough
    seen = Seen(RECIPE)
    assert seen.record.outcome is Outcome.COMPLETE
    assert seen.record.train_tokens == RECIPE.steps * EACH
    assert seen.record.tokens_to_accuracy == {}
    assert records.read_one(records.write(seen.record, [], tmp_path)) == seen.record
    none = Seen(replace(RECIPE, criterion=None)).record
    assert none.tokens_to_accuracy is None


def test_evaluation_changes_nothing_of_training_and_the_cap_changes_nothing_before_it():
    seen, without = Seen(RECIPE), Seen(replace(RECIPE, criterion=None))
    assert exact(seen.curve) == exact(without.curve)
    assert all(torch.equal(without.weights[name], x) for name, x in seen.weights.items())
    longer = Seen(replace(RECIPE, steps=14))
    assert exact(longer.curve[:10]) == exact(seen.curve)


def test_the_last_evaluation_finds_what_the_record_says(monkeypatch):
    found = []
    plain = Evaluation.__init__

    def note(self, **given) -> None:
        plain(self, **given)
        found.append(self.accuracy)

    monkeypatch.setattr(criteria.Evaluation, "__init__", note)
    record = Seen(RECIPE).record
    assert len(found) == 5
    assert found[-1] == pytest.approx(sum(record.task_accuracy.values()) / 2)
    found.clear()
    key = "length 16"
    record = Seen(replace(RECIPE, criterion=Criterion(every=5, keys=(key,)))).record
    assert len(found) == 2
    assert found[-1] == record.task_accuracy[key]


@pytest.mark.parametrize("learned", [False, True])
def test_a_run_cut_off_after_every_step_equals_one_that_was_not(tmp_path, monkeypatch, learned):
    """A criterion at the real accuracies after 4 and 6 steps, or one that is out of reach."""
    level = 0.01 if learned else 1.0
    recipe = replace(RECIPE, criterion=Criterion(every=2, accuracy=level))
    whole = Seen(recipe)
    steps = len(whole.curve)
    assert (steps < RECIPE.steps) == learned
    for cut_at in range(steps):
        Seen(recipe, tmp_path, cut_at)
        with safe_open(tmp_path / FILE, "pt") as file:
            about = json.loads(file.metadata()["checkpoint"])
        assert [x["steps"] for x in about["evaluations"]] == list(range(2, cut_at + 2, 2))
    last = Seen(recipe, tmp_path)
    assert exact(last.curve) == exact(whole.curve)
    assert all(torch.equal(last.weights[name], x) for name, x in whole.weights.items())
    for name in ("tokens_to_accuracy", "task_accuracy", "train_tokens", "task_floor"):
        assert getattr(last.record, name) == getattr(whole.record, name), name
    assert last.record.resumed_steps[-1] == steps


def test_what_was_reached_before_a_failure_is_in_its_record(accuracies, monkeypatch):
    accuracies |= {2: 0.6, 4: 0.6}
    recipe = replace(RECIPE, steps=4)

    def fail(*arguments) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr("sweeps.trial.material.TaskMaterial.held_out", fail)
    record = Seen(recipe).record
    assert record.outcome is Outcome.FAILED
    assert record.tokens_to_accuracy == {0.5: 2 * EACH}


# ---- recipes ---------------------------------------------------------------------------------


def test_the_rate_is_constant_after_the_warm_up_whatever_the_cap():
    for steps in (4, 10, 1000):
        recipe = replace(RECIPE, steps=steps)
        rates = [learning_rate(recipe, step) / recipe.lr for step in range(steps)]
        assert rates == [0.5, 1.0] + [1.0] * (steps - 2)


def test_recipes_without_a_criterion_keep_their_json():
    text = codec.dumps(replace(RECIPE, criterion=None))
    assert "criterion" not in text
    assert "curriculum" not in text
    assert codec.loads(Recipe, codec.dumps(RECIPE)) == RECIPE


STAGES = (Stage(tasks=(TASK,), end=10),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Criterion(every=0), "Criterion: every=0 must be an integer of 1 or more"),
        (lambda: Criterion(every=1, accuracy=0.0), "accuracy=0.0 must be above 0"),
        (lambda: Criterion(every=1, accuracy=1.5), "accuracy=1.5 must be above 0 and at most 1"),
        (lambda: Criterion(every=1, keys=("a", "a")), "must be a tuple of different keys"),
        (lambda: replace(RECIPE, criterion=0.99), "criterion=0.99 must be a Criterion"),
        (lambda: replace(RECIPE, schedule=None), "needs schedule=WSD.*decay_fraction=0.*got None"),
        (lambda: replace(RECIPE, schedule=WSD(warmup_steps=2)), "must not depend on `steps`"),
        (lambda: replace(RECIPE, criterion=Criterion(every=6)), "every=6 must leave room for two"),
        (
            lambda: replace(RECIPE, source=replace(RECIPE.source, curriculum=STAGES)),
            "steps=10 must be more than the steps of the curriculum, which ends at 10",
        ),
        (
            lambda: Recipe(
                steps=10, batch=1, tokens=8, lr=1e-3, schedule=CONSTANT, criterion=RECIPE.criterion
            ),
            "text has no accuracy",
        ),
    ],
)
def test_a_criterion_that_cannot_be_followed_says_why(change, message):
    with pytest.raises(ValueError, match=message):
        change()


def test_an_unknown_key_is_known_before_training():
    seen = Seen(replace(RECIPE, criterion=Criterion(every=2, keys=("length 9",))))
    assert seen.record.outcome is Outcome.FAILED
    assert "keys has unknown ['length 9'], known are ['length 8', 'length 16']" in seen.record.error
    assert seen.curve == []


def test_a_key_can_be_one_of_several_of_a_probe():
    task = FewShot(classes=2, synonyms=2)
    probe = Probe(task=task, length=12)
    source = Synthetic(tasks=(task,), probes=(probe, Probe(task=Mqar(pairs=2), length=16)))
    key = f"{probe.name} free"
    recipe = replace(
        RECIPE, source=source, tokens=12, criterion=Criterion(every=5, accuracy=1e-9, keys=(key,))
    )
    record = Seen(recipe).record
    assert record.outcome is Outcome.COMPLETE, record.error
    assert list(record.task_floor) == list(record.task_accuracy)


def test_several_processes_are_refused_together_with_a_criterion():
    from sweeps.trial.attempt import Attempt

    attempt = Attempt.__new__(Attempt)
    attempt.recipe, attempt.engine = RECIPE, replace(HERE, parallel=Parallel.DDP)
    with pytest.raises(ValueError, match="parallel=ddp must be none with a criterion"):
        attempt._require_possible()
