"""Checks what a job needs before a worker takes a trial: its texts, and the right machine.

A missing text is told in one sentence to the person who started the worker. It is no attempt at a
trial.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hybrid import codec
from hybrid.spec import ModelSpec
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import (
    HubDataset,
    OwnText,
    PackagedCorpus,
    PackagedText,
    TextFile,
)
from sweeps.trial.data.streams import OtherText, Tokens, open_tokens, verify
from sweeps.trial.device import choose_device, choose_precision
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Label, Record
from sweeps.trial.records import Ledger
from sweeps.trial.run import run_id
from sweeps.workers.jobs import Job


def make_ready(job: Job, plan: Plan) -> Iterator[str]:
    """Open the texts of the plan, yielding a line about each, then check what is recorded.

    Raises OtherText or OSError where a text is not here, and ValueError where this machine computes
    otherwise than the job or the records of the same runs say.
    """
    _require_precision(job, plan)
    texts = {key: open_tokens(*key) for key in sorted(plan.texts(), key=str)}
    for tokens in texts.values():
        seen = ", ".join(f"{d} {tokens.streams[d][Split.TRAIN].tokens:,}" for d in tokens.domains)
        yield f"training tokens: {seen}"
    if not texts and job.source is not None:
        verify(job.source)
    if isinstance(plan, Grid):
        ledger = Ledger(job.records)
        _require_same(plan, ledger, texts)
        yield from _changed_texts(plan, ledger)
    else:
        ledger = Ledger(job.records)
        _require_same_runs(plan, job.engine, ledger)
        if job.source is None:  # the texts of a search are known from its records
            yield from _changed_since(ledger)


def _require_precision(job: Job, plan: Plan) -> None:
    """Raise ValueError where `auto` means another precision here than where the job was made."""
    if isinstance(plan, Grid) and not any(
        point.recipe.precision is Precision.AUTO for point in plan.points.values()
    ):
        return
    here = choose_precision(Precision.AUTO, choose_device(job.engine.device))
    if job.precision not in (None, here):
        raise ValueError(
            f"the job computes in {job.precision}, which precision=auto was where it was made; "
            f"here it is {here}. Give the recipes a precision, or use a machine of the same kind"
        )


def _require_same(plan: Grid, ledger: Ledger, texts: dict) -> None:
    """Raise ValueError where records of the plan's runs are of another text or precision.

    A run's id holds its spec, recipe and text. What installed packages and the machine make of
    them is only in the record.
    """
    for name, attempts in ledger.by_run().items():
        point = plan.points.get(name)
        if point is None:
            continue
        tokens = texts.get((point.recipe.source, point.spec.vocab))
        wanted = _measured_here(plan.engine, point.recipe, tokens)
        for record in attempts:
            _require_record(record, wanted, ledger)


def _require_same_runs(plan: Plan, engine: Engine, ledger: Ledger) -> None:
    """Raise ValueError where runs of a search are of another packaged text or precision.

    A search knows its runs from its records. A record counts where its run has the same id here.
    A text of one's own has its content in the id, and its tokens need not be here.
    """
    for record in ledger.records():
        if (record.sweep, record.scale) != (plan.name, plan.scale) or record.precision is None:
            continue
        spec: ModelSpec = codec.loads(ModelSpec, record.spec)
        recipe: Recipe = codec.loads(Recipe, record.recipe)
        label = Label(sweep=record.sweep, scale=record.scale, arm=record.arm)
        if run_id(spec, recipe, label=label, engine=engine) != record.run_id:
            continue
        packaged = isinstance(recipe.source, PackagedText | PackagedCorpus)
        tokens = open_tokens(recipe.source, spec.vocab) if packaged else None
        _require_record(record, _measured_here(engine, recipe, tokens), ledger)


def _measured_here(engine: Engine, recipe: Recipe, tokens: Tokens | None) -> dict[str, str]:
    device = choose_device(engine.device)
    found = {"precision": str(choose_precision(recipe.precision, device))}
    if tokens is not None:
        found["text_sha256"] = tokens.text_sha256
        found["tokenizer_sha256"] = tokens.tokenizer_sha256
    return found


def _require_record(record: Record, wanted: dict[str, str], ledger: Ledger) -> None:
    for column, here in wanted.items():
        if (there := getattr(record, column)) not in (None, here):
            raise ValueError(
                f"{ledger.folder} holds {record.run_id} with {column}={there}, and here it would "
                f"be {here}; the two do not belong into one table. Give another --results folder"
            )


def _changed_texts(plan: Grid, ledger: Ledger) -> Iterator[str]:
    """Say of each text that recipes name how many records are of what it held before."""
    own = {p.recipe.source for p in plan.points.values() if isinstance(p.recipe.source, OwnText)}
    if not own:
        return
    found = [(_own_text(record), record) for record in ledger.records()]
    for source in sorted(own, key=_place):
        older = [
            record
            for text, record in found
            if text is not None
            and _place(text) == _place(source)
            and record.text_sha256 not in (None, source.text_sha256)
        ]
        if older:
            yield (
                f"the text of {_place(source)} has changed: {len(older)} records in "
                f"{ledger.folder} are of what it held before"
            )


def _changed_since(ledger: Ledger) -> Iterator[str]:
    """Say of each recorded text whose place holds another now how many records are of the old."""
    recorded = Counter(text for record in ledger.records() if (text := _own_text(record)))
    for source, count in sorted(recorded.items(), key=str):
        if source.text_sha256 is not None and Path(_place(source)).exists():
            try:
                verify(source)
            except OtherText:
                yield (
                    f"the text of {_place(source)} has changed: {count} records in "
                    f"{ledger.folder} are of what it held before"
                )


def _own_text(record: Record) -> OwnText | None:
    source = codec.loads(Recipe, record.recipe).source
    return source if isinstance(source, OwnText) else None


def _place(source: TextFile | HubDataset) -> str:
    return source.path if isinstance(source, TextFile) else source.name
