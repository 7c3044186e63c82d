"""Accuracy against the number of shots and of labels (Figure 5), in the prompts of `icl_format`.

The paper's figure sets Jamba beside Mixtral on four sets of 50 to 150 labels. Here the shots of a
prompt are those of each class, and every item after the first of its class is scored.
"""

import pandas as pd

from ablations import rows
from ablations.evidence import at_most, better
from ablations.finding import Claim, Finding, Matters
from ablations.icl_format import COMPARISON, SHOTS, length
from ablations.published import FIGURE_5
from ablations.ratio import ATTENTION, THREE
from ablations.tasks import POINTS, trained_on
from ablations.testable import learned_task
from ablations.verdict import Gate, Part
from sweeps.trial.data.synthetic.few_shot import FREE
from sweeps.trial.data.tasks import FewShot

BEHIND = 5.0  # points that the hybrid may be behind attention
CLAIM = Claim(
    sentence=(
        "More shots raise the right answers of the 1:3 hybrid whatever the number of labels, and "
        f"with the most shots it is no more than {BEHIND:g} points behind attention."
    ),
    source=FIGURE_5,
    refuted_by=(
        "a 95% interval of what the most shots gain over the fewest, for either number of labels, "
        "that lies below what matters, or one of attention's lead that lies above "
        f"{BEHIND:g} points"
    ),
    matters=Matters(value=2.0, unit=POINTS, why="above what the draws of a probe waver by"),
)


def classes_of(found: pd.DataFrame) -> list[int]:
    return sorted(task.classes for task in trained_on(found, FewShot))


def shares(found: pd.DataFrame, classes: int, shots: int) -> pd.DataFrame:
    """Return the share of labels written right, by seed and arm."""
    words = (f"length {length(classes, shots)}", f"classes {classes}", FREE)
    return rows.accuracies(found, rows.TEST_TASKS, *words)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    few, many, counts = min(SHOTS), max(SHOTS), classes_of(found)

    def gains(classes: int) -> Gate:
        what, matters = f"{few} shots, {classes} labels", CLAIM.matters.value
        seen = shares(found, classes, few)
        return learned_task(seen, (THREE,), what, above=THREE, matters=matters)

    def leads(classes: int) -> Gate:
        what, arms = f"{many} shots, {classes} labels", (ATTENTION, THREE)
        seen = shares(found, classes, many)
        return learned_task(seen, arms, what, above=THREE, matters=BEHIND)

    return (*map(gains, counts), *map(leads, counts))


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    few, many = min(SHOTS), max(SHOTS)

    def more_help(classes: int) -> Part:
        gained = shares(found, classes, many)[THREE] - shares(found, classes, few)[THREE]
        seen = better(list(100 * gained), matters=CLAIM.matters.value)
        return Part(name=f"{many} shots gain over {few}, {classes} labels", unit=POINTS, seen=seen)

    def behind(classes: int) -> Part:
        points = rows.points_more(shares(found, classes, many), ATTENTION, THREE)
        seen = at_most(points, bound=BEHIND)
        return Part(name=f"attention leads, {classes} labels", unit=POINTS, seen=seen)

    counts = classes_of(found)
    return (*map(more_help, counts), *map(behind, counts))


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Show every arm at every number of shots and labels, means over seeds."""
    return tuple(
        f"{arm}, {classes} labels: "
        + ", ".join(f"{100 * shares(found, classes, n)[arm].mean():.0f}%" for n in SHOTS)
        + f" right with {', '.join(map(str, SHOTS))} shots"
        for arm in COMPARISON.sweep.arms
        for classes in classes_of(found)
    )


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with right answers that rise with shots or, if not `holds`, fall."""
    by_shots = dict(zip(SHOTS, (0.5, 0.7, 0.9) if holds else (0.9, 0.7, 0.5), strict=True))
    for classes in classes_of(found):
        for shots, share in by_shots.items():
            words = (f"length {length(classes, shots)}", f"classes {classes}")
            found = rows.imagine_shares(found, {THREE: share, ATTENTION: share}, *words)
    return found


FINDING = Finding(
    name="many_shot",
    claim=CLAIM,
    comparisons=(COMPARISON,),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="65f6848899dd2f8fbff89997cf4c66283947e6d4",
)
