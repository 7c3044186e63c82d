"""Recall against the ratio and the size of the state, on tables that a prompt defines.

Later work than the paper's finds language-model scores flat in the ratio and recall not (arXiv
2507.06457). What loss does with the ratio is the finding `ratio`; here models look up keys of a
table (MQAR, arXiv 2312.04927) and names of a phonebook (arXiv 2402.01032). One sweep of tables has
the arms of `short_conv` and `placement` as well, since all share the plain models.
"""

from dataclasses import replace

import pandas as pd

from ablations import rows, shapes, tasks
from ablations.evidence import better
from ablations.finding import Claim, Finding
from ablations.published import RATIO_AND_RECALL
from ablations.ratio import ATTENTION, MAMBA, THREE
from ablations.tasks import POINTS, RATES, SHAPES, Size
from ablations.testable import learned_task
from ablations.tuned import Comparison
from ablations.verdict import Gate, Part
from hybrid.spec import Mamba, Rope
from sweeps.trial.data.tasks import Mqar, Phonebook, Probe

CLAIM = Claim(
    sentence=(
        "A hybrid of one attention layer in four looks up more than pure Mamba of the same size, "
        "in tables and in a phonebook, and pure Mamba looks up more the larger its state."
    ),
    source=RATIO_AND_RECALL,
    refuted_by=(
        "a 95% interval of the hybrid's gain over pure Mamba, on the most pairs or in the "
        "phonebook, or of the largest state's over the smallest, that lies below what matters"
    ),
    matters=tasks.TEN_POINTS,
)
ONE = "1:1"
STATES = (4, 16, 32)
USUAL = Mamba().d_state
NO_CONV, FIRST, LAST = "no convolution", "attention first", "attention last"


def model(
    arm: str, *, mamba: Mamba | None = None, offset: int | None = None, rope: bool = False
) -> shapes.Model:
    """Return the model of ratio `arm`, as large as the plain 1:3 at every scale."""
    return lambda scale: shapes.matched(
        scale,
        arm,
        mamba=mamba,
        positions=Rope() if rope else None,
        attention_offset=offset,
        like=tasks.LIKE,
    )


def with_state(n: int) -> str:
    return MAMBA if n == USUAL else f"{MAMBA} state {n}"


MODELS: dict[str, shapes.Model] = {
    ATTENTION: model(ATTENTION, rope=True),  # which cannot tell what follows what otherwise
    ONE: model(ONE),
    THREE: model(THREE),
    **{with_state(n): model(MAMBA, mamba=Mamba(d_state=n)) for n in STATES},
    f"{MAMBA} {NO_CONV}": model(MAMBA, mamba=Mamba(d_conv=None)),
    f"{THREE} {NO_CONV}": model(THREE, mamba=Mamba(d_conv=None)),
    f"{THREE} {FIRST}": model(THREE, offset=0),
    f"{THREE} {LAST}": model(THREE, offset=3),
}
PAIRS = {
    "smoke": (2, 8),
    "cpu": (2, 4, 8),
    "gpu": (8, 16, 32, 64),
    "paper": (64, 128, 256, 512),
}


def tables(scale: str) -> Size:
    """Return tables of every number of pairs in turn, each asked at the length of training."""
    asked = tuple(Mqar(pairs=pairs) for pairs in PAIRS[scale])
    shape = SHAPES[scale]
    return Size(
        shape=shape,
        tasks=asked,
        probes=tuple(Probe(task=task, length=shape.tokens) for task in asked),
    )


BOOK = Phonebook(name_tokens=2, number_tokens=1, queries=3)
# More queries leave a shorter book, which there are letters enough for.
SHORT_NAMES = Phonebook(name_tokens=1, number_tokens=1, queries=5)
LETTERS = {"smoke": 16, "cpu": 16}  # and digits: the vocabulary, where it is not that of tables


