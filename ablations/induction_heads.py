"""Induction heads in a hybrid (Figure 8): where they are, and whether its answers hang on them.

The paper shows twelve of them in its three attention layers and does not say how it found them.
Here they are scored by what they look at (arXiv 2209.11895), and then taken out, beside as many
other heads of the same model. In text such heads form after billions of tokens, so what is trained
on are random tokens that come again and again, the sequences that induction heads are known by.
"""

from dataclasses import dataclass, replace

import pandas as pd

from ablations import figures, ratio, rows
from ablations.evidence import at_least, better
from ablations.finding import SEEDS, Claim, Finding, Matters
from ablations.published import FIGURE_8
from ablations.rows import NotRun
from ablations.testable import SOLVED
from ablations.tuned import Comparison, tested
from ablations.verdict import Gate, Part
from hybrid.jamba import parse_ratio
from hybrid.spec import ModelSpec
from sweeps import ratio as shapes
from sweeps import results
from sweeps.sweep import Sweep
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.tasks import Cycle, Probe
from sweeps.trial.recipe import Recipe

HYBRID = "hybrid"
PREFIX, COPYING = "head_prefix_matching", "head_copying"
NONE, TOP, RANDOM = (f"heads_removed_accuracy.{name}" for name in ("none", "top", "random"))
THRESHOLD = 0.25  # of a head's attention on one token; an even share of a sequence is far less
LOOKED = "share of attention"
TAKEN = 1 / 4  # of the heads, those that match best (sweeps/trial/heads.py)
CLAIM = Claim(
    sentence=(
        "In a hybrid that has learned to go on with what came before, every attention layer has "
        f"an induction head, one that gives {100 * THRESHOLD:g}% of its attention to the token "
        "after the present one's first coming; and without the heads that do so most, the model "
        "answers worse than without as many others."
    ),
    source=FIGURE_8,
    refuted_by=(
        "a 95% interval of the best head's score, in the attention layer where that is lowest, "
        f"below {THRESHOLD:g}; or one of the accuracy lost with the best heads, beyond that lost "
        "with others, below what matters"
    ),
    matters=Matters(
        value=10.0,
        unit="% of all answers",
        why=(
            "no number is published; a tenth of the answers is more than draws of other heads "
            "differ by, and little beside all that a model without look-up would lose"
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The shape and recipe of the scale, its layers, and the periods that are trained on."""

    shape: shapes.Scale
    ratio: str
    longest: tuple[int, ...]  # periods, in turn: short ones are learned first and help long ones


# Two attention layers on a CPU, of eight layers: the least in which "every one" says something.
SIZES = {
    "smoke": Scale(
        shape=replace(ratio.SCALES["smoke"], vocab=64, tokens=32, valid_tokens=128, contexts=(32,)),
        ratio="1:3",
        longest=(4, 8),
    ),
    "cpu": Scale(
        shape=replace(
            ratio.SCALES["cpu"],
            vocab=64,
            width=64,
            hidden=64,
            kv_heads=4,
            steps=300,
            batch=32,
            tokens=32,
            contexts=(32,),
        ),
        ratio="1:3",
        longest=(4, 8, 16),
    ),
    "gpu": Scale(
        shape=replace(
            ratio.SCALES["gpu"], vocab=512, steps=3000, batch=64, tokens=256, contexts=(256,)
        ),
        ratio="1:7",
        longest=(8, 16, 32, 64, 128),
    ),
    # Attention in layers 4, 12 and 20 of 24, as in the figure.
    "paper": Scale(
        shape=ratio.SCALES["paper"],
        ratio="1:7",
        longest=(32, 128, 512, 2048),
    ),
}


def point(arm: str, seed: int, scale: Scale) -> tuple[ModelSpec, Recipe]:
    shape, tasks = scale.shape, tuple(Cycle(longest=longest) for longest in scale.longest)
    _, recipe = shapes.point(ratio.SEVEN, seed, shape)
    probe = Probe(task=tasks[-1], length=shape.tokens)
    source = Synthetic(tasks=tasks, probes=(probe,))
    spec = shapes.spec_of(parse_ratio(scale.ratio), shape.hidden, shape)
    return spec, tested(replace(recipe, source=source, measure_heads=True))


SWEEP = Sweep(
    name="finding-induction-heads",
    question="Where are induction heads in a hybrid, and does it need them?",
    arms=(HYBRID,),
    seeds=SEEDS,
    scales=SIZES,
    point=point,
    matched="the model",
    figure=figures.heads,
)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    """Return the gate of this design, which has one arm and so no positive control.

    A quarter of the heads was taken out. Where more than those match prefixes, others stand in.
    """
    heads = found[[name for names in _heads(found, PREFIX).values() for name in names]]
    matching = (heads > THRESHOLD).sum(axis=1).mean()
    right = 100 * found[NONE].mean()
    figure = (
        f"no positive control was run, {right:.1f}% right with all heads, and of {matching:.1f} "
        f"heads above {THRESHOLD:g} a mean of {max(0, matching - TAKEN * len(heads.columns)):.1f} "
        "was left in"
    )
    return (Gate(name=SOLVED, passed=False, figure=figure),)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    return (
        Part(
            name="prefix matching of the best head, in the layer where it is lowest",
            unit=LOOKED,
            seen=at_least(list(best_by_layer(found).min(axis=1)), bound=THRESHOLD),
        ),
        Part(
            name="accuracy lost without the best heads, beyond that without others",
            unit=CLAIM.matters.unit,
            seen=better(lost_beyond_others(found), matters=CLAIM.matters.value),
        ),
    )


def best_by_layer(found: pd.DataFrame) -> pd.DataFrame:
    """Return the prefix matching of the best head: a row for each run, a column for each layer."""
    return pd.DataFrame({k: found[v].max(axis=1) for k, v in _heads(found, PREFIX).items()})


def lost_beyond_others(found: pd.DataFrame) -> list[float]:
    """Return how many percent of all answers are lost with the best heads, but not with others."""
    _heads(found, PREFIX)  # says so where nothing was measured
    return list(100 * (found[RANDOM] - found[TOP]))


def _heads(found: pd.DataFrame, column: str) -> dict[str, list[str]]:
    """Return the columns of the heads of each attention layer. Raises NotRun where there are none.

    Which layers these are is known from the records: all models of a design are alike.
    """
    names = rows.measured(found, column)
    if not names or results.complete(found)[names].isna().to_numpy().any():
        raise NotRun(f"not every run of {SWEEP.name} has a {column}")
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.removeprefix(f"{column}.").partition(" head ")[0], []).append(name)
    return layers


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Say how many heads of each layer are induction heads, what they copy, and what is left."""
    prefix, copying = _heads(found, PREFIX), _heads(found, COPYING)
    said = []
    for layer, columns in prefix.items():
        above = (found[columns] > THRESHOLD).to_numpy()
        copied = found[copying[layer]].to_numpy()
        those = f"{copied[above].mean():.2f}" if above.any() else "none"
        said.append(
            f"{layer}: {above.sum(axis=1).mean():.1f} of {len(columns)} heads above "
            f"{THRESHOLD:g}, mean over seeds; copying of those {those}, of all {copied.mean():.2f}"
        )
    left = ", ".join(
        f"{100 * found[column].mean():.1f}% {without}"
        for column, without in (
            (NONE, "with all heads"),
            (TOP, "without the best quarter"),
            (RANDOM, "without as many others"),
        )
    )
    return (*said, f"right answers: {left}")


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with a clear head in every layer or, if not `holds`, in none but the first,
    and needed or not.
    """
    layers = list(_heads(found, PREFIX).values())
    clear = layers if holds else layers[:1]
    heads = {columns[0]: 3 * THRESHOLD + found[columns[0]] / 10 for columns in clear}
    lost = 0.5 if holds else 0.0
    return found.assign(**heads, **{TOP: found[RANDOM] - lost})


FINDING = Finding(
    name="induction_heads",
    claim=CLAIM,
    comparisons=(Comparison(sweep=SWEEP, rates=ratio.THREE_RATES),),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="eb8428fdd6681cd287189b7bbfcaa949c52be26d",
)
