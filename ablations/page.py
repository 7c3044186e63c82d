"""Makes docs/findings.md of the committed records; in short, README's table and a terminal's."""

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from ablations import catalog, price
from ablations.finding import RUN_SCALES, Finding
from ablations.verdict import Outcome, Part, Verdict
from sweeps import docs, results

PAGE = Path("docs/findings.md")
TABLE = "findings table"  # between its marks in README
JUDGED = tuple(scale for scale in RUN_SCALES if scale != "smoke")
NOT_RUN = "not run"

HEAD = """# Findings

Made by `python -m ablations report` from the records in `results/published`; do not edit.

Every finding is a claim that could fail. Its design and the smallest effect that matters were fixed
before the first run, in the commit named. Arms are paired by seed; their learning rates are tuned
on validation data and a seed of their own; test data is read by the verdict alone. How a verdict is
made stands in [ablations/evidence.py](../ablations/evidence.py) and
[ablations/verdict.py](../ablations/verdict.py): the p-value is corrected for all {family} findings
of a scale, run or not, intervals are not. The paper has one run for each row and no intervals.

| finding | {scales} |
|---|{rule}|
"""


def pages(root: Path) -> dict[Path, str]:
    """Return what each page under `root` should hold; README keeps all but its table."""
    text = docs.readme(root)
    return {PAGE: page(root), docs.README: docs.between(text, readme_table(root), TABLE)}


def readme_table(root: Path) -> str:
    """Return the findings in short: a line each, by the part that decides it."""
    by_scale = catalog.by_scale(JUDGED, root / results.PUBLISHED)
    head = "| finding | decided by | paper | here | verdict |\n|---|---|---:|---:|---|\n"
    return head + "\n".join(_readme_row(f, by_scale) for f in catalog.FINDINGS)


def _readme_row(finding: Finding, by_scale: Mapping[str, dict[str, Verdict]]) -> str:
    found = [v[finding.name] for v in by_scale.values() if finding.name in v]
    link = f"[{finding.name}]({PAGE}#{finding.name})"
    if not found:
        return f"| {link} | | | | {NOT_RUN} |"
    part = found[-1].deciding  # of the largest scale that was run
    return (
        f"| {link} | {part.name}, {part.unit} | {_paper(part)} | {part.seen.effect:.3g} "
        f"{_brackets(part)} | {found[-1].outcome}, {found[-1].scale} |"
    )


def _paper(part: Part) -> str:
    return "-" if part.paper is None else f"{part.paper:.3g}"


def _brackets(part: Part) -> str:
    low, high, level = part.seen.interval
    return f"({part.seen.how})" if level == 1 else f"[{low:.3g}, {high:.3g}]"


def page(root: Path) -> str:
    """Return docs/findings.md for the checkout at `root`."""
    by_scale = catalog.by_scale(JUDGED, root / results.PUBLISHED)
    head = HEAD.format(
        family=len(catalog.FINDINGS),
        scales=" | ".join(JUDGED),
        rule="|".join(["---"] * len(JUDGED)),
    )
    lines = [
        f"| [{f.name}](#{f.name}) | {' | '.join(_said(by_scale[s].get(f.name)) for s in JUDGED)} |"
        for f in catalog.FINDINGS
    ]
    sections = [_section(f, {s: by_scale[s].get(f.name) for s in JUDGED}) for f in catalog.FINDINGS]
    return head + "\n".join(lines) + "\n" + "".join(sections)


def _said(verdict: Verdict | None) -> str:
    return NOT_RUN if verdict is None else str(verdict.outcome)


def _section(finding: Finding, verdicts: dict[str, Verdict | None]) -> str:
    claim, full = finding.claim, price.price(finding, "paper")
    text = (
        f"\n## {finding.name}\n\n"
        f"{claim.sentence}\n\n"
        f"- Source: {claim.source.name} ({claim.source.setting}).\n"
        f"- Refuted by {claim.refuted_by}.\n"
        f"- Smallest effect that matters: {claim.matters.value:g} {claim.matters.unit}; "
        f"{claim.matters.why}. Fixed in commit {finding.fixed_by[:12]}.\n"
        f"- Matched: {_matched(finding)}.\n"
        f"- At the published size it would be {full.text}: at least {full.device_hours:,.2g} hours "
        f"of one {price.DEVICE}, at its peak.\n"
    )
    return text + "".join(_scale(finding, scale, verdict) for scale, verdict in verdicts.items())


def _matched(finding: Finding) -> str:
    return "; ".join(
        dict.fromkeys(
            f"{c.sweep.matched}" + (f" ({c.unmatched})" if c.unmatched else "")
            for c in finding.comparisons
        )
    )


def _scale(finding: Finding, scale: str, verdict: Verdict | None) -> str:
    command = f"`{finding.command(scale)}`"
    if verdict is None:
        return f"\n**{scale}: {NOT_RUN}.** {command} runs it: {price.price(finding, scale).text}.\n"
    rows = "\n".join(_part_row(part) for part in verdict.parts)
    notes = "".join(f"- {note[:1].upper()}{note[1:]}.\n" for note in verdict.notes)
    return (
        f"\n**{scale}: {verdict.outcome}**, p = {verdict.p_corrected:.2g} corrected and "
        f"{verdict.p:.2g} alone; {verdict.n_seeds} seeds, {verdict.runs} runs, {command}.\n\n"
        "| part | paper | here | interval | alone |\n|---|---:|---:|---|---|\n"
        f"{rows}\n" + (f"\n{notes}" if notes else "")
    )


def _part_row(part: Part) -> str:
    return (
        f"| {part.name}, {part.unit} | {_paper(part)} | {part.seen.effect:.3g} "
        f"| {interval_text(part)} | {part.outcome} |"
    )


def interval_text(part: Part) -> str:
    """Return the interval, its level, and how it was made."""
    low, high, level = part.seen.interval
    if level == 1:
        return part.seen.how
    return f"[{low:.3g}, {high:.3g}], {level:.0%}, {part.seen.how}"


COLOURS = {Outcome.REPRODUCED: "green", Outcome.REFUTED: "red", Outcome.UNDECIDED: "yellow"}


def overview(scale: str, verdicts: dict[str, Verdict]) -> Table:
    """Return one row for each finding: verdict, the part that decides it, and its effect."""
    table = Table(title=f"Findings at scale {scale}")
    for heading in ("finding", "source", "verdict", "decided by", "paper", "here", "interval"):
        table.add_column(heading)
    for finding in catalog.FINDINGS:
        verdict = verdicts.get(finding.name)
        if verdict is None:
            table.add_row(finding.name, finding.claim.source.name, NOT_RUN, finding.command(scale))
            continue
        part = verdict.deciding
        table.add_row(
            finding.name,
            finding.claim.source.name,
            f"[{COLOURS[verdict.outcome]}]{verdict.outcome}[/]",
            part.name,
            _paper(part),
            f"{part.seen.effect:.3g} {part.unit}",
            interval_text(part),
        )
    return table


def one(finding: Finding, verdict: Verdict) -> str:
    """Return a verdict as its part of the page."""
    return f"{finding.claim.sentence}\n{_scale(finding, verdict.scale, verdict)}"
