"""docs/report.html: the findings as one page that needs nothing beside it.

    page(Path())     # for the checkout one stands in; templates/report.html is how it looks

Figures are inside the page as data, each once. What `docs/findings.md` says is said here too, and
where the records come from.
"""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from ablations import catalog, price, shown, summary
from ablations.finding import Finding
from ablations.page import JUDGED, NOT_RUN, gates, interval_text
from ablations.verdict import Verdict
from sweeps import results

PAGE = Path("docs/report.html")
TEMPLATE = "report.html"
# column of the records -> what the page calls it
PROVENANCE = {
    "git_commit": "commits",
    "machine": "machines",
    "device": "devices",
    "threads": "threads",
    "ops": "ops",
    "precision": "precision",
}
COMMIT_LETTERS = 12


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a sweep, as an address that holds the whole picture."""

    name: str
    data: str
    question: str  # that its sweep asks


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One finding at one scale where it has been run."""

    scale: str
    verdict: Verdict
    seeds: tuple[int, ...]
    provenance: dict[str, str]
    figures: tuple[Figure, ...]  # those that no finding before it has shown
    shown_before: tuple[str, ...]  # names of the others


@dataclass(frozen=True, kw_only=True)
class Section:
    """One finding with all its verdicts; without any, the command that makes one."""

    finding: Finding
    judged: tuple[Judged, ...]
    command: str
    cost: str  # of that command, by arithmetic


def page(root: Path) -> str:
    """Return docs/report.html for the checkout at `root`."""
    environment = Environment(
        loader=PackageLoader("ablations"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "interval": interval_text, "gates": gates}
    template = environment.get_template(TEMPLATE)
    return template.render(
        sections=_sections(root / results.PUBLISHED),
        family=len(catalog.FINDINGS),
        not_run=NOT_RUN,
        condition=summary.condition(root / results.PUBLISHED, JUDGED),
        shown=shown,
    )


def _sections(folder: Path) -> list[Section]:
    """Return every finding of the list; a figure belongs to the first one that it is of."""
    by_scale = catalog.by_scale(JUDGED, folder)
    shown: set[str] = set()
    return [
        Section(
            finding=finding,
            judged=tuple(
                _judged(finding, by_scale[scale][finding.name], folder, shown)
                for scale in JUDGED
                if finding.name in by_scale[scale]
            ),
            command=finding.command(JUDGED[0]),
            cost=price.price(finding, JUDGED[0]).text,
        )
        for finding in catalog.FINDINGS
    ]


def _judged(finding: Finding, verdict: Verdict, folder: Path, shown: set[str]) -> Judged:
    trials = catalog.load(finding, verdict.scale, folder)
    figures = list(_figures(finding, verdict.scale, folder))
    new = tuple(figure for figure in figures if figure.name not in shown)
    old = tuple(figure.name for figure in figures if figure.name in shown)
    shown |= {figure.name for figure in figures}
    seeds = {s for c in finding.comparisons for s in c.sweep.seeds[verdict.scale]}
    return Judged(
        scale=verdict.scale,
        verdict=verdict,
        seeds=tuple(sorted(seeds)),
        provenance=_provenance(trials),
        figures=new,
        shown_before=old,
    )


def _figures(finding: Finding, scale: str, folder: Path) -> Iterable[Figure]:
    """Find the figures that lie beside the records."""
    for name, sweep in finding.sweeps(scale).items():
        path = folder / name / f"{name}-{scale}.svg"
        if path.exists():
            data = b64encode(path.read_bytes()).decode()
            yield Figure(
                name=path.stem, data=f"data:image/svg+xml;base64,{data}", question=sweep.question
            )


def _provenance(trials: pd.DataFrame) -> dict[str, str]:
    """Say what the records of a finding's sweeps have in common, or each thing they have."""
    found = {
        called: ", ".join(
            _short(column, value) for value in sorted(trials[column].dropna().unique())
        )
        for column, called in PROVENANCE.items()
    }
    torch = trials["versions.torch"] if "versions.torch" in trials else pd.Series(dtype=str)
    found["torch"] = ", ".join(sorted(torch.dropna().unique()))
    dirty = int((trials["git_dirty"] == True).sum())  # noqa: E712 - null is neither
    found["records made with uncommitted changes"] = f"{dirty} of {len(trials)}"
    return found


def _short(column: str, value: object) -> str:
    return str(value)[:COMMIT_LETTERS] if column == "git_commit" else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
