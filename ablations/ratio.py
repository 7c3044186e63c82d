"""Hybrid against pure models in bits per byte (Table 4), at equal total parameters.

The shapes are those of `sweeps/ratio.py`, which stays the demonstration; here seeds are five, rates
are tuned for each arm before, and the test split decides. Two shorter runs of every arm, on
validation data alone, tell whether a gap grows with training.
"""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from ablations import figures, rows, trend
from ablations.evidence import Evidence, better, no_difference
from ablations.finding import SEEDS, Claim, Finding, Matters
from ablations.published import LOG_PROBS, TABLE_4
from ablations.testable import learned_text
from ablations.tuned import MARGIN, Comparison, tested
from ablations.verdict import Part
from hybrid.spec import ModelSpec
from sweeps import ratio
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe
from sweeps.tuning import Rates

ATTENTION, THREE, SEVEN, MAMBA = ARMS = ("1:0", "1:3", "1:7", "0:1")
PAPER_ROWS = {
    ATTENTION: "Attention",
    THREE: "Jamba 1:3",
    SEVEN: "Jamba 1:7",
    MAMBA: "Mamba",
}
UNIT = "% of bits per byte"

CLAIM = Claim(
    sentence=(
        "At equal size, a hybrid of attention and Mamba at 1:7 needs fewer bits per byte than "
        "pure attention and than pure Mamba, and 1:3 and 1:7 do not differ."
    ),
    source=TABLE_4,
    refuted_by=(
        "a 95% interval of the hybrid's gain over either pure model that lies below what matters, "
        "or of the difference between 1:3 and 1:7 that lies outside it"
    ),
    matters=Matters(
        value=1.0,
        unit=UNIT,
        why=(
            "half of what the paper's hybrid gains (1.9% and 2.2% of the log-probability per "
            "byte); a fraction, because small models have far more bits per byte to lose"
        ),
    ),
)

SCALES: dict[str, ratio.Scale] = {
    "smoke": replace(ratio.SCALES["smoke"], steps=4, valid_tokens=256, contexts=(64,)),
    "cpu": replace(ratio.SCALES["cpu"], contexts=(256,)),
    "gpu": replace(
        ratio.SCALES["gpu"],
        vocab=4096,
        width=256,
        hidden=640,
        blocks=2,
        heads=4,
        kv_heads=2,
        steps=400,
        batch=16,
        contexts=(1024,),
    ),
    # Size, tokens and 24 layers (attention at 4, 12 and 20) are the paper's; the rest it does not
    # state, and is this workbench's choice.
    "paper": replace(
        ratio.SCALES["gpu"],
        vocab=65_536,
        width=2048,
        hidden=3072,
        blocks=3,
        heads=16,
        kv_heads=8,
        steps=59_605,
        batch=1024,
        tokens=4096,
        contexts=(4096,),
    ),
}
# As Tables 5 and 7 have it, 7B parameters and 50B tokens: the released model's layers, with MLPs
# that make up the size.
PAPER_7B = replace(
    SCALES["paper"], width=4096, hidden=8704, blocks=4, heads=32, kv_heads=8, steps=11_921
)
RATES: Mapping[str, Rates] = {
    "smoke": Rates(grid=(2e-3, 4e-3), margin=MARGIN),
    "cpu": Rates(grid=(1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), margin=MARGIN),
    "gpu": Rates(grid=(1e-3, 2e-3, 4e-3, 8e-3), margin=MARGIN),
    "paper": Rates(grid=(1e-4, 2e-4, 4e-4, 8e-4), margin=MARGIN),
}
# Fewer rates, for arms that take longer to train.
FOUR_RATES = {**RATES, "cpu": Rates(grid=(1e-3, 2e-3, 4e-3, 8e-3), margin=MARGIN)}
THREE_RATES = {**RATES, "cpu": Rates(grid=(2e-3, 4e-3, 8e-3), margin=MARGIN)}


def sweep(name: str, share: int, question: str) -> Sweep:
    """Return the sweep over ARMS at 1/share of the steps; only a whole one measures the test."""

    def point(arm: str, seed: int, scale: ratio.Scale) -> tuple[ModelSpec, Recipe]:
        spec, recipe = ratio.point(arm, seed, replace(scale, steps=scale.steps // share))
        return spec, tested(recipe) if share == 1 else recipe

    return Sweep(
        name=name,
        question=question,
        arms=ARMS,
        seeds=SEEDS,
        scales=SCALES,
        point=point,
        matched=ratio.MATCHED,
        figure=figures.losses,
    )


WHOLE = sweep("finding-ratio", 1, "Is a hybrid better than either pure model?")
HALF = sweep("finding-ratio-half", 2, "Was it so with half of the tokens?")
QUARTER = sweep("finding-ratio-quarter", 4, "Was it so with a quarter of the tokens?")


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    losses = rows.losses(found[found["sweep"] == WHOLE.name], rows.TEST)
    matters = CLAIM.matters.value

    def part(name: str, other: str, seen: Evidence) -> Part:
        paper = TABLE_4.percent_less(PAPER_ROWS[SEVEN], PAPER_ROWS[other], LOG_PROBS)
        return Part(name=name, unit=UNIT, seen=seen, paper=paper)

    over = {other: rows.percent_fewer(losses, SEVEN, other) for other in (ATTENTION, MAMBA, THREE)}
    return (
        part("1:7 gains over attention", ATTENTION, better(over[ATTENTION], matters=matters)),
        part("1:7 gains over Mamba", MAMBA, better(over[MAMBA], matters=matters)),
        part("1:7 is as 1:3", THREE, no_difference(over[THREE], within=matters)),
    )


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Say how the gains change over three lengths of training, on validation data."""
    lines = {
        "1:7 over attention": _trend(found, ATTENTION),
        "1:7 over Mamba": _trend(found, MAMBA),
    }
    matters = CLAIM.matters.value
    return tuple(
        trend.sentence(name, line, matters=matters, unit="%", of="training tokens")
        for name, line in lines.items()
        if line is not None
    )


def gains_by_length(found: pd.DataFrame, other: str) -> pd.DataFrame:
    """Return what 1:7 gains over `other` on validation data, a row for each length and seed."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "tokens": float(of_length["train_tokens"].max()),
                    "over": other,
                    "gain": rows.percent_fewer(rows.losses(of_length, rows.VALID), SEVEN, other),
                }
            )
            for name in (QUARTER.name, HALF.name, WHOLE.name)
            for of_length in (found[found["sweep"] == name],)
        ],
        ignore_index=True,
    )


def _trend(found: pd.DataFrame, other: str) -> trend.Trend | None:
    """Return the line through the gains over `other`; None where a run diverged."""
    gains = gains_by_length(found, other)
    if gains["gain"].isna().any():
        return None
    return trend.fit(list(gains["tokens"]), list(gains["gain"]))


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with hybrids that gain 5% or, if not `holds`, lose as much."""
    hybrid = 0.95 if holds else 1.05
    return rows.imagine_losses(found, {THREE: hybrid, SEVEN: hybrid})


FINDING = Finding(
    name="ratio",
    claim=CLAIM,
    comparisons=(
        Comparison(sweep=WHOLE, rates=RATES),
        Comparison(sweep=HALF, rates=RATES, tuned_on=WHOLE),
        Comparison(sweep=QUARTER, rates=RATES, tuned_on=WHOLE),
    ),
    gates=learned_text,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="5945946cca2962fc3d377fde1f8093a428e6ae7b",
)
