"""Every finding from its first run to its verdict, at the scale smoke; runs that findings share are
made once.
"""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablations import catalog, page, run
from ablations.__main__ import app
from ablations.finding import Finding
from sweeps import catalog as sweep_catalog
from sweeps.sweep import Sweep
from sweeps.trial import measure, records
from sweeps.trial.data.sources import TextFile
from sweeps.trial.record import Label
from sweeps.trial.run import run as run_trial


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("findings")


@pytest.fixture(autouse=True)
def hasty_clock(monkeypatch) -> None:
    """Time as little as can be timed: at this scale nothing is read from a clock."""
    for name in ("PREFILL_REPEATS", "DECODE_STEPS", "DECODE_WARMUP"):
        monkeypatch.setattr(measure, name, 1)


@pytest.mark.parametrize("finding", catalog.FINDINGS, ids=lambda f: f.name)
def test_every_finding_runs_to_its_verdict(finding: Finding, folder: Path, source: TextFile):
    def execute(file: Path, home: Path) -> None:
        sweep = sweep_catalog.find(str(file))
        assert isinstance(sweep, Sweep)
        if not list(home.rglob("*.parquet")):
            run_all(sweep, source, home)

    run.run(finding, "smoke", folder, execute)
    verdict = catalog.verdict(finding, "smoke", folder)
    assert "this scale shows that it runs, not what is true" in verdict.notes
    shown = page.one(finding, verdict)
    assert all(part.name in shown for part in verdict.parts)


def run_all(sweep: Sweep, source: TextFile, home: Path) -> None:
    """Run and record every point of `sweep`, in this process."""
    for point in sweep.points("smoke", source):
        label = Label(sweep=sweep.name, scale="smoke", arm=point.arm, matched=point.matched)
        records.write(run_trial(point.spec, point.recipe, label=label), [], home)


@pytest.mark.slow
def test_the_commands_run_judge_and_draw_a_finding(tmp_path):
    """From end to end, with studies and processes: one that has a single arm."""
    at = ("experts_int8", "--scale", "smoke", "--results", str(tmp_path))
    ran = CliRunner().invoke(app, ["run", *at, "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    (figure,) = tmp_path.glob("finding-experts-int8/*.png")
    figure.unlink()
    judged, drawn = (CliRunner().invoke(app, [command, *at]) for command in ("judge", "plot"))
    assert "8 bits cost" in judged.output
    assert ran.output.endswith(judged.output)
    assert f"wrote {figure}" in drawn.output
    assert figure.exists()
