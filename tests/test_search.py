"""A search: what it refuses, tunes, prunes and rules out, and that records alone give it back.

One file: all of it plays the same small search.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import FixedTrial, TrialState, create_trial

from hybrid import cost
from hybrid.spec import MLP, Layer, ModelSpec, SpecError
from sweeps import tradeoff
from sweeps.plans import pareto
from sweeps.plans.objectives import (
    bits_per_byte,
    cache_bytes,
    decode_latency,
    decode_tokens_per_s,
    expert_budget,
    memory_budget,
    params_budget,
)
from sweeps.plans.plan import LENIENT, Judge, NotComplete, Refused
from sweeps.plans.rules import EARLY, RUNGS
from sweeps.plans.search import LR_AT_EDGE, Hunt, OverBudget, Search
from sweeps.sweep import Point
from sweeps.trial.engine import Engine
from sweeps.trial.events import Event, Speeds
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Label, Outcome, Record
from sweeps.trial.run import not_run
from sweeps.trial.train import Step
from sweeps.tuning import Rates, choose
from tests.models import SPECS

HERE = Engine(device="cpu", ops="torch")
STEPS = 8


def suggest(trial, scale) -> tuple[ModelSpec, Recipe]:
    layers = trial.suggest_int("layers", 1, 4)
    if layers == 4:
        raise SpecError("four layers cannot be")
    lr = trial.suggest_float("lr", 1e-3, 1e-1, log=True)
    base = SPECS["mixer-mamba"]
    layer = Layer(mixer=base.layers[0].mixer, feed_forward=MLP(hidden=8))
    spec = replace(base, vocab=300, layers=(layer,) * layers)
    return spec, Recipe(steps=STEPS, batch=2, tokens=16, lr=lr, valid_tokens=64, contexts=(8, 16))


def made(**changes) -> Search:
    settings = {
        "name": "made",
        "question": "?",
        "scales": {"smoke": None},
        "n_trials": {"smoke": 4},
        "suggest": suggest,
        "objectives": (bits_per_byte(),),
    }
    return Search(**(settings | changes))


def hunt(**changes) -> Hunt:
    return Hunt(search=made(**changes), scale="smoke", engine=HERE)


class Bench:
    """Obtains made-up records: a loss and a decode time for each point, step by step."""

    def __init__(
        self,
        loss: Callable[[Point], float],
        decode_ms: Callable[[Point], float] = lambda point: 1.0,
    ):
        self.loss, self.decode_ms = loss, decode_ms
        self.points: list[Point] = []
        self.stopped: str | None = None

    def __call__(self, point: Point, judge: Judge = LENIENT) -> Record:
        self.points.append(point)
        label = Label(sweep="made", scale="smoke", arm=point.arm)
        known = not_run(point.spec, point.recipe, label=label, engine=HERE)
        for event in self._events(point):
            judge.note(event)
            if (reason := judge.stop(event)) is not None:
                self.stopped = reason
                raise NotComplete(replace(known, outcome=Outcome.PRUNED, error=reason))
        if not math.isfinite(self.loss(point)):
            raise NotComplete(replace(known, outcome=Outcome.DIVERGED, error="nan"))
        return replace(
            known,
            outcome=Outcome.COMPLETE,
            error=None,
            valid_bits_per_byte={"a": self.loss(point)},
            decode_ms={8: 0.5, 16: self.decode_ms(point)},
            prefill_tokens_per_s={8: 1.0, 16: 1.0},
            cache_bytes={8: 10, 16: 20},
        )

    def _events(self, point: Point) -> list[Event]:
        decode = {8: 0.5, 16: self.decode_ms(point)}
        speeds = Speeds(
            prefill_tokens_per_s={8: 1.0, 16: 1.0}, decode_ms=decode, cache_bytes={8: 10, 16: 20}
        )
        return [speeds, *(made_step(i, self.loss(point)) for i in range(STEPS))]


def made_step(step: int, loss: float) -> Step:
    return Step(
        step=step,
        tokens=32 * (step + 1),
        nats_per_token=loss,
        balance=0.0,
        grad_norm=1.0,
        lr=1e-3,
        seconds=0.01,
    )


def params(layers: int = 2, lr: float = 1e-2) -> dict:
    return {"layers": layers, "lr": lr}


def finished(values: Sequence[float], **attributes) -> optuna.trial.FrozenTrial:
    return create_trial(
        values=list(values),
        params={"lr": 0.01},
        distributions={"lr": FloatDistribution(0.001, 0.1)},
        user_attrs=attributes,
    )


def test_a_point_over_budget_is_refused_before_anything_is_asked_for():
    bench = Bench(lambda point: 1.0)
    spec, _ = suggest(FixedTrial(params(2)), None)
    limit = cost.params(spec)
    strict = hunt(constraints=lambda scale: (params_budget(limit - 1),))
    trial = FixedTrial(params(2))
    with pytest.raises(OverBudget, match="params_budget"):
        strict.play(trial, bench, list)
    assert bench.points == []
    assert trial.constraints == {"params_budget": 1.0}
    exact = hunt(constraints=lambda scale: (params_budget(limit),))
    assert exact.play(FixedTrial(params(2)), bench, list) == (1.0,)


def test_a_combination_that_cannot_be_is_refused_with_its_own_reason():
    with pytest.raises(Refused, match="four layers cannot be"):
        hunt().play(FixedTrial(params(4)), Bench(lambda point: 1.0), list)


@pytest.mark.parametrize("kind", [ValueError, KeyError, TypeError, ZeroDivisionError])
def test_a_mistake_in_a_persons_suggest_is_no_refusal(kind):
    def wrong(trial, scale):
        raise kind("a mistake")

    with pytest.raises(kind, match="a mistake") as caught:
        hunt(suggest=wrong).play(FixedTrial(params(2)), Bench(lambda point: 1.0), list)
    assert caught.traceback[-1].path == Path(__file__)


def test_budgets_of_memory_and_experts_are_those_of_the_cost_model():
    found = memory_budget("1MiB", precision=Precision.FP32)
    spec, recipe = suggest(FixedTrial(params(1)), None)
    assert found.limit == 2**20
    assert (
        found.by_arithmetic(spec, recipe)
        == cost.training_bytes(spec, batch=2, tokens=16, itemsize=4, device="cpu").total
    )
    assert expert_budget(8).by_arithmetic(spec, recipe) == 0


def test_objectives_take_the_longest_context_unless_told():
    spec, recipe = suggest(FixedTrial(params()), None)
    bench = Bench(lambda point: 2.0, lambda point: 4.0)
    record = bench(Point(arm="a", seed=0, spec=spec, recipe=recipe))
    assert decode_tokens_per_s().of(record) == 250.0
    assert decode_tokens_per_s(8).of(record) == 2000.0
    assert cache_bytes().of(record) == 20
    with pytest.raises(ValueError, match="decode_ms was not measured at 9; measured were"):
        decode_tokens_per_s(9).of(record)


def test_the_rate_is_tuned_on_its_own_seed_and_the_best_is_used_for_every_seed():
    bench = Bench(lambda point: abs(math.log10(point.recipe.lr) + 2) + 1)
    searched = hunt(rates=Rates(grid=(1e-3, 1e-2, 1e-1), seed=77), seeds=(0, 1))
    assert searched.play(FixedTrial(params()), bench, list) == (1.0,)
    assert [p.seed for p in bench.points] == [77, 77, 77, 0, 1]
    assert [p.recipe.lr for p in bench.points[3:]] == [1e-2, 1e-2]


def test_a_best_rate_at_the_edge_warns_and_is_noted():
    bench = Bench(lambda point: point.recipe.lr)
    trial = FixedTrial(params())
    with pytest.warns(UserWarning, match="at the edge of the rates, at lr=0.001"):
        hunt(rates=Rates(grid=(1e-3, 1e-2))).play(trial, bench, list)
    assert trial.user_attrs[LR_AT_EDGE] == 1e-3


def test_a_rate_that_diverges_loses():
    bench = Bench(lambda point: math.inf if point.recipe.lr > 5e-2 else 1 / point.recipe.lr)
    searched = hunt(rates=Rates(grid=(1e-3, 1e-2, 1e-1)))
    assert searched.play(FixedTrial(params()), bench, list) == (100.0,)


@pytest.mark.parametrize(
    ("losses", "margin", "rate", "at_edge"),
    [
        ({1e-3: 2.0, 1e-2: 1.0, 1e-1: 3.0}, 0.0, 1e-2, False),
        ({1e-3: 1.005, 1e-2: 1.0, 1e-1: 3.0}, 0.01, 1e-3, False),
        ({1e-3: 2.0, 1e-2: 1.0, 1e-1: 0.5}, 0.0, 1e-1, True),
        ({1e-3: 2.0}, 0.0, 1e-3, False),
    ],
)
def test_choosing_a_rate(losses, margin, rate, at_edge):
    chosen = choose(losses, margin)
    assert (chosen.rate, chosen.at_edge) == (rate, at_edge)


def test_no_finite_loss_is_an_error_that_names_the_rates():
    with pytest.raises(ValueError, match=r"0\.1.*gave a finite loss"):
        choose({0.1: math.inf})


def test_a_latency_above_its_limit_ends_a_trial_before_its_first_step():
    bench = Bench(lambda point: 1.0, lambda point: 3.0)
    trial = FixedTrial(params())
    with pytest.raises(NotComplete) as failure:
        hunt(constraints=lambda scale: (decode_latency(2.0),)).play(trial, bench, list)
    assert failure.value.record.outcome is Outcome.PRUNED
    assert bench.stopped == "decode_latency is above its limit of 2"
    assert trial.constraints == {"decode_latency": 1.0}


def ends(losses: Sequence[float], **changes) -> list[TrialState]:
    """Run a search over given losses with Optuna's own study; return how its trials ended."""
    searched = hunt(**changes)
    # Hyperband draws a trial's bracket from the study's name, which would be another each time.
    study = optuna.create_study(study_name="ends", pruner=searched.pruner())
    states = []
    for loss in losses:
        study.enqueue_trial(params())
        trial = study.ask()
        try:
            values = searched.play(
                trial, Bench(lambda point, loss=loss: loss), lambda: study.trials
            )
            study.tell(trial, values)
        except (NotComplete, optuna.TrialPruned):
            study.tell(trial, state=TrialState.PRUNED)
        states.append(study.trials[-1].state)
    return states


