"""What attention layers cost in memory: the paper's Table 1, and the seed text's Memory ~ 1/m.

Table 1 is arithmetic, so it is counted from the released configurations; then the same is measured
on the models of the cost sweep, whose caches also hold Mamba's states.
"""

from math import log

import pandas as pd

from ablations import costs, rows
from ablations.costs import COMPARISON
from ablations.evidence import as_factor, at_most, better, counted
from ablations.finding import Claim, Finding, Matters
from ablations.published import SEED_LAWS, TABLE_1
from ablations.ratio import ATTENTION, SEVEN
from ablations.testable import nothing_learned
from ablations.verdict import OtherWay, Part
from hybrid.cost import CacheBytes, cache_parts
from hybrid.laws import RIGHT_SIZE, memory_share
from hybrid.memory import KV_BYTES
from hybrid.presets import JAMBA_V0_1, MIXTRAL_8X7B
from hybrid.published import TABLE_1_CONTEXT
from hybrid.spec import ModelSpec

EXACT = 1.0  # %, to which a measured cache must be the counted one
LAW_BOUND = 100 * RIGHT_SIZE

CLAIM = Claim(
    sentence=(
        "Attention in one layer of eight makes the cache of a long context several times smaller, "
        "and what is held is what arithmetic says."
    ),
    source=TABLE_1,
    refuted_by=(
        "keys and values of the released Jamba less than four times smaller than Mixtral's at 256K "
        "tokens, a measured cache whose saving has a 95% interval below that, or one that differs "
        f"from the count by more than {EXACT:g}%"
    ),
    matters=Matters(
        value=4.0,
        unit="times smaller",
        why="half of the paper's eight; four times the context or batch in the same memory",
    ),
)
LAW_CLAIM = Claim(
    sentence=(
        "At a fixed depth, memory falls as 1/m with the number m of Mamba layers: the cache of the "
        "longest context, and what training holds."
    ),
    source=SEED_LAWS,
    refuted_by=f"a worst error over the ratios whose 95% interval lies above {LAW_BOUND:g}%",
    matters=Matters(
        value=LAW_BOUND,
        unit="% of error",
        why="hybrid/laws.py calls a formula of the right size up to this",
    ),
)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    matters = CLAIM.matters.value
    longest = f"cache_bytes.{costs.contexts(found)[-1]}"
    held = rows.by_seed(found, found[longest])
    saved = better(rows.log_ratio(held, ATTENTION, SEVEN), matters=log(matters))
    kv = _cache(MIXTRAL_8X7B).kv / _cache(JAMBA_V0_1).kv
    return (
        Part(
            name="keys and values of Mixtral over Jamba at 256K",
            unit="times smaller",
            seen=counted(kv, bar=matters, under="16 bits, batch 1, no Mamba states"),
            otherwise=(_with_states(matters),),
            paper=TABLE_1.number("Mixtral", "KV") / TABLE_1.number("Jamba", "KV"),
        ),
        Part(
            name=f"cache of 1:0 over 1:7 after {costs.contexts(found)[-1]:,} tokens",
            unit="times smaller",
            seen=as_factor(saved),
        ),
        Part(
            name="measured against counted, worst over ratios and contexts",
            unit="% apart",
            seen=at_most(_count_errors(found), bound=EXACT),
        ),
    )


def law_parts(found: pd.DataFrame) -> tuple[Part, ...]:
    quantities = {
        "cache of the longest context": found[f"cache_bytes.{costs.contexts(found)[-1]}"],
        "training memory": found["train_peak_bytes"] - found["baseline_bytes"],
    }
    return tuple(
        Part(
            name=f"1/m against {name}, worst over ratios",
            unit="% of error",
            seen=at_most(costs.law_errors(found, name, memory_share, values), bound=LAW_BOUND),
        )
        for name, values in quantities.items()
    )


def _cache(spec: ModelSpec) -> CacheBytes:
    return cache_parts(spec, batch=1, tokens=TABLE_1_CONTEXT, itemsize=KV_BYTES)


def _with_states(bar: float) -> OtherWay:
    effect = _cache(MIXTRAL_8X7B).total / _cache(JAMBA_V0_1).total
    return OtherWay(under="with Mamba's states", effect=effect, holds=effect >= bar)


def _count_errors(found: pd.DataFrame) -> list[float]:
    """Return for each seed the largest difference of a measured cache from its count, in %."""
    errors = pd.DataFrame(
        {
            context: 100
            * (found[f"cache_bytes.{context}"] / costs.counted_cache(found, context) - 1).abs()
            for context in costs.contexts(found)
        }
    )
    return list(errors.max(axis=1).groupby(found["seed"]).max())


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with caches as counted or, if not `holds`, all as large as attention's."""
    columns = {f"cache_bytes.{c}": costs.counted_cache(found, c) for c in costs.contexts(found)}
    if not holds:
        columns = {name: values * 0 + values.max() for name, values in columns.items()}
    return found.assign(**columns)


def imagine_law(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with memory as 1/m or, if not `holds`, growing as m."""
    m = costs.m_of(found).clip(lower=1)
    factor = 1 / m if holds else m
    caches = [f"cache_bytes.{c}" for c in costs.contexts(found)]
    changed = {name: factor * found[name] for name in caches}
    grown = factor * (found["train_peak_bytes"] - found["baseline_bytes"])
    return found.assign(train_peak_bytes=found["baseline_bytes"] + grown, **changed)


FINDING = Finding(
    name="cache_memory",
    claim=CLAIM,
    comparisons=(COMPARISON,),
    gates=nothing_learned,
    parts=parts,
    imagine=imagine,
    fixed_by="5945946cca2962fc3d377fde1f8093a428e6ae7b",
)
LAW = Finding(
    name="memory_law",
    claim=LAW_CLAIM,
    comparisons=(COMPARISON,),
    gates=nothing_learned,
    parts=law_parts,
    imagine=imagine_law,
    fixed_by="5945946cca2962fc3d377fde1f8093a428e6ae7b",
)
