"""Folders of results: named after the sweep and, on a text of one's own, after its content.

    results/local/ratio                     on the packaged text, or on what the recipes name
    results/local/ratio@my-1a2b3c4d         on a text of one's own, found in my.txt

The digits are of the text's sha256, and they decide. The word before them is for people: a folder
with the same digits is used whatever its word. No sweep's name holds the mark, so no text takes the
folder of another sweep. Every command finds a folder by the words of `run`, or by its own name.
"""

import glob
import re
from pathlib import Path

from sweeps import catalog
from sweeps.plans.search import Search
from sweeps.sweep import Sweep
from sweeps.trial.data.sources import HubDataset, OwnText, TextFile
from sweeps.trial.data.streams import pinned
from sweeps.trial.file_names import require_name
from sweeps.workers import jobs
from sweeps.workers.jobs import Job

MARK = "@"
DIGITS = 8
WORD_LETTERS = 40


def source_of(text: str, dataset: str, text_field: str) -> OwnText | None:
    """Return the text of one's own that the options name, or None."""
    if text and dataset:
        raise ValueError("give --text or --dataset, not both")
    if text:
        return TextFile(path=text, text_field=text_field)
    if dataset:
        return HubDataset(name=dataset, text_field=text_field)
    if text_field != "text":
        raise ValueError(f"--text-field {text_field} needs --text or --dataset")
    return None


def to_run(results: Path, sweep: str, source: OwnText | None) -> Path:
    """Return the folder for the records of `sweep` on a pinned source. It need not exist."""
    if source is None:
        return results / sweep
    return _existing(results, sweep, source) or results / _name(sweep, source)


def to_read(results: Path, name: str, source: OwnText | None) -> Path:
    """Return the folder that `name` and `source` mean: a sweep, its .py file, or a folder's name.

    Raises LookupError where there is none for this text, saying which there are of others, and
    ValueError for what names another place.
    """
    if source is not None and MARK in name:
        raise ValueError(f"{name!r} is the name of a folder and says which text; leave out --text")
    sweep = catalog.find(name).name if name.endswith(".py") else name
    require_name("name of the sweep's folder", sweep)
    if sweep in (".", ".."):
        raise ValueError(f"name of the sweep's folder: {sweep!r} must name one below {results}")
    if source is None:
        return results / sweep
    here = pinned(source)
    folder = _existing(results, sweep, here)
    if folder is None:
        others = ", ".join(path.name for path in _of_texts(results, sweep)) or "none"
        raise LookupError(
            f"no records of {sweep!r} on {_place(here)} as it is now under {results}; folders of "
            f"{sweep!r} on other texts: {others}. {about_others(results, sweep, here)}"
            "`python -m sweeps run` with the same words makes some"
        )
    return folder


def sweep_in(folder: Path, name: str) -> Sweep | Search:
    """Return the sweep whose records are in `folder`, which `name` was found by.

    Raises ValueError for a name that no sweep and no folder has.
    """
    if name.endswith(".py") or name in catalog.SWEEPS:
        return catalog.find(name)
    job = jobs.of_folder(folder)
    return catalog.find(name.partition(MARK)[0] if job is None else job.sweep)


def about_others(results: Path, sweep: str, source: OwnText) -> str:
    """Say where the records are of what `source` held before, with a blank after.

    The result is "" where there are no such records. A file of the same name in another folder is
    not what `source` held before.
    """
    older = [
        path.name
        for path in _of_texts(results, sweep)
        if path != _existing(results, sweep, source)
        and (job := jobs.of_folder(path)) is not None
        and isinstance(job.source, OwnText)
        and _place(job.source) == _place(source)
    ]
    if not older:
        return ""
    held = f"{', '.join(older)} is of what it held before"
    return f"The text of {_place(source)} has changed: {held}. "


def job_of(folder: Path) -> Job:
    """Return what was run last into `folder`. Raises LookupError where nothing was."""
    job = jobs.of_folder(folder)
    if job is None:
        raise LookupError(f"{folder} has no {jobs.FILE}: `python -m sweeps run` writes it")
    return job


def _existing(results: Path, sweep: str, source: OwnText) -> Path | None:
    found = _of_texts(results, sweep)
    return next((path for path in found if path.name.endswith(f"-{_digits(source)}")), None)


def _of_texts(results: Path, sweep: str) -> list[Path]:
    """Return the folders of `sweep` on texts of one's own."""
    return sorted(results.glob(f"{glob.escape(sweep + MARK)}*-{'[0-9a-f]' * DIGITS}/"))


def _name(sweep: str, source: OwnText) -> str:
    word = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(_place(source)).stem).strip("._-")
    return f"{sweep}{MARK}{word[:WORD_LETTERS] or 'text'}-{_digits(source)}"


def _digits(source: OwnText) -> str:
    assert source.text_sha256 is not None
    return source.text_sha256[:DIGITS]


def _place(source: OwnText) -> str:
    return source.path if isinstance(source, TextFile) else source.name
