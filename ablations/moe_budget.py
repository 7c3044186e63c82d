"""The seed text's cost of a mixture, C(n, K, e) = (n/e) K, and its budget n K <= M.

Is C what a mixture costs? It is held against the training clock of a sweep over (n, K, e) that is
only long enough for a clock, and beside it against operations by count. docs/laws.md has what the
budget picks.
"""

from collections.abc import Hashable

import pandas as pd

from ablations import figures, rows
from ablations.evidence import at_most
from ablations.finding import SEEDS, Claim, Finding, Matters
from ablations.published import SEED_LAWS
from ablations.ratio import PAPER_7B, SCALES
from ablations.testable import nothing_learned
from ablations.tuned import Comparison
from ablations.verdict import Part
from hybrid.flops import training_flops
from hybrid.laws import RIGHT_SIZE, judge, moe_cost
from hybrid.spec import ModelSpec
from sweeps.moe_grid import spec_of
from sweeps.ratio import Scale
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

LAW_BOUND = 100 * RIGHT_SIZE
SETTINGS = {f"n{n} K{k} e{e}": (n, k, e) for n in (4, 8, 16) for k in (1, 2) for e in (1, 2)}
STEPS = {"smoke": 2, "cpu": 20, "gpu": 40, "paper": 40}
CLAIM = Claim(
    sentence=(
        "What a mixture of experts costs in training time is C(n, K, e) = (n/e) K, up to a factor."
    ),
    source=SEED_LAWS,
    refuted_by=f"a worst error over the settings whose 95% interval lies above {LAW_BOUND:g}%",
    matters=Matters(
        value=LAW_BOUND,
        unit="% of error",
        why="hybrid/laws.py calls a formula of the right size up to this",
    ),
)


def point(arm: str, seed: int, size: tuple[Scale, int]) -> tuple[ModelSpec, Recipe]:
    scale, steps = size
    recipe = Recipe(
        steps=steps,
        batch=scale.batch,
        tokens=scale.tokens,
        lr=1e-3,
        seed=seed,
        valid_tokens=scale.batch * scale.tokens,
        contexts=(scale.tokens,),
    )
    return spec_of(*SETTINGS[arm], scale), recipe


SWEEP = Sweep(
    name="finding-moe-budget",
    question="What do (n, K, e) cost?",
    arms=tuple(SETTINGS),
    seeds=SEEDS,
    scales={name: (s, STEPS[name]) for name, s in {**SCALES, "paper": PAPER_7B}.items()},
    point=point,
    matched="everything but n, K and e",
    figure=figures.speeds,
)
UNMATCHED = "what settings cost is the claim, and they differ in size"


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    return (
        Part(
            name="C against training time of a token, worst over settings",
            unit="% of error",
            seen=at_most(clock_errors(found), bound=LAW_BOUND),
        ),
    )


def worst_error(quantity: str, values: dict[Hashable, float]) -> float:
    """Return the worst error of C in %, after the best single factor."""
    pairs = [(moe_cost(*SETTINGS[str(arm)]), value) for arm, value in values.items()]
    return 100 * judge(law="C", quantity=quantity, pairs=pairs).worst_error


def clock_errors(found: pd.DataFrame) -> list[float]:
    """Return the worst error against seconds a token, for each seed."""
    seconds = rows.by_seed(found, 1 / found["train_tokens_per_s"])
    return [worst_error("seconds", seed) for seed in seconds.to_dict("records")]


def _operations(found: pd.DataFrame) -> dict[Hashable, float]:
    specs = found.drop_duplicates("arm").set_index("arm")["spec"].map(rows.spec_of)
    tokens = rows.recipe_of(found["recipe"].iloc[0]).tokens
    return {arm: training_flops(spec, tokens=tokens) for arm, spec in specs.items()}


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Say how far C is off by count, and in which order it puts the settings."""
    seconds = rows.by_seed(found, 1 / found["train_tokens_per_s"]).median()
    pairs = [(moe_cost(*SETTINGS[str(arm)]), value) for arm, value in seconds.items()]
    seen = judge(law="C", quantity="seconds", pairs=pairs)
    counted = worst_error("operations", _operations(found))
    return (
        f"C against operations of training a token, counted: {counted:.0f}% of error at worst",
        f"rank correlation of C with median seconds a token: {seen.rank_correlation:.2f}",
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with times as C or, if not `holds`, as its inverse."""
    law = found["arm"].map(lambda arm: moe_cost(*SETTINGS[arm]))
    noise = found["train_tokens_per_s"] / found["train_tokens_per_s"].mean()
    return found.assign(train_tokens_per_s=noise * (1 / law if holds else law))


FINDING = Finding(
    name="moe_budget",
    claim=CLAIM,
    comparisons=(Comparison(sweep=SWEEP, rates=None, unmatched=UNMATCHED),),
    gates=nothing_learned,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="2143ba7da0c3ed7816e18ed030743f6438732662",
)
