"""Evaluations of a run on tasks while it trains: accuracy over training, and when to end.

A level counts as reached at the first of two evaluations in a row that are at or above it, so that
one lucky evaluation is not enough. A run ends at its criterion's level by the same rule. All
evaluations take the same validation draws, so they are a function of the weights alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from hybrid.model import HybridLM
from hybrid.spec import require
from sweeps.trial.data import synthetic
from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.measure import task_scores
from sweeps.trial.recipe import Criterion, Precision, Recipe

LEVELS = (0.5, 0.9, 0.99)  # accuracies whose tokens a record has


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The accuracy on validation draws after so many steps and tokens of training."""

    steps: int
    tokens: int
    accuracy: float


def evaluator(model: HybridLM, recipe: Recipe, precision: Precision) -> Callable[[], float]:
    """Return a function that measures the accuracy that the criterion of `recipe` is about.

    It leaves the model in training mode. Raises ValueError where the criterion names a key that no
    probe of the source has.
    """
    source, criterion = recipe.source, recipe.criterion
    assert isinstance(source, Synthetic)
    assert criterion is not None
    known = {
        key: probe
        for probe in source.probes
        for key in synthetic.score_keys(probe, model.spec.vocab)
    }
    wanted = criterion.keys or tuple(known)
    unknown = [key for key in wanted if key not in known]
    require(not unknown, f"Criterion: keys has unknown {unknown}, known are {list(known)}")
    probes = [probe for probe in source.probes if probe in {known[key] for key in wanted}]

    def accuracy() -> float:
        shares: dict[str, float] = {}
        for probe in probes:
            shares |= task_scores(model, probe, recipe, precision, Split.VALID).shares
        model.train()
        return fmean(shares[key] for key in wanted)

    return accuracy


def tokens_to(evaluations: Sequence[Evaluation], level: float) -> int | None:
    """Return the tokens after which accuracy was at `level`, or None where it never was."""
    return next(
        (
            first.tokens
            for first, second in pairwise(evaluations)
            if min(first.accuracy, second.accuracy) >= level
        ),
        None,
    )


def tokens_to_accuracy(criterion: Criterion, evaluations: Sequence[Evaluation]) -> dict[float, int]:
    """Return the tokens to each level that was reached, of LEVELS and the criterion."""
    levels = sorted({*LEVELS, criterion.accuracy})
    found = {level: tokens_to(evaluations, level) for level in levels}
    return {level: tokens for level, tokens in found.items() if tokens is not None}


def is_met(criterion: Criterion, evaluations: Sequence[Evaluation]) -> bool:
    """Return whether the last two evaluations are at the criterion."""
    return tokens_to(evaluations[-2:], criterion.accuracy) is not None
