"""The rows of a DataFrame that are the runs of a design, all of them and nothing else.

A run is of the design if its sweep, scale, arm, seed, model and recipe are. In place of the default
text there may be another, one for all. Texts are known by their sha256. Seeds that the design does
not name are not looked at: a verdict is not bought by trying more of them.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from hybrid import codec
from hybrid.spec import ModelSpec
from sweeps import results
from sweeps.sweep import Sweep
from sweeps.trial.data.sources import OwnText, PackagedText, Source, Synthetic
from sweeps.trial.data.streams import content_of, pinned
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Outcome

TEXT = PackagedText()
TEST, VALID = "test_bits_per_byte", "valid_bits_per_byte"
TEST_TASKS, VALID_TASKS = "test_task_accuracy", "task_accuracy"
LENGTH, INSIDE = "length_bits_per_byte", "activation_max"


class NotRun(LookupError):
    """Records are missing that a design asks for."""


def of_design(sweep: Sweep, scale: str, trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each point of `sweep` at `scale`, in the design's order.

    Runs that diverged are rows too, with missing losses. Raises NotRun where a point has no row,
    ValueError where it has two, or where rows differ in their text.
    """
    settled = [outcome.value for outcome in Outcome if outcome.settled]
    mine = trials[
        (trials["sweep"] == sweep.name)
        & (trials["scale"] == scale)
        & trials["outcome"].isin(settled)
    ]
    places = _places(mine)
    points = sweep.points(scale, None)
    keys = [_key(p.recipe, content_of(pinned(p.recipe.source))) for p in points]
    found = [places.get((p.arm, p.spec, key), []) for p, key in zip(points, keys, strict=True)]
    missing = sum(not rows for rows in found)
    if missing:
        raise NotRun(f"{missing} of {len(points)} runs of {sweep.name} have no record")
    for point, rows in zip(points, found, strict=True):
        if len(rows) > 1:
            raise ValueError(
                f"{sweep.name}: arm {point.arm!r}, seed {point.seed} has {len(rows)} records: "
                f"{', '.join(mine['run_id'].iloc[rows])}; give a folder that holds one of them"
            )
    together = mine.iloc[[place for (place,) in found]]
    on_default = [p.recipe.source == TEXT for p in points]
    if together.loc[on_default, "text_sha256"].dropna().nunique() > 1:
        raise ValueError(f"the records of {sweep.name} were made on different texts")
    return together


