"""Gates: whether the records of a finding asked its question at all.

    gate = learned(arms, domains=("code",))      # GateResult(gate="G1", passed=False, figure="...")

A gate is a function of records. It is fixed with the claim and is shown with its figure. A gate
whose figures are missing does not pass. Letters: R rates, S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablations.protocol.arm_runs import (
    TEST,
    ArmRuns,
    Measure,
    NotMeasuredError,
    mean_of,
    validation_loss,
)
from sweeps import results

BIGRAM = "test_bits_per_byte_bigram"  # counted on all training text
BIGRAM_DOMAIN = "test_bits_per_byte_bigram_domain"  # on the training text of the domain alone
BIGRAM_WINDOWS = "test_bits_per_byte_bigram_windows"  # on the windows that the run trained on
EARLY, LATE = "context_early_bits_per_byte", "context_late_bits_per_byte"
SHUFFLED, UNSHUFFLED = "context_shuffled_bits_per_byte", "context_unshuffled_bits_per_byte"
LATE_GAIN = 0.03  # the loss in the last quarter of the window, below that at positions 8 to 15
SHUFFLE_COST = 0.02  # the loss, above its own, with everything more than 8 tokens back shuffled
CONTROL_ACCURACY, ARM_ACCURACY = 0.95, 0.90

Arms = Mapping[str, ArmRuns]


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Whether a gate passed, and the figure that it hangs on."""

    gate: str  # such as "G1 learned"
    passed: bool
    figure: str


def learned(arms: Arms, *, domains: Sequence[str] = ()) -> GateResult:
    """G1: every arm beats the bigram of its own windows, the best one that of all training text.

    Arms are compared at their tuned rates, mean over seeds and `domains` (all where none is named).
    Of all training text each domain has two tables, one of everything and one of the domain alone.
    The better of both is the bar, since most of a mixed text may be of other domains.
    """
    gate = "G1 learned"
    try:
        names = _domains(arms, domains)
        measures = (
            mean_of(TEST, *names),
            mean_of(BIGRAM_WINDOWS, *names),
            _best_bigram(*names),
        )
        losses, windows, text = (
            {arm: _tuned_mean(runs, measure) for arm, runs in arms.items()} for measure in measures
        )
    except NotMeasuredError as missing:
        return _unknown(gate, missing)
    worst = max(arms, key=lambda arm: losses[arm] - windows[arm])
    best = min(arms, key=lambda arm: losses[arm] - text[arm])
    return GateResult(
        gate=gate,
        passed=losses[worst] < windows[worst] and losses[best] < text[best],
        figure=(
            f"{worst} {losses[worst]:.3f} bits/byte, bigram of its windows {windows[worst]:.3f}, "
            f"best {best} {losses[best]:.3f}, bigram of all text {text[best]:.3f}"
        ),
    )


def uses_context(arms: Arms, *, domains: Sequence[str] = ()) -> GateResult:
    """G2: the loss of every arm falls along the window, and rises where its past is shuffled."""
    gate = "G2 uses context"
    try:
        names = _domains(arms, domains)
        late, shuffled = (
            {
                arm: _tuned_mean(runs, mean_of(a, *names)) / _tuned_mean(runs, mean_of(b, *names))
                - 1
                for arm, runs in arms.items()
            }
            for a, b in ((LATE, EARLY), (SHUFFLED, UNSHUFFLED))
        )
    except NotMeasuredError as missing:
        return _unknown(gate, missing)
    flattest, idlest = max(late, key=late.__getitem__), min(shuffled, key=shuffled.__getitem__)
    return GateResult(
        gate=gate,
        passed=late[flattest] <= -LATE_GAIN and shuffled[idlest] >= SHUFFLE_COST,
        figure=(
            f"late against early {flattest} {late[flattest]:+.1%} (at most {-LATE_GAIN:.0%}), "
            f"shuffled past {idlest} {shuffled[idlest]:+.1%} (at least {SHUFFLE_COST:.0%})"
        ),
    )


