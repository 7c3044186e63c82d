"""The sweep that findings on memory and speed share: every ratio at a few contexts, barely trained.

No loss of it is read, so no rate is tuned. Its seeds are as many processes, each timed in its own.
"""

from collections.abc import Callable, Hashable
from dataclasses import replace

import pandas as pd

from ablations import figures, rows
from ablations.finding import SEEDS
from ablations.ratio import PAPER_7B, SCALES
from ablations.tuned import Comparison
from hybrid.cost import cache_bytes
from hybrid.law_grids import mamba_layers
from hybrid.laws import judge
from sweeps import ratio, results
from sweeps.sweep import Sweep
from sweeps.trial.device import itemsize
from sweeps.trial.recipe import Precision

STEPS = 6
CONTEXTS = {
    "smoke": (64, 256),
    "cpu": (256, 1024, 4096, 16_384),
    "gpu": (1024, 8192, 32_768, 131_072),
    "paper": (1024, 8192, 32_768, 131_072),
}

SWEEP = Sweep(
    name="finding-cost",
    question="What do memory and speed do with the ratio and the context?",
    arms=ratio.ARMS,
    seeds=SEEDS,
    scales={
        name: replace(
            scale,
            steps=STEPS,
            valid_tokens=scale.batch * scale.tokens,
            contexts=CONTEXTS[name],
        )
        for name, scale in {**SCALES, "paper": PAPER_7B}.items()
    },
    point=ratio.point,
    matched=ratio.MATCHED,
    figure=figures.cost,
)
COMPARISON = Comparison(sweep=SWEEP, rates=None)


def contexts(found: pd.DataFrame) -> list[int]:
    """Return the contexts that were measured, shortest first."""
    return sorted(map(int, results.keys(found, "cache_bytes")))


def counted_cache(found: pd.DataFrame, context: int) -> pd.Series:
    """Return the bytes of cache after `context` tokens by arithmetic, of each row's model."""
    pairs = zip(found["spec"], found["precision"], strict=True)
    return pd.Series(
        [
            cache_bytes(
                rows.spec_of(spec), batch=1, tokens=context, itemsize=itemsize(Precision(precision))
            )
            for spec, precision in pairs
        ],
        index=found.index,
    )


def m_of(found: pd.DataFrame) -> pd.Series:
    """Return m, the number of Mamba layers, of each row."""
    return found["spec"].map(rows.spec_of).map(mamba_layers)


def law_errors(
    found: pd.DataFrame, law: str, formula: Callable[[int], float], values: pd.Series
) -> list[float]:
    """Return the worst error of a formula of m over the arms with Mamba, in %, for each seed.

    After the best single factor (hybrid.laws.judge).
    """
    m = m_of(found)
    table = rows.by_seed(found[m > 0], values[m > 0])
    m_of_arm = dict(zip(found["arm"], m, strict=True))

    def worst_error(seed: dict[Hashable, float]) -> float:
        pairs = [(formula(m_of_arm[arm]), value) for arm, value in seed.items()]
        return judge(law=law, quantity=law, pairs=pairs).worst_error

    return [100 * worst_error(seed) for seed in table.to_dict("records")]
