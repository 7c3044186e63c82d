"""ExpertsInt8 of Jamba-1.5: the weights of experts in 8 bits, and what that does to the loss.

One arm: nothing is trained differently. Every run is measured twice, with its experts as they were
trained and with the same ones in 8 bits, so a pair differs in that alone. Which learning rate is
best cannot depend on what is done after training; it is tuned all the same, since weights of a
badly trained model could round better or worse. How fast a token is decoded is shown and not
judged: the paper's kernel is for GPUs and much larger matrices.
"""

from dataclasses import replace
from math import nan

import pandas as pd

from ablations import figures, moe, ratio, rows
from ablations.evidence import counted, no_difference
from ablations.finding import SEEDS, Claim, Finding, Matters
from ablations.published import EXPERTS_INT8
from ablations.ratio import THREE_RATES, UNIT
from ablations.rows import NotRun
from ablations.testable import ILL, learned_text
from ablations.tuned import Comparison, tested
from ablations.verdict import Gate, Part
from hybrid import cost
from hybrid.cost import Weights
from hybrid.presets import JAMBA_V0_1
from hybrid.spec import ModelSpec
from sweeps import ratio as ratio_sweep
from sweeps import results
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

ARM = "two of n"
INT8, HELD, DECODE = "int8_bits_per_byte", "int8_expert_bytes", "int8_decode_ms"
SMALLER = 1.9  # times; two would leave no room for scales
STEPS = 160  # on a CPU
CLAIM = Claim(
    sentence=(
        "Most of a Jamba's weights are in its experts, at least 85%; holding those in 8 bits "
        f"instead of 16 takes {SMALLER:g} times less memory or better, and does not change the "
        "bits per byte of the 1:7 hybrid."
    ),
    source=EXPERTS_INT8,
    refuted_by=(
        "a counted share of the experts below 85%, bytes that are not so much smaller, or a 95% "
        "interval of the change in bits per byte that lies outside what matters"
    ),
    matters=Matters(
        value=0.1,
        unit=UNIT,
        why="a tenth of what the finding on the ratio calls a gain; the paper says no loss at all",
    ),
)


def point(arm: str, seed: int, scale: moe.Scale) -> tuple[ModelSpec, Recipe]:
    _, recipe = ratio_sweep.point(ratio.SEVEN, seed, scale.shape)
    return moe.same_shape(scale), tested(replace(recipe, measure_int8=True))


SWEEP = Sweep(
    name="finding-experts-int8",
    question="What do experts in 8 bits do to the loss?",
    arms=(ARM,),
    seeds=SEEDS,
    scales={
        **moe.SIZES,
        "cpu": replace(moe.SIZES["cpu"], shape=replace(moe.SIZES["cpu"].shape, steps=STEPS)),
    },
    point=point,
    matched="the trained model itself",
    figure=figures.losses,
)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    figure = "no rounding that is known to cost, such as 4 bits, was run beside 8"
    return (*learned_text(found), Gate(name=ILL, passed=False, figure=figure))


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    share = EXPERTS_INT8.number("Jamba-1.5", "share")
    in_experts = 100 * cost.param_parts(JAMBA_V0_1).experts / cost.params(JAMBA_V0_1)
    smaller = least_smaller(found)
    return (
        Part(
            name="weights of the released Jamba v0.1 that are in experts",
            unit="%",
            seen=counted(in_experts, bar=share, under="parameters, routers left out"),
            paper=share,
        ),
        Part(
            name="8 bits cost",
            unit=UNIT,
            seen=no_difference(changes(found), within=CLAIM.matters.value),
        ),
        Part(
            name="experts in bf16 over what they hold in 8 bits, least over runs",
            unit="times",
            seen=counted(smaller, bar=SMALLER, under="bytes held, scales included"),
        ),
    )


def changes(found: pd.DataFrame) -> list[float]:
    """Return by how many percent bits per byte of test text rise with 8 bits, for each seed."""
    whole, int8 = (rows.losses(found, column)[ARM] for column in (rows.TEST, INT8))
    return list(100 * (int8 / whole - 1))


def least_smaller(found: pd.DataFrame) -> float:
    """Return how many times fewer bytes experts were measured to hold than bf16 would take."""
    held = found[HELD].dropna() if HELD in found else pd.Series(dtype=float)
    if held.empty:
        raise NotRun(f"no run of {SWEEP.name} has {HELD}")
    in_bf16 = found["spec"].map(lambda text: cost.expert_bytes(rows.spec_of(text), Weights.BF16))
    return float((in_bf16 / held).min())


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Show the time of a decoded token in 8 bits over that of the plain model, by context."""
    return tuple(
        f"decoding after {context} tokens takes {_times(found, context):.3g} times as long in 8 "
        "bits, median over seeds, not judged"
        for context in results.keys(found, DECODE)
    )


def _times(found: pd.DataFrame, context: str) -> float:
    plain = f"decode_ms.{context}"
    return (found[f"{DECODE}.{context}"] / found[plain]).median() if plain in found else nan


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with the same loss in 8 bits or, if not `holds`, 1% more."""
    factor = 1.0 if holds else 1.01
    keys = results.keys(found, rows.TEST)
    return found.assign(**{f"{INT8}.{key}": factor * found[f"{rows.TEST}.{key}"] for key in keys})


FINDING = Finding(
    name="experts_int8",
    claim=CLAIM,
    comparisons=(Comparison(sweep=SWEEP, rates=THREE_RATES),),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="228590b8c57792c6092b55d6ce0e8aa32a66a452",
)
