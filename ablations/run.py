"""Runs what a finding lacks: first the sweeps that tune learning rates, then the comparisons.

A comparison depends on what the tuning chose, and other processes help to run it, so it is written
down beside its records as a short file, results/local/finding-ratio/cpu.py, that `python -m sweeps`
takes like any sweep of one's own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ablations import catalog, price
from ablations.finding import RUN_SCALES, Finding
from ablations.tuned import Comparison
from sweeps.sweep import Sweep

Execute = Callable[[Path, Path], None]  # file that defines SWEEP, folder of its records

FILE = """{about!r}

from ablations import catalog

SWEEP = catalog.find({finding!r}).comparisons[{index}].{made_by}
"""


def run(finding: Finding, scale: str, folder: Path, execute: Execute) -> None:
    """Run what is left of `finding` at `scale`, records under `folder`.

    `execute` runs one sweep to its end. Raises ValueError for a scale that is not run, with its
    price, and LookupError where a tuning did not leave a complete record for every rate.
    """
    if scale not in RUN_SCALES:
        raise ValueError(
            f"{finding.name} at scale {scale!r} is defined and not run; the scales that are: "
            f"{', '.join(RUN_SCALES)}. {_price(finding, scale)}"
        )
    written: set[str] = set()
    for index, comparison in enumerate(finding.comparisons):
        rates: Mapping[str, float] = {}
        tuning = comparison.tuning(scale)
        if tuning is not None:
            if tuning.name not in written:
                execute(*_write(finding, scale, folder, tuning, index, f"tuning({scale!r})"))
                written.add(tuning.name)
            rates = _rates(finding, comparison, scale, folder)
        made_by = f"with_rates({scale!r}, {rates!r})"
        execute(*_write(finding, scale, folder, comparison.sweep, index, made_by))


def _rates(
    finding: Finding, comparison: Comparison, scale: str, folder: Path
) -> Mapping[str, float]:
    trials = catalog.load(finding, scale, folder)
    return {arm: choice.rate for arm, choice in comparison.chosen(scale, trials).items()}


def _write(
    finding: Finding, scale: str, folder: Path, sweep: Sweep, index: int, made_by: str
) -> tuple[Path, Path]:
    """Write the file that defines `sweep`; return it and the folder of its records."""
    records = folder / sweep.name
    records.mkdir(parents=True, exist_ok=True)
    file = records / f"{scale}.py"
    text = FILE.format(
        about=f"Written by `{finding.command(scale)}`: {sweep.question}",
        finding=finding.name,
        index=index,
        made_by=made_by,
    )
    file.write_text(text)
    return file, records


def _price(finding: Finding, scale: str) -> str:
    return f"It would be {price.price(finding, scale).text}" if scale == "paper" else ""
