"""A search: a space of architectures and recipes, what is wanted of them, and what they must obey.

    SWEEP = Search(
        name="cheap-recall",
        question="Which ratio and experts give the lowest loss at a fast decode?",
        scales={"cpu": SCALE},
        n_trials={"cpu": 40},
        suggest=lambda trial, scale: (spec_of(trial.suggest_categorical("ratio", RATIOS)), RECIPE),
        objectives=(bits_per_byte(), decode_tokens_per_s()),
        constraints=lambda scale: (memory_budget("2GiB", precision=Precision.BF16),),
    )

`suggest` is Optuna's own: what it may choose is written with `trial.suggest_*`. What is matched
(equal parameters, say) is `suggest`'s business, with `hybrid.fit`. A choice of which no spec can be
made (`hybrid.spec.SpecError`) is refused, and the place tries another. Any other error ends the
worker.

A search with another `suggest`, sampler, objective, constraint or rule of pruning is another study.
It takes over the records that it would have made itself.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import combinations, product
from statistics import mean
from typing import Any

from optuna.exceptions import ExperimentalWarning, TrialPruned
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import BaseTrial

from hybrid import codec
from hybrid.spec import ModelSpec, SpecError, require, require_positive
from sweeps import design_checks
from sweeps.plans.digest import digest
from sweeps.plans.grid import held_out_value
from sweeps.plans.named_texts import named_texts
from sweeps.plans.objectives import Constraint, Objective
from sweeps.plans.plan import LENIENT, Direction, History, Judge, NotComplete, Obtain, Refused
from sweeps.plans.rules import Limits, ParetoRule, PrunerRule, Window
from sweeps.sweep import Point
from sweeps.trial.data.sources import Source, on_text
from sweeps.trial.data.streams import content_of, pinned
from sweeps.trial.engine import Engine
from sweeps.trial.events import Event
from sweeps.trial.file_names import file_part, require_distinct, require_short
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome, Record
from sweeps.tuning import Rates, choose

LR_AT_EDGE = "lr_at_edge"  # user attribute of a trial whose best rate was the first or the last

VOCAB = "vocab"  # user attribute
LONGEST_ARM = f"999:999-{'0' * 8}"  # as _arm makes one; layers in lowest terms, then a hash


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to look for, and where; `scales` are whatever `suggest` wants as its second argument."""

    name: str
    question: str
    scales: Mapping[str, Any]
    n_trials: Mapping[str, int]  # by name of the scale; those refused by arithmetic do not count
    suggest: Callable[[BaseTrial, Any], tuple[ModelSpec, Recipe]]
    objectives: tuple[Objective, ...]
    constraints: Callable[[Any], tuple[Constraint, ...]] = lambda scale: ()  # of the scale
    seeds: tuple[int, ...] = (0,)
    rates: Rates | None = None  # tune the learning rate of every architecture
    matched: str | None = None  # what `suggest` makes equal between trials
    sampler: Callable[[int], BaseSampler] = lambda seed: TPESampler(seed=seed)
    pruner: Callable[[], BasePruner] = NopPruner
    rungs: tuple[float, ...] = ()  # fractions of the steps where a run may be ended
    slack: Mapping[str, float] = field(default_factory=dict)  # see sweeps/plans/rules.py
    margin: float = 0.0  # nats per token; see sweeps/plans/rules.py

    def __post_init__(self):
        owner = design_checks.check_name_and_scales("Search", self.name, self.scales)
        design_checks.check_same_scales(owner, "n_trials", self.n_trials, self.scales)
        for scale, count in self.n_trials.items():
            require_positive(f"{owner}, scale {scale!r}", n_trials=count)
        design_checks.check_seeds(owner, self.seeds)
        design_checks.check_trial_names(
            owner, self.name, [LONGEST_ARM], dict.fromkeys(self.scales, self._all_seeds)
        )
        self._check_objectives(owner)
        self._check_rules(owner)
        if self.rungs and len(self.seeds) > 1:
            raise ValueError(
                f"search {self.name!r}: with several seeds a trial is judged after each seed; "
                "leave rungs empty"
            )

    @property
    def _all_seeds(self) -> tuple[int, ...]:
        return self.seeds if self.rates is None else (*self.seeds, self.rates.seed)

    def _check_objectives(self, owner: str) -> None:
        """Check that there are objectives, and that no two figures of them have one name."""
        names = [objective.name for objective in self.objectives]
        require(len(names) > 0, f"{owner}: it needs at least one objective")
        require_distinct(f"{owner}: objectives", names)
        pairs = [f"{one}-{other}" for one, other in combinations(names, 2)]
        require_distinct(f"{owner}: pairs of objectives", pairs)
        for scale, drawn in product(self.scales, [*pairs, *names]):
            figure = f"{self.name}-{scale}-importance-{file_part(drawn)}.svg"
            require_short(f"{owner}: objective {drawn!r}", figure)

    def _check_rules(self, owner: str) -> None:
        """Check what decides when a run is ended early, and on which seeds."""
        require(
            all(0 < rung < 1 for rung in self.rungs),
            f"{owner}: rungs={self.rungs!r} must lie in 0..1",
        )
        require(
            0 <= self.margin < math.inf,
            f"{owner}: margin={self.margin!r} must be finite and 0 or more",
        )
        names = {objective.name for objective in self.objectives}
        require(
            self.slack.keys() <= names and all(0 <= x < math.inf for x in self.slack.values()),
            f"{owner}: slack={dict(self.slack)!r} must hold finite numbers of 0 or more, by names "
            f"of objectives: {', '.join(sorted(names))}",
        )
        require(
            self.rates is None or self.rates.seed not in self.seeds,
            f"{owner}: the seed of rates is for tuning, and is one of seeds={self.seeds!r} too",
        )

    @property
    def varies(self) -> str:
        """Say what differs between trials."""
        return f"a search for {', '.join(f'{x.direction} {x.name}' for x in self.objectives)}"


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """A search as a plan: numbered places, and a sampler that chooses what is tried at each.

    Raises ValueError for a scale that the search does not have.
    """

    search: Search
    scale: str
    source: Source | None = None  # None: what the recipes name
    engine: Engine

    def __post_init__(self):
        if self.scale not in self.search.scales:
            raise ValueError(
                f"sweep {self.name!r} has no scale {self.scale!r}; "
                f"it has {', '.join(self.search.scales)}"
            )

        require_distinct(
            f"Search {self.name!r}: constraints",
            [constraint.name for constraint in self.constraints],
        )

    @property
    def name(self) -> str:
        return self.search.name

    @property
    def directions(self) -> tuple[Direction, ...]:
        return tuple(objective.direction for objective in self.search.objectives)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return self.search.constraints(self.search.scales[self.scale])

    @property
    def identity(self) -> str:
        search = self.search
        text = None if self.source is None else content_of(pinned(self.source))
        parts = [json.dumps(text, sort_keys=True), *self._own_texts]
        kind = self.engine.device.partition(":")[0]  # which GPU it is decides nothing
        engine = replace(self.engine, device=kind)
        parts += [codec.dumps(engine), codec.dumps(search.seeds)]
        space = [digest(search.suggest), digest(search.sampler)]
        scale = digest(search.scales[self.scale])
        return "\n".join([*parts, *space, self.rules, str(search.rates), scale])

    @cached_property
    def _own_texts(self) -> list[str]:
        """Return the contents of the texts that `suggest` names where none is given."""
        if self.source is not None:
            return []
        found = named_texts(self.search.suggest, self.search.scales[self.scale])
        return sorted({json.dumps(content_of(self._pins(text))) for text in found})

    @property
    def rules(self) -> str:
        search = self.search
        wanted = [digest(x) for x in (*search.objectives, *self.constraints)]
        early = digest(search.pruner), digest(search.rungs, search.slack, search.margin)
        return digest(*wanted, *early)

    def texts(self) -> set[tuple[Source, int]]:
        return set()  # known only when something was suggested

    def places(self) -> Mapping[str, Mapping[str, Any]]:
        return {f"{i:05d}": {} for i in range(self.search.n_trials[self.scale])}

    def sampler(self, seed: int) -> BaseSampler:
        with _chosen_knowingly():
            return self.search.sampler(seed)

    def pruner(self) -> BasePruner:
        with _chosen_knowingly():
            return self.search.pruner()

    def play(self, trial: BaseTrial, obtain: Obtain, history: History) -> Sequence[float]:
        spec, recipe = self._suggest(trial)
        self._keep_to_arithmetic(trial, spec, recipe)
        if self.search.rates is not None:
            rate = self._tuned(trial, self.search.rates, spec, recipe, obtain)
            recipe = replace(recipe, lr=rate)
        return self._compare(trial, spec, recipe, obtain, history)

    def _suggest(self, trial: BaseTrial) -> tuple[ModelSpec, Recipe]:
        """Return what the search suggests. Raises Refused where a spec says that it cannot be.

        Every other error is a mistake in `suggest`, and comes out as it is.
        """
        try:
            spec, recipe = self.search.suggest(trial, self.search.scales[self.scale])
        except SpecError as error:
            raise Refused(str(error)) from error
        given = None if self.source is None else self._pins(self.source)
        return spec, replace(recipe, source=on_text(self._pins(recipe.source), given))

    @cached_property
    def _pins(self) -> Callable[[Source], Source]:
        """Return what pins a source, reading each text once for all places."""
        return cache(pinned)

    def _keep_to_arithmetic(self, trial: BaseTrial, spec: ModelSpec, recipe: Recipe) -> None:
        broken = []
        for constraint in self.constraints:
            if constraint.by_arithmetic is not None:
                value = constraint.by_arithmetic(spec, recipe)
                trial.set_constraint(constraint.name, value - constraint.limit)
                if value > constraint.limit:
                    broken.append(f"{constraint.name}: {value:,.0f} > {constraint.limit:,.0f}")
        if broken:
            raise OverBudget("; ".join(broken), point=self._point(spec, recipe))

    def _tuned(
        self, trial: BaseTrial, rates: Rates, spec: ModelSpec, recipe: Recipe, obtain: Obtain
    ) -> float:
        losses = {}
        for rate in rates.grid:
            # Speed is the comparison's business: one context keeps tuning cheap.
            tuning = replace(recipe, lr=rate, seed=rates.seed, contexts=recipe.contexts[:1])
            try:
                losses[rate] = held_out_value(obtain(self._point(spec, tuning)))
            except NotComplete as failure:
                if failure.record.outcome is not Outcome.DIVERGED:
                    raise
                losses[rate] = math.inf
        chosen = choose(losses, rates.margin)
        if chosen.at_edge:
            trial.set_user_attr(LR_AT_EDGE, chosen.rate)
            warnings.warn(
                f"{self._arm(spec)}: the least loss is at the edge of the rates, at "
                f"lr={chosen.rate:g}; a better rate may lie outside",
                stacklevel=2,
            )
        return chosen.rate

    def _compare(
        self,
        trial: BaseTrial,
        spec: ModelSpec,
        recipe: Recipe,
        obtain: Obtain,
        history: History,
    ) -> tuple[float, ...]:
        """Return each objective's mean over the seeds; with several, any may be the last."""
        if self.search.rungs:
            self._require_one_vocabulary(trial, spec, history)
        judge = self._judge(trial, recipe, history)
        found: list[Record] = []
        for index, seed in enumerate(self.search.seeds):
            # Speed does not depend on the seed: the first run has told what there is to tell early.
            point = self._point(spec, replace(recipe, seed=seed))
            found.append(obtain(point, LENIENT if index else judge))
            if len(self.search.seeds) > 1 and len(self.search.objectives) == 1:
                trial.report(self.search.objectives[0].of(found[-1]), index)
                if trial.should_prune():
                    raise TrialPruned(f"the pruner ended it after {index + 1} seed(s)")
        return tuple(mean(objective.of(x) for x in found) for objective in self.search.objectives)

    def _require_one_vocabulary(self, trial: BaseTrial, spec: ModelSpec, history: History) -> None:
        """Rungs compare nats per token, which mean something else with another vocabulary."""
        trial.set_user_attr(VOCAB, spec.vocab)
        others = {t.user_attrs.get(VOCAB, spec.vocab) for t in history()} - {spec.vocab}
        if others:
            raise ValueError(
                f"search {self.name!r} has rungs, so all its models need one vocabulary; "
                f"got {spec.vocab} and {others.pop()}"
            )

    def _judge(self, trial: BaseTrial, recipe: Recipe, history: History) -> Judge:
        search = self.search
        window = Window(rungs=search.rungs, steps=recipe.steps)
        limits = Limits(trial=trial, constraints=self.constraints)
        rule: PrunerRule | ParetoRule
        if len(search.objectives) == 1:
            rule = PrunerRule(trial=trial, window=window)
        else:
            rule = ParetoRule(
                trial=trial,
                window=window,
                objectives=search.objectives,
                slack=search.slack,
                margin=search.margin,
                history=history,
            )

        def note(event: Event) -> None:
            limits.note(event)
            rule.note(event)

        def stop(event: Event) -> str | None:
            return limits.stop(event) or rule.stop(event)

        early = [x.early for x in self.constraints] + [x.early for x in search.objectives]
        return Judge(note=note, stop=stop, cheap_first=any(x is not None for x in early))

    def _point(self, spec: ModelSpec, recipe: Recipe) -> Point:
        return Point(
            arm=self._arm(spec),
            seed=recipe.seed,
            spec=spec,
            recipe=recipe,
            matched=self.search.matched,
        )

    def _arm(self, spec: ModelSpec) -> str:
        """Return a name for an architecture: equal for equal specs, whatever trial chose them."""
        digest = hashlib.sha256(codec.dumps(spec).encode()).hexdigest()[:8]
        return f"{spec.ratio}-{digest}"


@contextmanager
def _chosen_knowingly() -> Iterator[None]:
    """Silence Optuna's note that what a search names is experimental: every worker would say it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


class OverBudget(Refused):
    """Refused by arithmetic, with the point that would have been run."""

    by = "by arithmetic"

    def __init__(self, reason: str, *, point: Point):
        super().__init__(reason)
        self.point = point
