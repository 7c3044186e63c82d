"""Tells the trials of one design from those of another, so that no mean is taken over both.

A *design* is what an arm trains: its model and its recipe without the seed. The path of a text does
not belong to it, for the `text_sha256` of a record says what the text was. A *setting* is what a
trial ran on and through, as far as losses and speeds depend on it.

All functions take and return rows of `sweeps.results.load`. They expect complete trials.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, get_args

import pandas as pd

from hybrid import codec
from hybrid.spec import ModelSpec
from sweeps.sweep import Sweep
from sweeps.trial.data.sources import OwnText, PackagedText, Source, TextFile
from sweeps.trial.recipe import Recipe

SETTING = {  # column -> its name in a sentence
    "device": "device",
    "ops": "ops",
    "compiled": "compile",
    "parallel": "parallel",
    "world_size": "processes",
    "precision": "precision",
    "versions.torch": "torch",
}
NULLS = {"compiled": "off", "parallel": "none", "world_size": 1}  # what older records did not say
TEXT, TOKENIZER = "text_sha256", "tokenizer_sha256"
OWN_TEXT = "own_text"  # column that `of_sweep` adds: the text that the sweep names for the arm
GIVEN = TextFile(path="any")  # stands for every text of one's own
SHOWN = 3  # differences that a message names
ADVICE = "`sweeps.results.newest(trials)` takes those that ran last"


@dataclass(frozen=True)
class Chosen:
    """The trials of a sweep as it is now, and in words how many others were left out."""

    trials: pd.DataFrame
    left_out: tuple[str, ...]


def one(trials: pd.DataFrame) -> pd.DataFrame:
    """Return `trials` with each seed of an arm once, the one that ran last.

    Raises ValueError where an arm has several designs, or where texts or settings differ.
    """
    require_one_text(trials)
    for column, name in SETTING.items():
        _require_one_value(_column(trials, column), column, name)
    for arm, rows in by_time(trials).groupby("arm", sort=False):
        _require_one_design(str(arm), rows)
    return _distinct(trials)


def require_one_text(trials: pd.DataFrame) -> None:
    """Raise ValueError where trials were made on texts of different content.

    Arms that a sweep itself trains on texts of their own may differ, where `of_sweep` chose them.
    """
    texts = _column(trials, TEXT)
    for _, mine in texts.groupby(_column(trials, OWN_TEXT)):
        _require_one_value(mine, TEXT, "text")


def newest(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that are comparable with the one that ran last.

    They have its scale, its setting, the text that was trained on last, and the design that each
    arm had last.
    """
    rows = by_time(trials)
    if rows.empty:
        return rows
    rows = rows[_column(rows, "scale") == _column(rows, "scale").iloc[-1]]
    rows = by_setting(rows)[0][1]
    rows = _of_last_text(rows)
    last = {arm: designs.iloc[-1] for arm, designs in _designs(rows).groupby(rows["arm"])}
    return _distinct(rows[_designs(rows) == rows["arm"].map(last)])


def of_sweep(sweep: Sweep, scale: str, trials: pd.DataFrame) -> Chosen:
    """Return the trials of `sweep` as it is now, on the text that was trained on last.

    Settings may differ: `by_setting` parts them. Raises ValueError for an unknown scale.
    """
    asked: dict[tuple[str, int], set[str]] = {}
    own = {}
    for point in sweep.points(scale, None):
        spec, source = codec.dumps(point.spec), point.recipe.source
        sources: list[Source] = [source, *([GIVEN] if source == PackagedText() else [])]
        recipes = [codec.dumps(replace(point.recipe, source=x)) for x in sources]
        asked[point.arm, point.seed] = {_model_and_recipe(spec, recipe) for recipe in recipes}
        own[point.arm] = codec.dumps(source)
    places = zip(trials["arm"], trials["seed"], _pairs(trials), strict=True)
    mine = by_time(trials[[pair in asked.get((arm, seed), ()) for arm, seed, pair in places]])
    mine = mine.assign(**{OWN_TEXT: mine["arm"].map(own)})
    texts = [_of_last_text(rows) for _, rows in mine.groupby(OWN_TEXT, sort=False)]
    on_last = by_time(pd.concat(texts)) if texts else mine
    kept = pd.concat([_distinct(rows) for _, rows in by_setting(on_last)]) if texts else mine
    counts = {
        "of another model, recipe or seed than the sweep has now": len(trials) - len(mine),
        "on another text or tokenizer": len(mine) - len(on_last),
        "of a seed that a later trial has": len(on_last) - len(kept),
    }
    said = tuple(f"{n} {_trials(n)} {what}" for what, n in counts.items() if n)
    return Chosen(kept, said)


