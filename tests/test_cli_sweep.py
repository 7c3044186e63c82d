"""A sweep from the command line, as a user runs it: each command is a process of its own."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from sweeps.trial import records
from sweeps.trial.data.sources import TextFile
from sweeps.trial.record import Outcome, Record
from tests.workers import FILE, PLACES


@dataclass(frozen=True)
class CommandLine:
    """Runs `python -m sweeps` with the tiny sweep on a text of one's own."""

    source: TextFile
    results: Path

    @property
    def folder(self) -> Path:
        (found,) = self.results.glob("tiny@tale-????????")  # of the sweep, and of the text
        return found

    def __call__(self, command: str, name: str, *options: str) -> str:
        """Return what the command prints, one blank for each stretch of them."""
        whole = [sys.executable, "-m", "sweeps", command, name, "--results", str(self.results)]
        done = subprocess.run([*whole, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stdout.split())

    def of_text(self, command: str, *options: str) -> str:
        chosen = ("--scale", "smoke", "--device", "cpu", "--text", self.source.path)
        return self(command, FILE, *chosen, *options)

    def logs(self) -> dict[Path, int]:
        """Return when each run last wrote to its log."""
        return {path: path.stat().st_mtime_ns for path in self.folder.glob("runs/*/log.txt")}

    def found(self) -> tuple[list[Record], pd.DataFrame]:
        curves = records.read_curves(self.folder).to_pandas()
        by_step = curves.sort_values(["run_id", "attempt", "step"]).reset_index(drop=True)
        return records.read(self.folder), by_step


@pytest.mark.slow
def test_a_sweep_is_run_looked_at_compacted_rebuilt_and_not_run_again(tmp_path, source):
    line = CommandLine(source, tmp_path)
    said = line.of_text("run", "--workers", "2")
    assert f"records: {line.folder}" in said
    runs, curves = line.found()
    assert [r.outcome for r in runs] == [Outcome.COMPLETE] * PLACES
    assert len(line.logs()) == PLACES
    for words in ((line.folder.name,), (FILE, "--text", source.path)):
        assert f"{PLACES} trials: {PLACES} done" in line("status", *words, "--scale", "smoke")

    said = line("compact", line.folder.name)
    assert f"took in {PLACES} records and {PLACES} curves" in said
    assert list((line.folder / "trials").iterdir()) == []

    for path in line.folder.glob("study.sqlite3*"):
        path.unlink()
    assert f"{PLACES} trials from {PLACES} records, 0 to run" in line.of_text("rebuild")
    for words in ((line.folder.name,), (FILE, "--text", source.path)):
        assert f"{PLACES} trials: {PLACES} done" in line("status", *words, "--scale", "smoke")

    logs = line.logs()
    line.of_text("run", "--workers", "2")
    assert line.logs() == logs
    again, curves_again = line.found()
    assert again == runs
    pd.testing.assert_frame_equal(curves_again, curves)
