"""Makes docs/findings.md of the committed records; in short, README's table and a terminal's."""

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from ablations import catalog, price, readme, shown, summary
from ablations.finding import RUN_SCALES, Finding
from ablations.shown import NOT_TESTABLE
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
Whether the question of a claim was asked at all is computed first, by the gates of
[ablations/testable.py](../ablations/testable.py). Where one failed there is an effect and no
outcome. "Asked" has the bar that an effect must pass, or the band that it must lie in.

{condition}

| finding | {scales} |
|---|{rule}|
"""


def pages(root: Path) -> dict[Path, str]:
    """Return what each page under `root` should hold; README keeps all but its table."""
    text = docs.between(docs.readme(root), readme_table(root), TABLE)
    return {PAGE: page(root), docs.README: docs.between(text, readme.section(root), readme.NAME)}


def readme_table(root: Path) -> str:
    """Return the findings in short: their condition, then a line each by one part."""
    by_scale = catalog.by_scale(JUDGED, root / results.PUBLISHED)
    head = "| finding | asked | paper | here | outcome |\n|---|---|---:|---:|---|\n"
    return (
        readme.wrapped(summary.condition(root / results.PUBLISHED, JUDGED))
        + "\n\n"
        + head
        + "\n".join(_readme_row(f, by_scale) for f in catalog.FINDINGS)
    )


def _readme_row(finding: Finding, by_scale: Mapping[str, dict[str, Verdict]]) -> str:
    found = [v[finding.name] for v in by_scale.values() if finding.name in v]
    link = f"[{finding.name}]({PAGE}#{finding.name})"
    if not found:
        return f"| {link} | | | | {NOT_RUN} |"
    part = found[-1].deciding  # of the largest scale that was run
    return (
        f"| {link} | {shown.question(part)} | {_paper(part)} | {part.seen.effect:.3g} "
        f"{_brackets(part)} | {found[-1].scale}: {shown.sentence(found[-1])} |"
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
        condition=readme.wrapped(summary.condition(root / results.PUBLISHED, JUDGED)),
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
    return NOT_RUN if verdict is None else shown.sentence(verdict)


def _section(finding: Finding, verdicts: dict[str, Verdict | None]) -> str:
    claim, full = finding.claim, price.price(finding, "paper")
    text = (
        f"\n## {finding.name}\n\n"
        f"{claim.sentence}\n\n"
        f"- Source: {claim.source.name} ({claim.source.setting}).\n"
        f"- Against it would be {claim.refuted_by}.\n"
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
    rows = "\n".join(_part_row(verdict, part) for part in verdict.parts)
    said = (*gates(verdict), *verdict.notes)
    notes = "".join(f"- {note[:1].upper()}{note[1:]}.\n" for note in said)
    return (
        f"\n**{scale}: {shown.sentence(verdict)}**{_p_values(verdict)}; {verdict.n_seeds} seeds, "
        f"{verdict.runs} runs, {command}.\n\n"
        "| part | asked | paper | here | interval | alone |\n|---|---|---:|---:|---|---|\n"
        f"{rows}\n" + (f"\n{notes}" if notes else "")
    )


def gates(verdict: Verdict) -> list[str]:
    """Return a line for each gate of the verdict: whether it passed, and the figure it saw."""
    return [
        f"gate {gate.name} {'passed' if gate.passed else 'failed'}: {gate.figure}"
        for gate in verdict.gates
    ]


def _p_values(verdict: Verdict) -> str:
    if not shown.has_p_value(verdict):
        return ""
    return f", p = {verdict.p_corrected:.2g} corrected and {verdict.p:.2g} alone"


def _part_row(verdict: Verdict, part: Part) -> str:
    return (
        f"| {part.name}, {part.unit} | {part.seen.asked.text} | {_paper(part)} "
        f"| {part.seen.effect:.3g} | {interval_text(part)} | {shown.alone(verdict, part)} |"
    )


def interval_text(part: Part) -> str:
    """Return the interval, its level, and how it was made."""
    low, high, level = part.seen.interval
    if level == 1:
        return part.seen.how
    return f"[{low:.3g}, {high:.3g}], {level:.0%}, {part.seen.how}"


COLOURS = {
    Outcome.HOLDS: "green",
    Outcome.FAILS: "red",
    Outcome.INCONCLUSIVE: "yellow",
    NOT_TESTABLE: "dim",
}


def overview(scale: str, verdicts: dict[str, Verdict]) -> Table:
    """Return one row for each finding: outcome, what one part asks, and its effect."""
    table = Table(title=f"Findings at scale {scale}")
    for heading in ("finding", "source", "outcome", "asked", "paper", "here", "interval"):
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
            f"[{COLOURS[shown.kind(shown.label(verdict))]}]{shown.sentence(verdict)}[/]",
            f"{part.name}: {part.seen.asked.text}",
            _paper(part),
            f"{part.seen.effect:.3g} {part.unit}",
            interval_text(part),
        )
    return table


def one(finding: Finding, verdict: Verdict) -> str:
    """Return a verdict as its part of the page."""
    return f"{finding.claim.sentence}\n{_scale(finding, verdict.scale, verdict)}"
