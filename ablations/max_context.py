"""The longest context that fits a memory (Figure 2): counted for the paper's models, then measured.

The paper does not say how its prompts were read. Weights and cache alone are what any way of
reading needs, and what the claim was fixed to. What two other ways of reading give stands beside
each number, since one of them gives less than the claim asks. Measured is the cache that
the models of the cost sweep hold, from which the context follows that fits a memory: that of the
attention model's weights and its longest measured cache.
"""

from math import log

import pandas as pd

from ablations import costs, rows
from ablations.costs import COMPARISON
from ablations.evidence import as_factor, at_most, better, counted
from ablations.finding import Claim, Finding, Matters
from ablations.published import FIGURE_2
from ablations.ratio import ATTENTION, SEVEN
from ablations.testable import nothing_learned
from ablations.verdict import OtherWay, Part
from hybrid.cost import Weights
from hybrid.memory import longest_context
from hybrid.presets import JAMBA_V0_1, LLAMA_2_70B, MIXTRAL_8X7B
from hybrid.published import FIGURE_2_CONTEXT
from hybrid.report import READINGS
from hybrid.spec import ModelSpec

MEMORY = 80 * 10**9  # bytes of one A100
EXACT = 1.0  # %
CLAIM = Claim(
    sentence=(
        "In the memory of one GPU the hybrid reads a context at least twice as long as a "
        "transformer's: the released Jamba against Mixtral and Llama-2-70B in 80 GB, and 1:7 "
        "against attention as measured."
    ),
    source=FIGURE_2,
    refuted_by=(
        "a counted ratio of contexts below two, a measured one whose 95% interval lies below two, "
        f"or a measured context that differs from the counted one by more than {EXACT:g}%"
    ),
    matters=Matters(value=2.0, unit="times as long", why="the smaller of the paper's two ratios"),
)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    contexts = _measured(found)
    longer = rows.log_ratio(contexts, SEVEN, ATTENTION)
    errors = 100 * (contexts / _counted(found) - 1).abs().max(axis=1)
    return (
        _published("Mixtral", MIXTRAL_8X7B),
        _published("Llama-2-70B", LLAMA_2_70B),
        Part(
            name="1:7 over 1:0, measured caches",
            unit="times as long",
            seen=as_factor(better(longer, matters=log(CLAIM.matters.value))),
        ),
        Part(
            name="measured against counted, worst over both",
            unit="% apart",
            seen=at_most(list(errors), bound=EXACT),
        ),
    )


def _published(name: str, other: ModelSpec) -> Part:
    bar, (first, *rest) = CLAIM.matters.value, READINGS
    ratios = {under: _longest_of(JAMBA_V0_1, under) / _longest_of(other, under) for under in rest}
    return Part(
        name=f"Jamba over {name}, 80 GB",
        unit="times as long",
        seen=counted(
            _longest_of(JAMBA_V0_1, first) / _longest_of(other, first), bar=bar, under=first
        ),
        paper=FIGURE_2.number(f"Jamba over {name}", "context"),
        otherwise=tuple(
            OtherWay(under=under, effect=ratio, holds=ratio >= bar)
            for under, ratio in ratios.items()
        ),
    )


def _longest_of(spec: ModelSpec, under: str) -> int:
    """Return the longest context of a published model, its prompt read in one of READINGS."""
    chunk = READINGS[under]
    tokens = longest_context(spec, memory=MEMORY, batch=1, weights=Weights.INT8, chunk=chunk)
    assert tokens
    return tokens


def _measured(found: pd.DataFrame) -> pd.DataFrame:
    """Return the longest context by seed and arm, from the caches that were measured."""
    shortest, *_, longest = costs.contexts(found)
    low, high = (rows.by_seed(found, found[f"cache_bytes.{n}"]) for n in (shortest, longest))
    return _longest(low, high, shortest, longest)


def _counted(found: pd.DataFrame) -> pd.DataFrame:
    """Return the same from the caches that arithmetic gives."""
    shortest, *_, longest = costs.contexts(found)
    low, high = (rows.by_seed(found, costs.counted_cache(found, n)) for n in (shortest, longest))
    return _longest(low, high, shortest, longest)


def _longest(low: pd.DataFrame, high: pd.DataFrame, shortest: int, longest: int) -> pd.DataFrame:
    """Return the context whose cache is as large as attention's at `longest`; caches are lines."""
    arms = [ATTENTION, SEVEN]  # weights are equal, so that memory is what caches may hold
    a_token = (high[arms] - low[arms]) / (longest - shortest)
    at_none = low[arms] - a_token * shortest
    return (-at_none).add(high[ATTENTION], axis=0) / a_token


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    paper = FIGURE_2_CONTEXT
    own = ", ".join(
        f"{tokens:,} tokens with {under} ({tokens / paper:.2f} times the paper's)"
        for under in READINGS
        for tokens in (_longest_of(JAMBA_V0_1, under),)
    )
    return (
        f"Jamba's own context, which the paper has at {paper:,} tokens: {own}",
        "at scale cpu, committed after the runs that it shares with cache_memory were made",
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with caches as counted or, if not `holds`, all as large as attention's."""
    attention = found["arm"] == ATTENTION
    changed = {}
    for n in costs.contexts(found):
        bytes_held = costs.counted_cache(found, n)
        if not holds:
            bytes_held = bytes_held * 0 + bytes_held[attention].iloc[0]
        changed[f"cache_bytes.{n}"] = bytes_held
    return found.assign(**changed)


FINDING = Finding(
    name="max_context",
    claim=CLAIM,
    comparisons=(COMPARISON,),
    gates=nothing_learned,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="2143ba7da0c3ed7816e18ed030743f6438732662",
)