def by_seed(rows: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """Return `values` with a row for each seed and a column for each arm."""
    table = pd.DataFrame({"seed": rows["seed"], "arm": rows["arm"], "value": values})
    return table.pivot(index="seed", columns="arm", values="value")


def losses(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return bits per byte, mean over domains, by seed and arm; NaN where a run diverged.

    `column` is TEST, which only verdicts read, or VALID. Raises NotRun where it was not measured.
    """
    domains = measured(rows, column)
    complete = results.complete(rows)
    if not domains or complete[domains].isna().to_numpy().any():
        raise NotRun(f"not every run of {rows['sweep'].iloc[0]} has a {column}")
    return by_seed(rows, rows[domains].mean(axis=1))


def accuracies(rows: pd.DataFrame, column: str, *words: str) -> pd.DataFrame:
    """Return the share of right answers by seed and arm, NaN where a run diverged: the mean over
    the probes in whose name all of `words` stand.

    `column` is TEST_TASKS, which only verdicts read, or VALID_TASKS. Raises NotRun where no such
    probe was measured, or not by every run.
    """
    probes = _probes(rows, column, *words)
    if not probes or results.complete(rows)[probes].isna().to_numpy().any():
        asked = f"{column} of {' and '.join(words)}" if words else column
        raise NotRun(f"not every run of {rows['sweep'].iloc[0]} has a {asked}")
    return by_seed(rows, rows[probes].mean(axis=1))


def to_tune_by(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what rates are chosen by, less being better, by seed and arm: validation data alone.

    Bits per byte of text; of tasks, the share that was not right, mean over probes.
    """
    if measured(rows, VALID_TASKS):
        return 1 - accuracies(rows, VALID_TASKS)
    return losses(rows, VALID)


def measured(rows: pd.DataFrame, column: str) -> list[str]:
    """Return the columns of a mapped column that any of these rows has a value of."""
    names = [f"{column}.{key}" for key in results.keys(rows, column)]
    return [name for name in names if rows[name].notna().any()]


def percent_fewer(losses: pd.DataFrame, arm: str, other: str) -> list[float]:
    """Return by how many percent `arm` needs fewer bits than `other`, for each seed."""
    return list(100 * (1 - losses[arm] / losses[other]))


def log_ratio(values: pd.DataFrame, arm: str, other: str) -> list[float]:
    """Return the natural logarithm of `arm` over `other`, for each seed."""
    return list(np.log(values[arm] / values[other]))


def imagine_losses(rows: pd.DataFrame, factors: Mapping[str, float]) -> pd.DataFrame:
    """Return `rows` with the losses of each arm multiplied by its factor, if it has one."""
    factor = rows["arm"].map(dict(factors)).fillna(1.0)
    columns = [str(name) for name in rows if str(name).startswith((f"{TEST}.", f"{VALID}."))]
    return rows.assign(**{name: factor * rows[name] for name in columns})


def points_more(shares: pd.DataFrame, arm: str, other: str) -> list[float]:
    """Return by how many percentage points the share of `arm` is above `other`'s, by seed."""
    return list(100 * (shares[arm] - shares[other]))


def imagine_shares(rows: pd.DataFrame, shares: Mapping[str, float], *words: str) -> pd.DataFrame:
    """Return `rows` with the right answers of each arm around its share, if it has one, for the
    probes in whose name all of `words` stand. A tenth of what differs stays as noise around it.
    """
    wanted = rows["arm"].map(dict(shares))
    changed = {}
    for column in _probes(rows, TEST_TASKS, *words):
        noise = 1 + (rows[column] / rows[column].mean() - 1) / 10
        changed[column] = (wanted * noise).clip(upper=1.0).fillna(rows[column])
    return rows.assign(**changed)


def _probes(rows: pd.DataFrame, column: str, *words: str) -> list[str]:
    """Return the measured probes in whose name all of `words` stand, as names of columns."""
    return [
        name
        for name in measured(rows, column)
        if all(f" {word} " in f" {name.removeprefix(f'{column}.')} " for word in words)
    ]


@lru_cache(maxsize=4096)
def recipe_of(text: str) -> Recipe:
    recipe: Recipe = codec.loads(Recipe, text)
    return recipe


@lru_cache(maxsize=4096)
def spec_of(text: str) -> ModelSpec:
    spec: ModelSpec = codec.loads(ModelSpec, text)
    return spec


def _places(trials: pd.DataFrame) -> dict[tuple[str, ModelSpec, str], list[int]]:
    """Return where the rows of each arm, model and recipe are.

    A row on any text also stands where the same recipe on the default text does.
    """
    places: dict[tuple[str, ModelSpec, str], list[int]] = {}
    columns = zip(*(trials[x] for x in ("arm", "spec", "recipe", "text_sha256")), strict=True)
    for place, (arm, spec, told, sha256) in enumerate(columns):
        recipe = recipe_of(told)
        keys = {_key(recipe, _content(recipe.source, sha256))}
        if not isinstance(recipe.source, Synthetic):
            keys.add(_key(recipe, content_of(TEXT)))
        for key in keys:
            places.setdefault((arm, spec_of(spec), key), []).append(place)
    return places


def _content(source: Source, sha256: str | None) -> Mapping[str, Any]:
    """Return what identifies the source of a record; older ones name their text by a path alone."""
    if not isinstance(source, OwnText) or source.text_sha256 is not None:
        return content_of(source)
    if isinstance(sha256, str):
        return content_of(replace(source, text_sha256=sha256))
    return dict(codec.encode(source))  # ended before its text was read


def _key(recipe: Recipe, content: Mapping[str, Any]) -> str:
    """Return what identifies a recipe, with the content of its source in place of a path."""
    return json.dumps({**codec.encode(recipe), "source": content}, sort_keys=True)
