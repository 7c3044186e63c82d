"""The folder of a run: what a person looks at while a trial runs and after it died.

    results/local/ratio/runs/ratio-cpu-1to7-s0-3f9c2a1b-0/
      config.json     what was asked for: spec, recipe, label, engine, versions
      log.txt         all that the trial's process printed, its last words included
      curve.csv       one line a step, while it trains; follow it with `tail -f`
      checkpoint/     while the run may still be continued

The truth is the record and its curve under trials/ and curves/; nothing is read back from here but
the checkpoint, and the last lines of the log into a record that is not complete.
"""

import csv
import faulthandler
import json
import logging
import os
import shutil
import signal
import sys
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from hybrid import codec
from sweeps.trial.data.cache import write_atomically
from sweeps.trial.engine import Engine
from sweeps.trial.events import Event
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Label, Record
from sweeps.trial.train import Step

LOG_LINES = 30
LINE_CHARACTERS = 300  # of each, in a record
# What every stack of a trial's process ends with, what torch puts between two modules of a model,
# and a list of modules hundreds of names long.
NOISE = (
    "/multiprocessing/",
    'File "<string>", line 1 in <module>',
    "/torch/nn/modules/module.py",
    "Extension modules:",
)
TAIL_BYTES = 1 << 16
SAY_SECONDS = 5.0
MARK = "\n\nthe last lines of "  # stands between what happened and the log
WHERE_SIGNAL = signal.SIGUSR1  # makes a trial's process write to its log where it is

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """The names in one run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def curve(self) -> Path:
        return self.path / "curve.csv"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"


def folder_of(run_id: str, attempt: int, folder: Path) -> RunFolder:
    """Return the folder of this run and attempt in the sweep's `folder`; it need not exist."""
    return RunFolder(folder / "runs" / f"{run_id}-{attempt}")


def take_over(run_id: str, attempt: int, folder: Path) -> None:
    """Give this attempt the checkpoint of the attempt before it, where that one left one."""
    mine = folder_of(run_id, attempt, folder)
    if attempt == 0 or mine.checkpoint.exists():
        return
    left = folder_of(run_id, attempt - 1, folder).checkpoint
    if left.exists():
        os.replace(left, mine.checkpoint)


def drop_leftovers(home: RunFolder) -> None:
    """Remove what only a run that goes on would need, and what a killed process had begun."""
    shutil.rmtree(home.checkpoint, ignore_errors=True)
    drop_scratch(home)


def drop_scratch(home: RunFolder) -> None:
    """Remove what a killed process had begun to write; a checkpoint that is whole stays."""
    for leftover in home.path.rglob("*.tmp"):
        leftover.unlink(missing_ok=True)


def write_config(home: RunFolder, known: Record, recipe: Recipe, label: Label, engine: Engine):
    """Write what was asked for; spec and recipe are the JSON of the record."""
    config = {
        "run_id": known.run_id,
        "label": codec.encode(label),
        "engine": codec.encode(engine),
        "spec": json.loads(known.spec),
        "recipe": codec.encode(recipe),
        "versions": known.versions,
        "git_commit": known.git_commit,
        "git_dirty": known.git_dirty,
        "machine": known.machine,
        "started_utc": known.started_utc,
    }
    write_atomically(home.config, (json.dumps(config, indent=1) + "\n").encode())


def capture_output(home: RunFolder) -> None:
    """Send all that this process prints to its log, a crash of native code included."""
    handle = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(handle, stream.fileno())
    os.close(handle)
    faulthandler.enable(sys.stderr, all_threads=False)
    faulthandler.register(WHERE_SIGNAL, sys.stderr, all_threads=False)


def say(line: str) -> None:
    """Print to the log; a full disk costs the line, not the trial."""
    try:
        print(line, flush=True)
    except OSError:
        return


class SpokenSteps:
    """A watcher that says every few seconds how far training is, and says the last step."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.said = recipe, 0.0

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Step):
            say(f"before training: {event}")
            return
        last = event.step + 1 == self.recipe.steps
        if last or time.monotonic() - self.said > SAY_SECONDS:
            self.said = time.monotonic()
            speed = self.recipe.batch * self.recipe.tokens / event.seconds
            say(
                f"step {event.step + 1}/{self.recipe.steps}: {event.tokens:,} tokens, "
                f"{event.nats_per_token:.3f} nats/token, {speed:,.0f} tokens/s"
            )


class LiveCurve:
    """A watcher that writes each step to curve.csv, from the first: a continued run sees all."""

    def __init__(self, home: RunFolder):
        self.path = home.curve
        self.path.write_text(",".join(f.name for f in fields(Step)) + "\n")
        # Appending, so that a process about to die for want of its parent cannot leave a hole.
        self.file = self.path.open("a", buffering=1, newline="")
        self.rows = csv.writer(self.file, lineterminator="\n")
        self.full = False

    def __call__(self, event: Event) -> None:
        if self.full or not isinstance(event, Step):
            return
        try:
            self.rows.writerow(astuple(event))
        except OSError as error:
            self.full = True
            log.warning("%s ends before step %d: %s", self.path, event.step, error)


def with_log(what: str, home: RunFolder) -> str:
    """Return what happened, followed by the last lines of the log."""
    return f"{what.strip()}{MARK}{home.log.name}:\n{last_lines(home)}"


def without_log(error: str) -> str:
    """Return what happened, of what `with_log` made."""
    return error.partition(MARK)[0]


def last_lines(home: RunFolder) -> str:
    """Return the end of the log, cut to what a record can hold; empty without a log."""
    try:
        with home.log.open("rb") as file:
            file.seek(max(0, home.log.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [x[:LINE_CHARACTERS] for x in text.splitlines() if not any(y in x for y in NOISE)]
    return "\n".join(lines[-LOG_LINES:])
