"""README's paragraphs on what the records show: every number in them is computed here."""

from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from ablations import costs, ratio, rows, testable
from ablations.agreement import Factor, factor
from ablations.ratio import ATTENTION, MAMBA, SEVEN
from sweeps import results

NAME = "what this shows"  # between its marks in README
QUIET, LOUD, SCALE = costs.SWEEP.name, "ratio", "cpu"
CONTEXT = 4096
LINE = 100  # letters
DECODE, PREFILL, CACHE = (
    f"{name}.{CONTEXT}" for name in ("decode_ms", "prefill_tokens_per_s", "cache_bytes")
)


def section(root: Path) -> str:
    """Return the table of costs, then what it and the losses show, for the checkout at `root`."""
    folder = root / results.PUBLISHED
    try:
        quiet, loud, losses = (
            results.complete(results.load(name, folder=folder, scale=SCALE))
            for name in (QUIET, LOUD, ratio.WHOLE.name)
        )
    except LookupError:
        return "The records that this is computed from are not there."
    paragraphs = (_cost(quiet, loud), _loss(losses))
    return "\n\n".join([_table(quiet), *map(wrapped, paragraphs)])


def wrapped(text: str) -> str:
    """Return a paragraph in lines of at most 100 letters."""
    return fill(text, LINE, break_long_words=False, break_on_hyphens=False)


def _table(quiet: pd.DataFrame) -> str:
    head = (
        f"| arm | seeds | prefill at {CONTEXT:,}, tokens/s | decode at {CONTEXT:,}, ms "
        f"| cache at {CONTEXT:,}, KiB |\n|---:|---:|---:|---:|---:|\n"
    )
    return head + "\n".join(
        f"| {arm} | {len(of_arm)} | {_range(of_arm[PREFILL], ',.0f')} "
        f"| {_range(of_arm[DECODE], '.3f')} | {of_arm[CACHE].median() / 1024:,.0f} |"
        for arm in costs.SWEEP.arms
        for of_arm in (quiet[quiet["arm"] == arm],)
    )


def _cost(quiet: pd.DataFrame, loud: pd.DataFrame) -> str:
    threads, seeds = _only(quiet["threads"]), quiet["seed"].nunique()
    reading = factor(quiet, PREFILL, MAMBA, ATTENTION)
    decoding = factor(quiet, DECODE, ATTENTION, MAMBA)
    smaller = factor(quiet, CACHE, ATTENTION, SEVEN)
    medians = results.by_arm(quiet)[DECODE].median()
    return (
        f"**Cost, at batch 1 on one CPU ({_only(quiet['machine'])}, {threads} thread"
        f"{'s' * (threads > 1)}, {_only(quiet['precision'])}).** The cache of the 1:7 hybrid is "
        f"{smaller.times:.3g} times smaller than that of attention alone after {CONTEXT:,} tokens. "
        f"Mamba alone reads them {reading.text} times as fast as attention alone, and then decodes "
        f"a token {decoding.text} times as fast ({medians[MAMBA]:.3f} against "
        f"{medians[ATTENTION]:.2f} ms). The table has medians over {seeds} seeds with their range, "
        f"from `results/published/{QUIET}` (commit {_only(quiet['git_commit'])[:12]}). Ratios are "
        f"geometric means with 95% Student-t intervals over seeds. "
        f"{_other(loud, reading, decoding)}"
    )


def _other(loud: pd.DataFrame, reading: Factor, decoding: Factor) -> str:
    """Say what the other record of the same two ratios gives, and whether both agree."""
    threads, seeds = _only(loud["threads"]), loud["seed"].nunique()
    others = factor(loud, PREFILL, MAMBA, ATTENTION), factor(loud, DECODE, ATTENTION, MAMBA)
    agree = [mine.agrees(other) for mine, other in zip((reading, decoding), others, strict=True)]
    ends = loud.loc[loud["arm"] == ATTENTION, DECODE].agg(["min", "max"])
    said = "agree with it" if all(agree) else "do not agree with it"
    return (
        f"The records of `results/published/{LOUD}` measured the same models with {threads} "
        f"threads and {seeds} seeds and {said}: {others[0].text} times for reading and "
        f"{others[1].text} for decoding, where attention took {ends['min']:.2f} to "
        f"{ends['max']:.2f} ms. The machine was shared, and {threads} threads wait for each other "
        "wherever one of them is held up, which is the likely reason and was not tested. Its "
        "speeds of reading and decoding are not shown here."
    )


def _loss(found: pd.DataFrame) -> str:
    bits = rows.losses(found, rows.TEST).mean()
    (tokens,), params = set(found["train_tokens"]), found["params"]
    apart = 100 * (params.max() / params.min() - 1)
    named = f"{bits.idxmin()} at {bits.min():.2f} and {bits.idxmax()} at {bits.max():.2f}"
    (gate,) = testable.learned_text(found)
    if gate.passed:
        said = "so their losses can be compared"
    else:
        said = (
            "so the order of their losses, and of those in the next table, says nothing of the "
            "paper's claim that a hybrid is ahead (its Table 4: 1.3 billion parameters, 250 "
            "billion tokens)"
        )
    return (
        f"**Loss.** All arms have {params.median() / 1e6:.2f} million parameters (the largest "
        f"{apart:.1f}% more than the smallest), the same data and a rate tuned for each. After "
        f"{tokens:,} training tokens their test bits/byte, means of {found['seed'].nunique()} "
        f"seeds, lie between {named}. A bigram table counted on the windows that they were trained "
        f"on has {testable.OWN_WINDOWS}, {said}."
    )


def _range(values: pd.Series, form: str) -> str:
    return f"{values.median():{form}} ({values.min():{form}} to {values.max():{form}})"


def _only(values: pd.Series) -> Any:
    """Return the one value of a column. Raises ValueError where there are several."""
    different = list(dict.fromkeys(values))
    if len(different) != 1:
        raise ValueError(f"{values.name} should be one for all, got {different}")
    return different[0]
