"""Gates: computes from the records whether the question of a finding was asked at all.

A gate is a condition without which an effect says nothing of a claim.

- G1, text. Every compared model predicts test text better than a bigram table counted on the
  windows that it was trained on, and the best one better than a bigram table of all training text.
- G3, tasks. Some compared model is right in most cases, and what is compared has room to grow.
- G5, remedies. The untreated model shows the illness that the remedy is for.

The names are those of the rules of evidence that this project is judged by. G2, G4 and G6 are not
computed here.
"""

from collections.abc import Sequence

import pandas as pd

from ablations import rows
from ablations.published import ACTIVATION_LOSS
from ablations.verdict import Gate
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.synthetic.few_shot import FREE

LEARNED, SOLVED, ILL = "G1", "G3", "G5"

# Test bits per byte, mean over domains, of bigram tables with absolute discounting of 0.75. They
# were counted once, outside this repository, when the published records were reviewed. They are
# valid for one text and one tokenizer alone, those of the hashes below.
VOCAB = 2048
TEXT_SHA256 = "7dcd5cdf17b82949c234ac46ba5ad0f8d04562e85dea7e66588a4bb28594b123"
TOKENIZER_SHA256 = "b3dcaf424ec65414382d995b50cd6ba63dc0678c48f9014f70ab20a34b593d34"
ALL_TEXT = 2.157  # counted on all training text
OWN_WINDOWS = 2.415  # counted on the windows of a run of OWN_TOKENS
OWN_TOKENS = 204_800

RIGHT = 0.90  # share of right answers that one compared arm must reach
ROOM = 2  # times the smallest effect that matters: what a compared share must leave above it
OUTLIER = ACTIVATION_LOSS.number("alpha 1e-5", "largest")  # the paper calls this much cured


def nothing_learned(_found: pd.DataFrame) -> tuple[Gate, ...]:
    """Return no gate: the finding compares what is counted or timed, and nothing learned."""
    return ()


def learned_text(found: pd.DataFrame) -> tuple[Gate, ...]:
    """Return G1 for each sweep among the rows that measured test text."""
    groups = (group for _, group in found.groupby("sweep", sort=False))
    return tuple(_beats_bigrams(g) for g in groups if rows.measured(g, rows.TEST))


def learned_task(
    shares: pd.DataFrame,
    arms: Sequence[str],
    what: str,
    *,
    above: str | None = None,
    matters: float = 0.0,
) -> Gate:
    """Return G3 for the arms that one part compares.

    `shares` has right answers (0 to 1) by seed and arm. `above` is the arm that the claim wants the
    others to surpass by `matters` points. It must leave ROOM times as many points.
    """
    means = shares[list(arms)].mean(skipna=False)
    best = str(means.idxmax()) if means.notna().any() else arms[0]
    if not means[best] >= RIGHT:
        figure = f"{what}: best arm {best} right in {_percent(means[best])}, needed {RIGHT:.0%}"
        return Gate(name=SOLVED, passed=False, figure=figure)
    left = 100 * (1 - means[above]) if above else 100.0
    if above and not left >= ROOM * matters:
        figure = (
            f"{what}: a ceiling, {above} at {_percent(means[above])} leaves {left:.1f} points, "
            f"needed {ROOM * matters:g}"
        )
        return Gate(name=SOLVED, passed=False, figure=figure)
    return Gate(name=SOLVED, passed=True, figure=f"{what}: {best} right in {_percent(means[best])}")


def outliers(largest: pd.DataFrame, untreated: str) -> Gate:
    """Return G5 for a remedy against outliers: activations by seed and arm, median over seeds."""
    seen = largest[untreated].median()
    return Gate(
        name=ILL,
        passed=bool(seen >= OUTLIER),
        figure=f"{untreated}: largest activation {seen:.3g}, an outlier is {OUTLIER:,.0f}",
    )


def task_arms(trials: pd.DataFrame) -> pd.Series:
    """Return the share of right answers of each sweep and arm on made-up tasks, mean over all.

    Of few-shot prompts, labels written freely count. `trials` are records of any kind.
    """
    made_up = trials[[_is_task(text) for text in trials["recipe"]]]
    return pd.Series(
        {
            (name, arm): _share(group)
            for (name, arm), group in made_up.groupby(["sweep", "arm"], sort=False)
        },
        dtype=float,
    )


def _share(group: pd.DataFrame) -> float:
    asked = rows.measured(group, rows.TEST_TASKS)
    free = [name for name in asked if name.endswith(f" {FREE}")]
    return float(group[free or asked].mean(axis=1).mean(skipna=False))


def _beats_bigrams(group: pd.DataFrame) -> Gate:
    """Return G1 for the rows of one sweep."""
    unknown = _unknown_baseline(group)
    if unknown:
        return Gate(name=LEARNED, passed=False, figure=unknown)
    bits = rows.losses(group, rows.TEST).mean(skipna=False)
    if bits.isna().any():
        lost = ", ".join(bits.index[bits.isna()])
        return Gate(name=LEARNED, passed=False, figure=f"a run of {lost} diverged")
    own = OWN_WINDOWS if set(group["train_tokens"]) == {OWN_TOKENS} else None
    best, worst = str(bits.idxmin()), str(bits.idxmax())
    of_all = f"{ALL_TEXT} counted on all training text"
    if own and bits[best] >= own:
        bar = f"bigram {own} counted on the windows trained on"
        return _gate_at(best, bits, bar, passed=False)
    if bits[best] >= ALL_TEXT:
        return _gate_at(best, bits, f"bigram {of_all}", passed=False)
    # Fewer tokens make a worse table, so below ALL_TEXT an arm is below that of its own windows.
    passed = bool(bits[worst] < (own or ALL_TEXT))
    return _gate_at(worst, bits, f"bigram {own or of_all}", passed=passed)


def _gate_at(arm: str, bits: pd.Series, bar: str, *, passed: bool) -> Gate:
    place = "best" if arm == bits.idxmin() else "worst"
    of = f"{place} arm {arm}" if len(bits) > 1 else str(arm)
    return Gate(name=LEARNED, passed=passed, figure=f"{of} at {bits[arm]:.2f} bits/byte, {bar}")


def _unknown_baseline(group: pd.DataFrame) -> str:
    """Say why no bigram table is known for these rows, or return "" where one is."""
    vocab = {rows.spec_of(text).vocab for text in group["spec"]}
    if vocab != {VOCAB}:
        sizes = ", ".join(map(str, sorted(vocab)))
        return f"no bigram table is known for a vocabulary of {sizes}, only for {VOCAB}"
    hashes = {"text_sha256": TEXT_SHA256, "tokenizer_sha256": TOKENIZER_SHA256}
    for column, known in hashes.items():
        if column not in group or set(group[column]) != {known}:
            return "no bigram table is known for this text, only for the packaged one"
    return ""


def _is_task(recipe: str) -> bool:
    return isinstance(rows.recipe_of(recipe).source, Synthetic)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
