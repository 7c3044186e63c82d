"""The seed's formulas against the clock and the allocator; `hybrid/law_grids.py` has exact counts.

The page docs/laws.md is made from here, out of the committed sweeps `moe-grid` and `ratio`.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hybrid import codec
from hybrid.laws import Verdict, judge, memory_share, moe_cost, throughput_share
from hybrid.spec import ModelSpec, StateSpace
from sweeps import moe_grid, results

HEAD = """# The seed's formulas against measurements

Made by `python -m sweeps docs` from `results/published/moe-grid` and `results/published/ratio`
(scale `cpu`, medians over seeds); do not edit. A formula may be off by one common factor: the best
one is divided out before the worst error is taken. [cost.md](cost.md) holds the same formulas
against exact counts in the size of the released model.

| formula | against | settings | rank correlation | worst error | verdict |
|---|---|---:|---:|---:|---|
"""

TAIL = """
A verdict is computed from its two numbers (`hybrid.laws.Verdict.text`): the order is right from a
rank correlation of 0.95 on, the size up to 10% of error. The machine was shared, so part of an
error is noise; memory is the resident set of the process above what it held before the model was
built, which includes the allocator's slack.
"""


def verdicts(folder: Path) -> list[Verdict]:
    """Return the verdicts over the records of both sweeps under `folder`."""
    grid = _by_arm(results.load("moe-grid", folder=folder, scale="cpu"))
    ratio = _by_arm(results.load("ratio", folder=folder, scale="cpu"))
    mamba = ratio[ratio["m"] > 0]  # 1/m means nothing without Mamba layers
    return [
        _verdict("C = (n/e) K", moe_grid_cost, "training time a token", grid, _training_time),
        _verdict("K/e", active_share, "training time a token", grid, _training_time),
        _verdict("C = (n/e) K", moe_grid_cost, "training memory", grid, _training_memory),
        _verdict("n/e", stored_share, "training memory", grid, _training_memory),
        _verdict("1/m", by_m(memory_share), "cache at 4096", mamba, _column("cache_bytes.4096")),
        _verdict("1/m", by_m(memory_share), "training memory", mamba, _training_memory),
        _verdict(
            "m",
            by_m(throughput_share),
            "prefill tokens/s at 4096",
            mamba,
            _column("prefill_tokens_per_s.4096"),
        ),
        _verdict(
            "m",
            by_m(throughput_share),
            "decoded tokens/s at 4096",
            mamba,
            lambda row: 1e3 / row["decode_ms.4096"],
        ),
        _verdict(
            "m",
            by_m(throughput_share),
            "training tokens/s",
            mamba,
            _column("train_tokens_per_s"),
        ),
    ]


def page(folder: Path) -> str:
    """Return docs/laws.md."""
    rows = [
        f"| {v.law} | {v.quantity} | {v.points} | {v.rank_correlation:.2f} "
        f"| {100 * v.worst_error:.0f}% | {v.text} |"
        for v in verdicts(folder)
    ]
    return HEAD + "\n".join(rows) + "\n" + TAIL


Measure = Callable[[pd.Series], float]


def moe_grid_cost(row: pd.Series) -> float:
    return moe_cost(*moe_grid.SETTINGS[str(row.name)])


def active_share(row: pd.Series) -> float:
    """K/e: the experts one token uses, per layer."""
    _, top_k, e = moe_grid.SETTINGS[str(row.name)]
    return top_k / e


def stored_share(row: pd.Series) -> float:
    """n/e: the experts that are held, per layer."""
    n, _, e = moe_grid.SETTINGS[str(row.name)]
    return n / e


def by_m(formula: Callable[[int], float]) -> Measure:
    return lambda row: formula(int(row["m"]))


def _column(name: str) -> Measure:
    return lambda row: float(row[name])


def _training_time(row: pd.Series) -> float:
    return 1 / row["train_tokens_per_s"]


def _training_memory(row: pd.Series) -> float:
    return row["train_peak_bytes"] - row["baseline_bytes"]


def _by_arm(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row an arm: medians over seeds, and m, the number of Mamba layers."""
    arms = results.by_arm(trials)
    table = arms.median(numeric_only=True)
    table["m"] = arms["spec"].first().map(_mamba_layers)
    return table.sort_index()


def _mamba_layers(spec_json: str) -> int:
    spec = codec.loads(ModelSpec, spec_json)
    return sum(isinstance(layer.mixer, StateSpace) for layer in spec.layers)


def _verdict(
    law: str, formula: Measure, quantity: str, table: pd.DataFrame, measured: Measure
) -> Verdict:
    pairs = [(formula(row), measured(row)) for _, row in table.iterrows()]
    return judge(law=law, quantity=quantity, pairs=pairs)
