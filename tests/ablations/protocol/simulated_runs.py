"""Rows of made-up records for every run that a finding reads: no effect, a little scatter."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ablations.protocol.comparison import Comparison, Run
from ablations.protocol.finding import Finding
from hybrid import codec, cost

DOMAINS = ("books", "web", "code", "code_long")
SCATTER = 0.001  # of a loss, as a share
BEST_RATE = 4e-3
LOSS, BIGRAM = 1.8, 2.4
EXPERT_LOAD = [[0.5, 0.6, 0.4, 0.5]]


def of_finding(
    finding: Finding, scale: str, *, holds: bool | None = None, n_seeds: int | None = None
) -> pd.DataFrame:
    """Return rows of all runs of `finding`. `holds` None leaves all arms equal."""
    seeds = finding.looks[0] if n_seeds is None else n_seeds
    rows = [
        row
        for reading in finding.reads
        for row in of_comparison(reading.comparison, scale, reading.all_arms, seeds)
    ]
    table = pd.DataFrame(rows)
    return table if holds is None else finding.simulate(table, holds)


def of_comparison(
    comparison: Comparison, scale: str, arms: Iterable[str], n_seeds: int
) -> list[dict[str, Any]]:
    """Return one row for each base rate and seed of `arms`."""
    generator = np.random.default_rng(0)
    return [
        row_of(comparison, scale, (arm, rate, seed), generator)
        for arm in arms
        for rate in comparison.base_rates[scale][arm]
        for seed in range(n_seeds)
    ]


def row_of(
    comparison: Comparison, scale: str, run: Run, generator: np.random.Generator, **changes: Any
) -> dict[str, Any]:
    """Return the row that one run would have."""
    point = comparison.point(scale, run)
    recipe = point.recipe
    rates = comparison.base_rates[scale][run[0]]
    from_best = abs(np.log2(run[1] / rates[len(rates) // 2]))

    def around(value: float) -> float:
        return value * (1 + 0.02 * from_best) * (1 + SCATTER * generator.standard_normal())

    columns = {
        "valid_bits_per_byte": LOSS,
        "test_bits_per_byte": LOSS,
        "context_early_bits_per_byte": 1.1 * LOSS,
        "context_late_bits_per_byte": LOSS,
        "context_shuffled_bits_per_byte": 1.1 * LOSS,
        "context_unshuffled_bits_per_byte": LOSS,
    }
    baselines = {
        "test_bits_per_byte_bigram": BIGRAM,
        "test_bits_per_byte_bigram_domain": 1.02 * BIGRAM,
        "test_bits_per_byte_bigram_windows": 1.05 * BIGRAM,
    }
    return {
        "run_id": f"{comparison.name}-{scale}-{point.arm}-s{point.seed}",
        "attempt": 0,
        "sweep": comparison.name,
        "scale": scale,
        "arm": point.arm,
        "seed": point.seed,
        "outcome": "complete",
        "spec": codec.dumps(point.spec),
        "recipe": codec.dumps(recipe),
        "params": cost.params(point.spec),
        "branch_of": None,
        "text_sha256": "0" * 64,
        "git_commit": "1" * 40,
        "machine": "made up",
        "train_tokens": recipe.steps * recipe.batch * recipe.tokens,
        "expert_load": EXPERT_LOAD,
        **{f"{name}.{d}": around(value) for name, value in columns.items() for d in DOMAINS},
        **{f"{name}.{d}": value for name, value in baselines.items() for d in DOMAINS},
        **changes,
    }
