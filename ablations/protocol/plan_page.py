"""Plans as a table of a terminal, as Markdown and as JSON."""

import json
from collections.abc import Iterable
from typing import Any

from rich.table import Table as RichTable

from ablations.protocol.plan import Plan, PlanRow
from hybrid.units import count_text

HEADINGS = ("finding", "outcome", "look", "runs", "missing", "shared", "tokens", "hours")


def as_rich(plan: Plan) -> RichTable:
    """Return the plan as a table."""
    table = RichTable(title=f"Runs that findings lack at scale {plan.scale}", caption=summary(plan))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for row in plan.rows:
        table.add_row(*_cells(plan, row))
    return table


def as_markdown(plan: Plan) -> str:
    """Return the plan as a Markdown table with its summary below."""
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        "|---|---|" + "---:|" * (len(HEADINGS) - 2),
        *(f"| {' | '.join(_cells(plan, row))} |" for row in plan.rows),
    ]
    return "\n".join([*lines, "", summary(plan)])


def as_json(plan: Plan) -> str:
    """Return the plan as JSON. Hours are null where the speed was not measured."""
    return json.dumps(
        {
            "scale": plan.scale,
            "workers": plan.workers,
            "flops_per_s": plan.flops_per_s,
            "hours": plan.hours,
            "findings": [_row(plan, row) for row in plan.rows],
        },
        indent=1,
    )


def summary(plan: Plan) -> str:
    """Say what is missing in all, and how long it takes here."""
    runs, tokens = len(plan.missing), sum(row.tokens for row in plan.rows)
    said = f"{runs} runs missing, {count_text(tokens)} tokens"
    if plan.hours is None:
        return f"{said}; hours: not measured, --measure does it"
    return (
        f"{said}: {plan.hours:.1f} hours of training with {plan.workers} workers of one thread each"
    )


def _row(plan: Plan, row: PlanRow) -> dict[str, Any]:
    return {
        "finding": row.finding,
        "outcome": row.outcome,
        "look": row.look,
        "runs": row.n_runs,
        "missing": len(row.missing),
        "shared": row.shared,
        "tokens": row.tokens,
        "flops": row.flops,
        "hours": _hours(plan, row),
    }


def _hours(plan: Plan, row: PlanRow) -> float | None:
    return None if plan.flops_per_s is None else row.hours(plan.flops_per_s) / plan.workers


def _cells(plan: Plan, row: PlanRow) -> Iterable[str]:
    hours = _hours(plan, row)
    numbers = (row.look, row.n_runs, len(row.missing), row.shared)
    return (
        row.finding,
        row.outcome,
        *map(str, numbers),
        count_text(row.tokens) if row.tokens else "0",
        "-" if hours is None else f"{hours:.1f}",
    )
