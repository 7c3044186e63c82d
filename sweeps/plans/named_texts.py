"""Finds the texts of one's own that a search's `suggest` names, before any trial is run.

A changed text makes another study of a search, so they must be known when the study is named. Only
`suggest` knows them. It is asked for DRAWS random choices, the same at every call. A text that none
of them names is no part of the study's name; it is part of the name of each run on it.
"""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import BaseTrial

from hybrid.spec import ModelSpec, SpecError
from sweeps.trial.data.sources import OwnText
from sweeps.trial.recipe import Recipe

DRAWS = 32


def named_texts(
    suggest: Callable[[BaseTrial, Any], tuple[ModelSpec, Recipe]], scale: Any
) -> set[OwnText]:
    """Return the texts of one's own among what `suggest` draws, as they are written there.

    A choice of which no spec can be made names none. Every other error of `suggest` comes out.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    found = set()
    for _ in range(DRAWS):
        try:
            _, recipe = suggest(study.ask(), scale)
        except SpecError:
            continue
        if isinstance(recipe.source, OwnText):
            found.add(recipe.source)
    return found
