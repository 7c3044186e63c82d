"""Speed at long contexts: the paper's Figure 3 (b), and the seed text's Throughput ~ m.

The figure's measure is kept: tokens a second, end to end, for reading a context and generating 512
tokens at batch 1. It is put together from the prefill and the decoding of one token at that
context, so the growth of the context while 512 are generated is left out. Mixtral's place is taken
by pure attention of the same size.
"""

from math import log

import pandas as pd

from ablations import costs, rows
from ablations.costs import COMPARISON
from ablations.evidence import Evidence, as_factor, at_most, better, no_difference
from ablations.finding import Claim, Finding, Matters
from ablations.published import FIGURE_3B, SEED_LAWS
from ablations.ratio import ATTENTION, SEVEN
from ablations.testable import nothing_learned
from ablations.verdict import Part
from hybrid.laws import RIGHT_SIZE, throughput_share

GENERATED = 512  # tokens, as in the figure
LAW_BOUND = 100 * RIGHT_SIZE

CLAIM = Claim(
    sentence=(
        "At a long context the 1:7 hybrid generates faster than attention of the same size, and at "
        "a short one they are close."
    ),
    source=FIGURE_3B,
    refuted_by=(
        "a 95% interval of the speed-up at the longest context that lies below what matters, or at "
        "the shortest that lies outside it, either way"
    ),
    matters=Matters(
        value=1.5,
        unit="times as fast",
        why="less than the square root of the paper's three; what a person would notice",
    ),
)
LAW_CLAIM = Claim(
    sentence=(
        "At a fixed depth, throughput grows as m, the number of Mamba layers: reading the longest "
        "context, and decoding after it."
    ),
    source=SEED_LAWS,
    refuted_by=f"a worst error over the ratios whose 95% interval lies above {LAW_BOUND:g}%",
    matters=Matters(
        value=LAW_BOUND,
        unit="% of error",
        why="hybrid/laws.py calls a formula of the right size up to this",
    ),
)


def end_to_end(found: pd.DataFrame, context: int) -> pd.Series:
    """Return generated tokens a second, reading `context` tokens included."""
    reading_s = context / found[f"prefill_tokens_per_s.{context}"]
    return GENERATED / (reading_s + GENERATED * found[f"decode_ms.{context}"] / 1e3)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    matters = log(CLAIM.matters.value)
    shortest, *_, longest = costs.contexts(found)

    def speed_up(context: int) -> list[float]:
        return rows.log_ratio(rows.by_seed(found, end_to_end(found, context)), SEVEN, ATTENTION)

    def part(context: int, seen: Evidence, paper: float | None) -> Part:
        name = f"1:7 over 1:0 at {context:,} tokens"
        return Part(name=name, unit="times as fast", seen=as_factor(seen), paper=paper)

    return (
        part(
            longest,
            better(speed_up(longest), matters=matters),
            FIGURE_3B.number("Jamba over Mixtral", "128K"),
        ),
        part(shortest, no_difference(speed_up(shortest), within=matters), None),
    )


def law_parts(found: pd.DataFrame) -> tuple[Part, ...]:
    longest = costs.contexts(found)[-1]
    quantities = {
        "reading": found[f"prefill_tokens_per_s.{longest}"],
        "decoding": 1e3 / found[f"decode_ms.{longest}"],
    }
    return tuple(
        Part(
            name=f"m against tokens/s of {name}, worst over ratios",
            unit="% of error",
            seen=at_most(costs.law_errors(found, name, throughput_share, values), bound=LAW_BOUND),
        )
        for name, values in quantities.items()
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with 1:7 three times as fast at the longest context or, if not, as slow."""
    longest = costs.contexts(found)[-1]
    faster = found["arm"].map({SEVEN: 3.0 if holds else 1 / 3}).fillna(1.0)
    return _sped_up(found, longest, faster)


def imagine_law(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with speeds as m or, if not `holds`, as 1/m."""
    m = costs.m_of(found).clip(lower=1)
    return _sped_up(found, costs.contexts(found)[-1], m if holds else 1 / m)


def _sped_up(found: pd.DataFrame, context: int, factor: pd.Series) -> pd.DataFrame:
    prefill, decode = f"prefill_tokens_per_s.{context}", f"decode_ms.{context}"
    return found.assign(**{prefill: factor * found[prefill], decode: found[decode] / factor})


FINDING = Finding(
    name="throughput",
    claim=CLAIM,
    comparisons=(COMPARISON,),
    gates=nothing_learned,
    parts=parts,
    imagine=imagine,
    fixed_by="5945946cca2962fc3d377fde1f8093a428e6ae7b",
)
LAW = Finding(
    name="throughput_law",
    claim=LAW_CLAIM,
    comparisons=(COMPARISON,),
    gates=nothing_learned,
    parts=law_parts,
    imagine=imagine_law,
    fixed_by="5945946cca2962fc3d377fde1f8093a428e6ae7b",
)
