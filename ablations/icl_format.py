"""The format of labels in few-shot prompts: does pure Mamba miss it where the hybrid does not?

The paper's cause for Mamba's failures is format: "Very Good" where the examples say "Positive". In
the task (`sweeps/trial/data/synthetic/few_shot.py`) a class has several names of which the prompt
makes one legal, so that a model can miss the format though it knows the class. Three scores tell
the two apart: the label written freely, the best of the legal ones, and the legal ones'
probability. `many_shot` reads the same runs.
"""

from dataclasses import replace

import pandas as pd

from ablations import rows, tasks
from ablations.evidence import Evidence, better, no_difference
from ablations.finding import Claim, Finding
from ablations.published import TABLE_6
from ablations.ratio import ATTENTION, MAMBA, THREE
from ablations.recall import MODELS
from ablations.tasks import POINTS, RATES, SHAPES, Size
from ablations.testable import learned_task
from ablations.tuned import Comparison
from ablations.verdict import Gate, Part
from sweeps.trial.data.synthetic.few_shot import FORCED, FREE, LEGAL_MASS
from sweeps.trial.data.tasks import FewShot, Probe

CLAIM = Claim(
    sentence=(
        "In few-shot prompts pure Mamba misses the label format and the 1:3 hybrid does not: the "
        "hybrid gives the legal labels more probability and writes more right ones freely, while "
        "among the legal labels both choose alike."
    ),
    source=TABLE_6,
    refuted_by=(
        "a 95% interval of the hybrid's gain in legal probability or in labels written freely "
        "that lies below what matters, or one of its gain among legal labels that lies outside it"
    ),
    matters=tasks.TEN_POINTS,
)
CLASSES = {"smoke": (2, 4), "cpu": (4, 8), "gpu": (16, 32), "paper": (50, 150)}
SYNONYMS = 4
SHOTS = (2, 4, 8)  # of each class, in a prompt
PAPER_ROWS = {ATTENTION: "Attention", MAMBA: "Mamba", THREE: "Jamba"}


def size(scale: str) -> Size:
    """Return prompts as long as the most shots of the most classes, and the numbers of classes in
    turn; each is measured at every number of shots.
    """
    asked = tuple(FewShot(classes=n, synonyms=SYNONYMS) for n in CLASSES[scale])
    tokens = max(length(task.classes, max(SHOTS)) for task in asked)
    labels = SYNONYMS * max(CLASSES[scale])
    return Size(
        shape=replace(
            SHAPES[scale],
            vocab=max(SHAPES[scale].vocab, 2 * labels),
            tokens=tokens,
            contexts=(tokens,),
            batch=max(1, SHAPES[scale].batch * SHAPES[scale].tokens // tokens),
        ),
        tasks=asked,
        probes=tuple(
            Probe(task=task, length=length(task.classes, shots))
            for task in asked
            for shots in SHOTS
        ),
    )


def length(classes: int, shots: int) -> int:
    """Return the tokens of a prompt: an item and its label for every shot of every class."""
    return 2 * classes * shots


SWEEP = tasks.sweep(
    "finding-few-shot",
    "What do prompts teach?",
    {arm: MODELS[arm] for arm in (ATTENTION, THREE, MAMBA)},
    {scale: size(scale) for scale in CLASSES},
)
COMPARISON = Comparison(sweep=SWEEP, rates=RATES)


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    def gate(score: str) -> Gate:
        shares, matters = rows.accuracies(found, rows.TEST_TASKS, score), CLAIM.matters.value
        return learned_task(shares, (THREE, MAMBA), score, above=MAMBA, matters=matters)

    return gate(FREE), gate(LEGAL_MASS), gate(FORCED)


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    matters = CLAIM.matters.value

    def gains(score: str) -> list[float]:
        return rows.points_more(rows.accuracies(found, rows.TEST_TASKS, score), THREE, MAMBA)

    def part(name: str, seen: Evidence, paper: float | None = None) -> Part:
        return Part(name=f"{THREE} gains over {MAMBA}, {name}", unit=POINTS, seen=seen, paper=paper)

    imdb = [TABLE_6.number(PAPER_ROWS[arm], "IMDB") for arm in (THREE, MAMBA)]
    return (
        part("probability of legal labels", better(gains(LEGAL_MASS), matters=matters)),
        part("labels written freely", better(gains(FREE), matters=matters), imdb[0] - imdb[1]),
        part("among legal labels", no_difference(gains(FORCED), within=matters)),
    )


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Show all three scores of every arm, means over seeds and probes."""
    said = []
    for arm in SWEEP.arms:
        scores = {
            name: rows.accuracies(found, rows.TEST_TASKS, name)[arm].mean()
            for name in (LEGAL_MASS, FREE, FORCED)
        }
        said.append(f"{arm}: " + ", ".join(f"{name} {100 * x:.0f}%" for name, x in scores.items()))
    return tuple(said)


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with the format missed by Mamba or, if not `holds`, by the hybrid."""
    hybrid, mamba = (0.95, 0.6) if holds else (0.6, 0.95)
    alike = rows.imagine_shares(found, {THREE: 0.95, MAMBA: 0.95}, FORCED)
    for score in (FREE, LEGAL_MASS):
        alike = rows.imagine_shares(alike, {THREE: hybrid, MAMBA: mamba}, score)
    return alike


FINDING = Finding(
    name="icl_format",
    claim=CLAIM,
    comparisons=(COMPARISON,),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="65f6848899dd2f8fbff89997cf4c66283947e6d4",
)
