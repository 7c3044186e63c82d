"""Any sweep's rows: what is in them, one column against another, pairs of arms, training curves.

trials = results.load("my-sweep")
explore.summary(trials, ("bits_per_byte", "params"))   # mean, interval and seeds of each arm
explore.paired(trials, "bits_per_byte", over="1:0")    # differences of the same seed
explore.against(trials, x="params", y="bits_per_byte") # a figure of any two columns
"""

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from hybrid import codec
from sweeps import designs, results
from sweeps.results import complete, keys
from sweeps.show.figures import COLOURS, STYLE, label, look, spread_labels
from sweeps.show.statistics import interval
from sweeps.trial.recipe import Recipe

LOSS = "valid_bits_per_byte"
SMOOTH = 10  # steps of a training curve that are averaged


def with_loss(trials: pd.DataFrame) -> pd.DataFrame:
    """Return `trials` with `bits_per_byte`, the validation loss as a mean over domains."""
    domains = [f"{LOSS}.{key}" for key in keys(trials, LOSS)]
    return trials.assign(bits_per_byte=trials[domains].mean(axis=1, skipna=False))


def with_recipe(trials: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return `trials` with fields of their recipes as columns, such as `lr` or `batch`."""
    recipes = [codec.loads(Recipe, recipe) for recipe in trials["recipe"]]
    return trials.assign(**{name: [getattr(r, name) for r in recipes] for name in names})


def summary(trials: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return mean and half of the 95% interval of `columns` over the complete seeds of each arm.

    Raises ValueError where an arm has several designs, as `results.by_arm` does.
    """
    rows: dict[str, dict[str, float]] = {}
    for arm, mine in results.by_arm(trials):
        row = rows[str(arm)] = {"seeds": len(mine)}
        for column in columns:
            row[column], row[f"{column} ±"], _ = interval(mine[column])
    return pd.DataFrame.from_dict(rows, orient="index")


def paired(trials: pd.DataFrame, column: str, *, over: str) -> pd.DataFrame:
    """Return how far each arm is from the arm `over`, in percent: seeds, mean and 95% interval.

    Only seeds that both have are compared. One seed has no interval. Raises ValueError where an arm
    has several designs, as `results.by_arm` does.
    """
    table = designs.one(complete(trials)).pivot(index="seed", columns="arm", values=column)
    rows = {}
    for arm in table.columns.drop(over):
        percent = 100 * (table[arm] / table[over] - 1)
        mean, half, n = interval(percent)
        rows[arm] = {"seeds": n, "percent": mean, "low": mean - half, "high": mean + half}
    return pd.DataFrame.from_dict(rows, orient="index")


def against(trials: pd.DataFrame, *, x: str, y: str, log_x: bool = False) -> Figure:
    """Return column `y` against column `x`: a mark a trial, an arm named beside its rightmost.

    Raises ValueError where an arm has several designs, as `results.by_arm` does.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        for index, (arm, rows) in enumerate(results.by_arm(trials)):
            colour, marker = look(index)
            axes.plot(rows[x], rows[y], marker, color=colour, ms=5, alpha=0.6, mew=0)
            last = rows.sort_values(x).iloc[-1]
            label(axes, str(arm), (last[x], last[y]), colour, marker)
        axes.set_xscale("log" if log_x else "linear")
        axes.margins(x=0.12)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        spread_labels(figure)
    return figure


def training(curves: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Return the training loss against tokens: a thin line a run, averaged over a few steps.

    Raises ValueError where an arm has several designs, as `results.by_arm` does.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for index, (arm, rows) in enumerate(results.by_arm(trials)):
            colour = COLOURS[index % len(COLOURS)]
            mine = curves.merge(rows[["run_id", "attempt"]], on=["run_id", "attempt"])
            for _, run in mine.groupby("run_id"):
                smooth = run.sort_values("step")["nats_per_token"].rolling(SMOOTH).mean()
                axes.plot(run.sort_values("step")["tokens"], smooth, color=colour, lw=1, alpha=0.8)
            label(axes, str(arm), (mine["tokens"].max(), smooth.iloc[-1]), colour)
        axes.set_xlabel("training tokens")
        axes.set_ylabel(f"training loss, nats/token, mean of {SMOOTH} steps")
        spread_labels(figure)
    return figure
