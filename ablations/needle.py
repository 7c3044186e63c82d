"""Needles by length and depth with no, one, two and four attention layers of eight (Figure 4).

The paper finds a single statement in contexts of up to 256K tokens with four attention layers. Here
a prompt holds a key with its value in filler, or two of them; a model is trained at one length and
asked at half of it, at the whole and at twice of it, each at five depths.
"""

from dataclasses import replace

import pandas as pd

from ablations import rows, shapes, tasks
from ablations.evidence import at_most, better, no_difference
from ablations.finding import Claim, Finding
from ablations.published import FIGURE_4
from ablations.ratio import MAMBA, SCALES, SEVEN, THREE
from ablations.recall import ONE
from ablations.tasks import POINTS, RATES, SHAPES, Size
from ablations.testable import learned_task
from ablations.tuned import MARGIN, Comparison
from ablations.verdict import Gate, Part
from sweeps.trial.data.tasks import Needle, Probe
from sweeps.tuning import Rates

MISSED = 10.0  # % of the needles at the worst depth
CLAIM = Claim(
    sentence=(
        "One attention layer in eight finds a needle at every depth of a prompt as long as those "
        "of training, where pure Mamba does not, and further attention layers add nothing."
    ),
    source=FIGURE_4,
    refuted_by=(
        f"a 95% interval of what the 1:7 hybrid misses at its worst depth above {MISSED:g}%, one "
        "of its gain over pure Mamba below what matters, or one of what 1:1 gains over it that "
        "lies outside"
    ),
    matters=tasks.TEN_POINTS,
)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LENGTHS = (0.5, 1, 2)  # times the length of training
NEEDLES = (1, 2)  # in turn; asked for are the most, where a model must tell one from another
LAYERS = {MAMBA: 0, SEVEN: 1, THREE: 2, ONE: 4}  # of eight, that are attention
TOKENS = {"smoke": 32, "cpu": 32, "gpu": 512, "paper": SCALES["paper"].tokens}
# One rate fewer, for models of twice the layers.
TWO_RATES = {**RATES, "cpu": Rates(grid=(4e-3, 8e-3), margin=MARGIN)}


def model(arm: str) -> shapes.Model:
    return lambda scale: shapes.matched(scale, arm)


def size(scale: str) -> Size:
    tokens = TOKENS[scale]
    shape = replace(SHAPES[scale], tokens=tokens, contexts=(tokens,))
    if shape.l < 8:  # as everywhere but at the published size
        shape = replace(shape, l=8, blocks=1, steps=shape.steps * 4 // 3)
    return Size(
        shape=shape,
        tasks=tuple(Needle(needles=n) for n in NEEDLES),
        probes=tuple(
            Probe(task=Needle(needles=max(NEEDLES), depth=depth), length=int(times * tokens))
            for times in LENGTHS
            for depth in DEPTHS
        ),
    )


SWEEP = replace(
    tasks.sweep(
        "finding-needle",
        "Who finds a needle, how deep and how far?",
        {arm: model(arm) for arm in LAYERS},
        {scale: size(scale) for scale in TOKENS},
    ),
    matched=shapes.MATCHED,
)


def found_at(found: pd.DataFrame, length: int, depth: float) -> pd.DataFrame:
    """Return the share of needles found, by seed and arm."""
    return rows.accuracies(found, rows.TEST_TASKS, f"length {length}", f"depth {depth}")


def trained_length(found: pd.DataFrame) -> int:
    return rows.recipe_of(found["recipe"].iloc[0]).tokens


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    shares = rows.accuracies(found, rows.TEST_TASKS, f"length {trained_length(found)}")
    matters = CLAIM.matters.value
    return (learned_task(shares, (SEVEN, MAMBA), "needles", above=MAMBA, matters=matters),)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    length, matters = trained_length(found), CLAIM.matters.value
    whole = rows.accuracies(found, rows.TEST_TASKS, f"length {length}")
    by_depth = [found_at(found, length, depth)[SEVEN] for depth in DEPTHS]
    missed = 100 * (1 - pd.concat(by_depth, axis=1).min(axis=1))
    return (
        Part(
            name=f"{SEVEN} misses at the worst depth",
            unit="% of needles",
            seen=at_most(list(missed), bound=MISSED),
        ),
        Part(
            name=f"{SEVEN} finds more than {MAMBA}",
            unit=POINTS,
            seen=better(rows.points_more(whole, SEVEN, MAMBA), matters=matters),
        ),
        Part(
            name=f"{ONE} finds more than {SEVEN}",
            unit=POINTS,
            seen=no_difference(rows.points_more(whole, ONE, SEVEN), within=matters),
        ),
    )


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Show every arm at every length, means over depths and seeds."""
    length = trained_length(found)
    lengths = [int(times * length) for times in LENGTHS]
    shares = {n: rows.accuracies(found, rows.TEST_TASKS, f"length {n}").mean() for n in lengths}
    return tuple(
        f"{LAYERS[arm]} attention layers ({arm}): "
        + ", ".join(f"{100 * shares[n][arm]:.0f}%" for n in lengths)
        + f" found at {', '.join(map(str, lengths))} tokens"
        for arm in LAYERS
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with hybrids that find all or, if not `holds`, nothing."""
    hybrid, mamba = (0.97, 0.5) if holds else (0.2, 0.9)
    return rows.imagine_shares(found, {**dict.fromkeys(LAYERS, hybrid), MAMBA: mamba})


FINDING = Finding(
    name="needle",
    claim=CLAIM,
    comparisons=(Comparison(sweep=SWEEP, rates=TWO_RATES),),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="65f6848899dd2f8fbff89997cf4c66283947e6d4",
)
