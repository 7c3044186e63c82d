"""results/ as DataFrames: what notebooks, figures and findings read.

    from sweeps import results
    trials = results.load("ratio", folder=results.PUBLISHED)     # one row a trial
    curves = results.curves("ratio", folder=results.PUBLISHED)   # one row a step
    results.by_arm(trials)["decode_ms.1024"].median()            # of one design, or an error

A column that maps a domain or a context to a number becomes one column each, named
`valid_bits_per_byte.books` or `decode_ms.1024`. docs/results.md lists all columns.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from sweeps import designs
from sweeps.trial import records
from sweeps.trial.record import Outcome, Record

LOCAL = Path("results/local")  # where `python -m sweeps run` writes
PUBLISHED = Path("results/published")  # what came with the checkout

HELD_OUT = {  # of text and of tasks; a trial has one of them
    "valid_bits_per_byte": "held-out bits per byte",
    "task_accuracy": "right answers of held-out draws, share",
}


GENERAL = "`python -m sweeps run` with the name or file of a sweep"


class NoRecordsError(LookupError):
    """A folder holds no records of a sweep at a scale. The message says which records there are.

    `makes` is the command that makes some, in backticks.
    """

    def __init__(self, sweep: str, folder: Path, scale: str | None, *, makes: str = GENERAL):
        self.sweep, self.folder, self.scale = sweep, folder, scale
        others = [path.name for path in sweeps(folder)]
        of_scale = f" of scale {scale!r}" if scale else ""
        if scale and sweep in others:
            scales = dict.fromkeys(record.scale for record in records.read(folder / sweep))
            of_scale += f", only of {', '.join(map(str, scales))},"
        super().__init__(
            f"no records of {sweep!r}{of_scale} under {folder}; there are: "
            f"{', '.join(others) or 'none'}. {makes} makes some, or read the committed ones with "
            f"folder={str(PUBLISHED)!r}"
        )

    def made_by(self, command: str) -> "NoRecordsError":
        """Return the same error with the command that makes the records."""
        return NoRecordsError(self.sweep, self.folder, self.scale, makes=f"`{command}`")


def load(sweep: str, *, folder: Path | str = LOCAL, scale: str | None = None) -> pd.DataFrame:
    """Return the trials of `sweep` under `folder`, one row each, whatever their outcome.

    Raises LookupError where there are none, naming the command that makes them.
    """
    found = records.read(Path(folder) / sweep)
    rows = [flatten(r) for r in found if scale in (None, r.scale)]
    if not rows:
        raise NoRecordsError(sweep, Path(folder), scale)
    return pd.DataFrame(rows)


def find(run_id: str, *, folder: Path | str = LOCAL) -> tuple[Record, Path]:
    """Return the record of one run and the folder of its sweep; a complete attempt comes first.

    Raises LookupError where no record under `folder` has this id.
    """
    for sweep_folder in sweeps(Path(folder)):
        found = [r for r in records.read(sweep_folder) if r.run_id == run_id]
        if found:
            return min(found, key=lambda r: r.outcome is not Outcome.COMPLETE), sweep_folder
    raise LookupError(
        f"no run {run_id!r} under {folder}; the column run_id of "
        "`sweeps.results.load` lists those that exist"
    )


def curves(sweep: str, *, folder: Path | str = LOCAL) -> pd.DataFrame:
    """Return the training curves of `sweep`, one row a step; `run_id` and `attempt` join `load`."""
    table = records.read_curves(Path(folder) / sweep)
    if table.num_rows == 0:
        raise NoRecordsError(sweep, Path(folder), None)
    return table.to_pandas()


def sweeps(folder: Path) -> list[Path]:
    """Return the folders of the sweeps that have records under `folder`."""
    return sorted(path for path in folder.glob("*/") if records.is_sweep(path))


def complete(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose trial ran to its end."""
    return trials[trials["outcome"] == Outcome.COMPLETE.value]


def by_arm(trials: pd.DataFrame) -> DataFrameGroupBy:
    """Return the complete trials grouped by arm, the seeds of one design each, each seed once.

    Raises ValueError, saying what differs, where an arm's trials have several models or recipes, or
    where the trials differ in their text, device, ops, compilation, processes, precision or torch.
    """
    return designs.one(complete(trials)).groupby("arm", sort=False)


def newest(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the complete trials that are comparable with the one that ran last.

    They have its scale, text and setting, and the model and recipe that each arm had last.
    """
    return designs.newest(complete(trials))


def keys(trials: pd.DataFrame, column: str) -> list[str]:
    """Return the keys of a mapped column, such as the domains or the contexts, in file order."""
    prefix = f"{column}."
    return [name.removeprefix(prefix) for name in trials.columns if name.startswith(prefix)]


def held_out(trials: pd.DataFrame) -> tuple[str, str]:
    """Return the column of what these trials were measured by on held-out data, and its unit."""
    return next((item for item in HELD_OUT.items() if keys(trials, item[0])), ("", "not measured"))


def flatten(record: Record) -> dict[str, Any]:
    """Return a record as one flat row; mapped columns become `name.key`."""
    row: dict[str, Any] = {}
    for name, value in vars(record).items():
        if isinstance(value, dict):
            row |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            row[name] = str(value) if isinstance(value, Outcome) else value
    return row