def test_hyperband_ends_a_run_that_is_behind_at_a_rung():
    def pruner() -> optuna.pruners.BasePruner:
        return optuna.pruners.HyperbandPruner(min_resource=2, max_resource=8, reduction_factor=2)

    states = ends([1.0, 1.1, *[9.0] * 12], rungs=(0.25, 0.5), pruner=pruner)
    assert states[0] is TrialState.COMPLETE
    assert TrialState.PRUNED in states[2:]


def test_wilcoxon_ends_a_trial_whose_seeds_are_all_worse():
    def pruner() -> optuna.pruners.BasePruner:
        return optuna.pruners.WilcoxonPruner(p_threshold=0.2, n_startup_steps=2)

    states = ends([1.0, 2.0], seeds=tuple(range(8)), pruner=pruner)
    assert states == [TrialState.COMPLETE, TrialState.PRUNED]


def test_rungs_compare_nats_per_token_and_so_want_one_vocabulary():
    others = [finished([1.0], vocab=999)]
    with pytest.raises(ValueError, match="one vocabulary; got 300 and 999"):
        hunt(rungs=(0.5,)).play(FixedTrial(params()), Bench(lambda point: 1.0), lambda: others)


PAIR = {"objectives": (bits_per_byte(), decode_tokens_per_s())}