def task_learned(
    arms: Arms, controls: Arms, accuracy: Measure, *, headroom: float, upwards: bool = True
) -> GateResult:
    """G3: a positive control and one arm learned the task, and the quantity has room to differ.

    `headroom` is 2 d in the unit of `accuracy` (a share). The room is above the best arm where the
    claim says more (`upwards`), else below the worst.
    """
    gate = "G3 task learned"
    try:
        control = max(_tuned_mean(runs, accuracy) for runs in controls.values())
        shares = {arm: _tuned_mean(runs, accuracy) for arm, runs in arms.items()}
    except NotMeasuredError as missing:
        return _unknown(gate, missing)
    best, worst = max(shares.values()), min(shares.values())
    room = 1 - worst if upwards else best
    return GateResult(
        gate=gate,
        passed=control >= CONTROL_ACCURACY and best >= ARM_ACCURACY and room >= headroom,
        figure=(
            f"control {control:.0%} (at least {CONTROL_ACCURACY:.0%}), best arm {best:.0%} (at "
            f"least {ARM_ACCURACY:.0%}), room {room:.0%} (at least {headroom:.0%})"
        ),
    )


def rate_inside(arms: Arms, *, tune_by: Measure | None = None) -> GateResult:
    """G4: the best rate of every arm, in every fold, lies inside the rates that were tried."""
    gate = "G4 rate"
    try:
        tuned = {arm: runs.tuned(validation_loss, tune_by=tune_by) for arm, runs in arms.items()}
    except NotMeasuredError as missing:
        return _unknown(gate, missing)
    edges = [arm for arm, values in tuned.items() if values.at_edge]
    best = ", ".join(f"{arm} {arms[arm].rates[values.best]:g}" for arm, values in tuned.items())
    where = f"at an edge: {', '.join(edges)}" if edges else "none at an edge"
    return GateResult(gate=gate, passed=not edges, figure=f"best rates {best}, {where}")


def shown(gate: str, value: float, *, least: float, what: str) -> GateResult:
    """G5: an illness or a control treatment is there, measured by `value`, of `least` or more."""
    return GateResult(
        gate=gate,
        passed=bool(value >= least),
        figure=f"{what} {value:.3g} (at least {least:.3g})",
    )


def has_power(chance: float, smallest: float, unit: str, *, enough: float) -> GateResult:
    """G6: the design says "holds" of the paper's effect often enough."""
    return GateResult(
        gate="G6 power",
        passed=bool(chance >= enough),
        figure=f"{chance:.0%} (at least {enough:.0%}), smallest visible {smallest:.3g} {unit}",
    )


def _domains(arms: Arms, domains: Sequence[str]) -> Sequence[str]:
    """Return `domains`, or those with a test loss: what is compared must cover the same ones.

    Raises NotMeasuredError where no run has a test loss.
    """
    rows = [row for runs in arms.values() for row in runs.rows.values()]
    names = results.keys(pd.DataFrame(rows[:1]), TEST)
    found = [d for d in names if any(np.isfinite(row[f"{TEST}.{d}"]) for row in rows)]
    if not domains and not found:
        raise NotMeasuredError(f"no run has a {TEST}")
    return domains or found


def _best_bigram(*domains: str) -> Measure:
    """Return the mean over domains of the better of both tables of all training text."""

    def mean(row: pd.Series) -> float:
        columns = (BIGRAM, BIGRAM_DOMAIN)
        tables = [[row.get(f"{column}.{d}", np.nan) for column in columns] for d in domains]
        return float(np.mean(np.min(np.array(tables, np.float64), axis=1)))

    mean.__name__ = f"{BIGRAM} and {BIGRAM_DOMAIN}"
    return mean


def _tuned_mean(runs: ArmRuns, measure: Measure) -> float:
    return float(np.mean(runs.tuned(measure).values))


def _unknown(gate: str, missing: NotMeasuredError) -> GateResult:
    return GateResult(gate=gate, passed=False, figure=f"cannot be computed: {missing}")