def by_setting(trials: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return (what differs, in words, and the trials) of each setting, that of the last one first.

    The words are "" where there is one setting.
    """
    rows = by_time(trials)
    table = pd.DataFrame({c: _column(rows, c) for c in SETTING}, index=rows.index)
    groups = sorted(_places(table), key=lambda group: group[1][-1], reverse=True)
    varied = [i for i, column in enumerate(SETTING) if table[column].nunique() > 1]
    names = list(SETTING.values())
    return [
        (", ".join(f"{names[i]} {setting[i]}" for i in varied), rows.loc[places])
        for setting, places in groups
    ]


def by_time(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order in which they started, numbered from 0."""
    ordered = trials
    if "started_utc" in trials:
        ordered = trials.sort_values("started_utc", kind="stable")
    return ordered.reset_index(drop=True)


def _places(table: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    found: dict[tuple[str, ...], list[int]] = {}
    for place, row in zip(table.index, table.itertuples(index=False), strict=True):
        found.setdefault(tuple(row), []).append(place)
    yield from found.items()


def _column(trials: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as text, with "" for what was not recorded."""
    if name not in trials:
        return pd.Series(str(NULLS.get(name, "")), index=trials.index)
    values = trials[name].where(trials[name].notna(), NULLS.get(name, ""))
    # A column with nulls holds whole numbers as floats.
    return values.map(lambda x: str(int(x)) if isinstance(x, float) else str(x))


def _of_last_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows on the text that was trained on last, each arm's with one tokenizer.

    Rows of made-up tasks have no text and stay.
    """
    texts = _column(rows, TEXT)
    known = texts[texts != ""]
    if known.empty:
        return rows
    rows = rows[texts.isin(["", known.iloc[-1]])]
    tokenizers = _column(rows, TOKENIZER)
    last = {arm: found.iloc[-1] for arm, found in tokenizers.groupby(rows["arm"])}
    return rows[tokenizers == rows["arm"].map(last)]


def _distinct(trials: pd.DataFrame) -> pd.DataFrame:
    return by_time(trials).drop_duplicates(["arm", "seed"], keep="last")


def _pairs(trials: pd.DataFrame) -> list[str]:
    columns = zip(_column(trials, "spec"), _column(trials, "recipe"), strict=True)
    return [_model_and_recipe(spec, recipe) for spec, recipe in columns]


def _designs(trials: pd.DataFrame) -> pd.Series:
    """Return a text for each row that is equal for equal designs and tokenizers."""
    pairs = pd.Series(_pairs(trials), index=trials.index, dtype=object)
    return pairs + "\n" + _column(trials, TOKENIZER)


def _model_and_recipe(spec: str, recipe: str) -> str:
    return f"{_model(spec)}\n{_without_seed(recipe)}"


@lru_cache(maxsize=4096)
def _model(spec: str) -> str:
    """Return a model as JSON, whatever the defaults were when it was written.

    What newer code wrote and this code cannot read stays as it is.
    """
    try:
        return codec.dumps(codec.loads(ModelSpec, spec))
    except ValueError:
        return spec


@lru_cache(maxsize=4096)
def _without_seed(recipe: str) -> str:
    """Return a recipe as JSON, as above, without its seed and without what a text is called."""
    try:
        given = codec.loads(Recipe, recipe)
    except ValueError:
        return _without_seed_of_newer_code(recipe)
    source = GIVEN if isinstance(given.source, OwnText) else given.source
    return codec.dumps(replace(given, seed=0, source=source))


def _without_seed_of_newer_code(recipe: str) -> str:
    try:
        given = json.loads(recipe)
    except ValueError:
        return recipe
    if given["source"]["kind"] in (kind.__name__ for kind in get_args(OwnText)):
        given["source"] = codec.encode(GIVEN)
    return json.dumps(given | {"seed": 0})


def _require_one_value(values: pd.Series, column: str, name: str) -> None:
    found = [x for x in dict.fromkeys(values) if x or column != TEXT]
    if len(found) > 1:
        said = " and ".join(repr(x[:12]) for x in found)
        raise ValueError(
            f"these trials differ in their {name} (column {column}: {said}), so no mean is taken "
            f"over them; {ADVICE}, or choose rows by that column"
        )


def _require_one_design(arm: str, rows: pd.DataFrame) -> None:
    found = list(dict.fromkeys(_designs(rows)))
    if len(found) > 1:
        raise ValueError(
            f"arm {arm!r} has trials of {len(found)} designs ({_difference(*found[:2])}), which "
            f"are no seeds of one; {ADVICE}, or choose rows by the columns spec and recipe"
        )


def _difference(a: str, b: str) -> str:
    """Return in words where two designs differ first."""
    names = ("model", "recipe")
    said = []
    for name, *two in zip(names, a.split("\n"), b.split("\n"), strict=False):
        first, second = (_leaves(text, name) for text in two)
        for path in dict.fromkeys([*first, *second]):
            if first.get(path) != second.get(path):
                said.append(f"{path}: {first.get(path)!r} and {second.get(path)!r}")
    return ", ".join(said[:SHOWN]) or "their tokenizers differ"


def _leaves(text: str, name: str) -> dict[str, Any]:
    """Return each number and word in JSON by its path. Text that is no JSON is one word."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return dict(_walk(value, name))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict | list):
        yield path, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _walk(item, f"{path}.{key}")


def _trials(count: int) -> str:
    return "trial" if count == 1 else "trials"