def outcome(decode_ms: float, loss: float, others, **changes) -> str | None:
    """Return why a trial of a search with two objectives was ended, None if it was not."""
    bench = Bench(lambda point: loss, lambda point: decode_ms)
    try:
        hunt(**(PAIR | changes)).play(FixedTrial(params()), bench, lambda: others)
    except NotComplete:
        return bench.stopped
    return None


def test_a_trial_that_cannot_matter_is_ruled_out_before_training():
    best = [finished([1.0, 1000.0])]  # the least loss so far, and fast
    assert "at least as good" in outcome(2.0, 0.9, best)
    assert outcome(0.5, 0.9, best) is None  # faster: it matters whatever its loss


def test_slack_says_how_much_of_an_improvement_may_be_given_up():
    others = [finished([1.0, 1000.0]), finished([0.9, 1.0])]  # fast; and the least loss, but slow
    assert outcome(2.0, 0.8, others) is None
    assert "at least as good" in outcome(2.0, 0.8, others, slack={"bits_per_byte": 0.11})


def test_a_trial_as_expensive_and_behind_at_a_rung_is_ruled_out():
    others = [finished([1.0, 1000.0], **{RUNGS: {"4": 1.0}}), finished([0.5, 1.0])]
    rule = {"rungs": (0.5,), "margin": 0.3}
    assert "its loss at step 4 was lower" in outcome(2.0, 1.5, others, **rule)
    assert outcome(2.0, 1.2, others, **rule) is None  # within the margin
    assert outcome(0.5, 1.5, others, **rule) is None  # cheaper


def test_what_was_measured_early_is_kept_with_the_trial():
    trial = FixedTrial(params())
    hunt(**PAIR, rungs=(0.25, 0.5)).play(trial, Bench(lambda point: 2.0), list)
    assert trial.user_attrs[EARLY] == {"decode_tokens_per_s": 1000.0}
    assert trial.user_attrs[RUNGS] == {"2": 2.0, "4": 2.0}


VALUES = st.lists(st.integers(0, 3), min_size=2, max_size=2)


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_the_front_agrees_with_optuna(vectors):
    directions = ["minimize", "maximize"]
    study = optuna.create_study(directions=directions)
    for vector in vectors:
        study.add_trial(create_trial(values=vector))
    assert pareto.front(vectors, directions) == [t.number for t in study.best_trials]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives": ()}, "needs at least one objective"),
        ({"n_trials": {"cpu": 1}}, r"n_trials is for \['cpu'\], its scales are \['smoke'\]"),
        ({"rungs": (1.5,)}, "must lie in 0..1"),
        ({"rungs": (0.5,), "seeds": (0, 1)}, "leave rungs empty"),
    ],
)
def test_a_wrong_search_cannot_be_made(changes, said):
    with pytest.raises(ValueError, match=said):
        made(**changes)


@pytest.mark.parametrize("scale", tradeoff.SWEEP.scales)
def test_what_the_tradeoff_search_suggests_is_matched_or_refused(scale):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    searched = Hunt(search=tradeoff.SWEEP, scale=scale, engine=HERE)
    active, refusals = [], []
    for _ in range(20):
        trial = study.ask()
        try:
            active.append(cost.active_params(searched._suggest(trial)[0]))
        except Refused as refusal:
            refusals.append(str(refusal))
        study.tell(trial, 0.0)
    assert len(active) >= 10
    assert max(active) / min(active) < 1.05
    assert all("fit" in said for said in refusals)
