"""Is the hybrid's gain the same at three sizes (Table 5 beside Table 4), and where does it lead?

The paper has two sizes, 1.3B (Table 4) and 7B (Table 5). Its log-probabilities at 7B could not be
confirmed in a second source, so only those at 1.3B stand beside ours.
"""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from ablations import ratio, rows, shapes, trend
from ablations.finding import Claim, Finding, Matters
from ablations.published import LOG_PROBS, TABLE_4, TABLE_5
from ablations.ratio import ATTENTION, MAMBA, PAPER_7B, PAPER_ROWS, SEVEN, THREE_RATES, UNIT
from ablations.testable import learned_text
from ablations.tuned import Comparison
from ablations.verdict import Part
from hybrid.units import count_text
from sweeps.ratio import Scale

CLAIM = Claim(
    sentence=(
        "At each of three sizes the 1:7 hybrid needs fewer bits per byte than pure attention and "
        "than pure Mamba of that size."
    ),
    source=TABLE_5,
    refuted_by=(
        "a 95% interval of the hybrid's gain over either pure model, at any of the sizes, that "
        "lies below what matters"
    ),
    matters=Matters(value=1.0, unit=UNIT, why="as in the finding on the ratio"),
)
PURE = (ATTENTION, MAMBA)
SMALL, MIDDLE, LARGE = SIZES = ("small", "middle", "large")
SMOKE, CPU, GPU, PAPER = (ratio.SCALES[name] for name in ("smoke", "cpu", "gpu", "paper"))
SCALES: dict[str, Mapping[str, Scale]] = {
    SMALL: {
        "smoke": SMOKE,
        "cpu": replace(CPU, width=32, hidden=80, heads=2, kv_heads=2, steps=100),
        "gpu": replace(GPU, width=128, hidden=320, heads=2, kv_heads=2),
        "paper": PAPER,
    },
    MIDDLE: {
        "smoke": replace(SMOKE, width=48, hidden=96),
        "cpu": replace(CPU, width=64, hidden=168, steps=100),
        "gpu": GPU,
        "paper": replace(PAPER, width=3072, hidden=4608, heads=24),  # between the paper's two
    },
    LARGE: {
        "smoke": replace(SMOKE, width=64, hidden=128),
        "cpu": replace(CPU, width=128, hidden=336, steps=100),
        "gpu": replace(GPU, width=384, hidden=960, heads=6, kv_heads=3),
        "paper": PAPER_7B,
    },
}
MODELS: dict[str, shapes.Model] = {
    ATTENTION: lambda scale: shapes.matched(scale, ATTENTION),
    SEVEN: lambda scale: shapes.matched(scale, SEVEN),
    MAMBA: lambda scale: shapes.matched(scale, MAMBA),
}
SWEEPS = {
    size: shapes.sweep(
        f"finding-ratio-{size}", f"Is a hybrid better, {size}?", MODELS, SCALES[size]
    )
    for size in SIZES
}


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    def part(size: str, other: str) -> Part:
        of_size = _of(found, size)
        paper = TABLE_4.percent_less(PAPER_ROWS[SEVEN], PAPER_ROWS[other], LOG_PROBS)
        return Part(
            name=f"{SEVEN} gains over {other}, {count_text(_params(of_size))} parameters",
            unit=UNIT,
            seen=shapes.gains(of_size, SEVEN, other, matters=CLAIM.matters.value),
            paper=paper,
        )

    return tuple(part(size, other) for size in SIZES for other in PURE)


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Say how the gains change over the sizes, on validation data."""
    said = ["the paper's numbers are those at 1.3B parameters"]
    for other in PURE:
        sizes: list[float] = []
        seen: list[float] = []
        for size in SIZES:
            of_size = _of(found, size)
            gain = rows.percent_fewer(rows.losses(of_size, rows.VALID), SEVEN, other)
            sizes += [float(_params(of_size))] * len(gain)
            seen += gain
        if not pd.isna(seen).any():
            line = trend.fit(sizes, seen)
            said.append(
                trend.sentence(
                    f"{SEVEN} over {other}",
                    line,
                    matters=CLAIM.matters.value,
                    unit="%",
                    of="parameters",
                )
            )
    return tuple(said)


def _of(found: pd.DataFrame, size: str) -> pd.DataFrame:
    return found[found["sweep"] == SWEEPS[size].name]


def _params(of_size: pd.DataFrame) -> int:
    return int(of_size["params"].median())


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with hybrids that gain 5% or, if not `holds`, lose as much."""
    return rows.imagine_losses(found, {SEVEN: 0.95 if holds else 1.05})


FINDING = Finding(
    name="ratio_size",
    claim=CLAIM,
    comparisons=tuple(Comparison(sweep=SWEEPS[size], rates=THREE_RATES) for size in SIZES),
    gates=learned_text,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="2143ba7da0c3ed7816e18ed030743f6438732662",
)