def book(scale: str) -> Size:
    """Return phonebooks as long as the tables, names of one token and of two in turn.

    Asked are names of two tokens; the others are there to learn from first.
    """
    shape = SHAPES[scale]
    shape = replace(shape, vocab=LETTERS.get(scale, shape.vocab), steps=shape.steps * 4 // 3)
    return Size(
        shape=shape, tasks=(SHORT_NAMES, BOOK), probes=(Probe(task=BOOK, length=shape.tokens),)
    )


TABLES = tasks.sweep(
    "finding-recall", "What can be looked up?", MODELS, {scale: tables(scale) for scale in PAIRS}
)
PHONEBOOK = tasks.sweep(
    "finding-phonebook",
    "And in a phonebook?",
    {arm: MODELS[arm] for arm in (THREE, MAMBA)},
    {scale: book(scale) for scale in PAIRS},
)
COMPARISON = Comparison(sweep=TABLES, rates=RATES)


def most_pairs(found: pd.DataFrame) -> str:
    """Return the words that name the probe with the most pairs."""
    return f"pairs {max(counts_of(found))}"


def counts_of(found: pd.DataFrame) -> list[int]:
    """Return the numbers of pairs in tables, the fewest first."""
    return sorted(task.pairs for task in tasks.trained_on(of_tables(found), Mqar))


def of_tables(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["sweep"] == TABLES.name]


def of_book(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["sweep"] == PHONEBOOK.name]


def gates(found: pd.DataFrame) -> tuple[Gate, ...]:
    most, matters = most_pairs(found), CLAIM.matters.value
    on_most = rows.accuracies(of_tables(found), rows.TEST_TASKS, most)
    on_all = rows.accuracies(of_tables(found), rows.TEST_TASKS)
    in_book = rows.accuracies(of_book(found), rows.TEST_TASKS)
    states = [with_state(n) for n in (min(STATES), max(STATES))]
    return (
        learned_task(in_book, (THREE, MAMBA), "phonebook", above=MAMBA, matters=matters),
        learned_task(on_all, states, "tables", above=states[0], matters=matters),
        learned_task(on_most, (THREE, MAMBA), f"tables, {most}", above=MAMBA, matters=matters),
    )


def parts(found: pd.DataFrame) -> tuple[Part, ...]:
    most = most_pairs(found)
    on_most = rows.accuracies(of_tables(found), rows.TEST_TASKS, most)
    on_all = rows.accuracies(of_tables(found), rows.TEST_TASKS)
    in_book = rows.accuracies(of_book(found), rows.TEST_TASKS)
    smallest, largest = (with_state(n) for n in (min(STATES), max(STATES)))

    def part(name: str, shares: pd.DataFrame, arm: str, other: str) -> Part:
        seen = better(rows.points_more(shares, arm, other), matters=CLAIM.matters.value)
        return Part(name=name, unit=POINTS, seen=seen)

    return (
        part(f"{THREE} gains over {MAMBA}, {most}", on_most, THREE, MAMBA),
        part(f"{THREE} gains over {MAMBA}, phonebook", in_book, THREE, MAMBA),
        part(
            f"a state of {max(STATES)} gains over one of {min(STATES)}, all pairs",
            on_all,
            largest,
            smallest,
        ),
    )


def remarks(found: pd.DataFrame) -> tuple[str, ...]:
    """Show the right answers of every arm, means over seeds, in tables and in the phonebook."""
    counts = counts_of(found)
    by_pairs = {
        n: rows.accuracies(of_tables(found), rows.TEST_TASKS, f"pairs {n}").mean() for n in counts
    }
    in_tables = tuple(
        f"{arm}: " + ", ".join(f"{100 * by_pairs[n][arm]:.0f}%" for n in counts) + " right with "
        f"{', '.join(map(str, counts))} pairs"
        for arm in MODELS
    )
    in_book = rows.accuracies(of_book(found), rows.TEST_TASKS).mean()
    shown = ", ".join(f"{arm} {100 * in_book[arm]:.0f}%" for arm in PHONEBOOK.arms)
    return (*in_tables, f"right in the phonebook: {shown}")


def imagine(found: pd.DataFrame, holds: bool) -> pd.DataFrame:
    """Return the rows with the order that is claimed or, if not `holds`, its reverse."""
    high, low = (0.9, 0.3) if holds else (0.3, 0.9)
    return rows.imagine_shares(
        found,
        {THREE: high, MAMBA: low, with_state(max(STATES)): high, with_state(min(STATES)): low},
    )


FINDING = Finding(
    name="recall",
    claim=CLAIM,
    comparisons=(COMPARISON, Comparison(sweep=PHONEBOOK, rates=RATES)),
    gates=gates,
    parts=parts,
    imagine=imagine,
    remarks=remarks,
    fixed_by="8ec1011ea925845791db41c29bc8f92d4a039489",
)
