"""The command line: python -m ablations lists the findings; --help lists its commands."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ablations import catalog, html_report, page, run
from ablations.finding import RUN_SCALES, check_scale
from ablations.protocol import commands
from ablations.protocol.run import RUN_SCALES as NEW_SCALES
from hybrid.console import plain_errors
from sweeps import results
from sweeps.terminal import console

app = typer.Typer(
    help="Findings of the Jamba paper: claims, designs, and verdicts from records.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


Name = Annotated[str, typer.Argument(help="name of a finding, as the list shows them")]
Scale = Annotated[str, typer.Option(help=f"{', '.join(RUN_SCALES)}; smoke decides nothing")]
Results = Annotated[Path, typer.Option("--results", help="folder of the records")]


@app.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """List the findings with their verdicts from the committed records."""
    if context.invoked_subcommand is None:
        list_findings()


@app.command(name="list")
@plain_errors
def list_findings(scale: Scale = "cpu", results_folder: Results = results.PUBLISHED) -> None:
    """List the findings with their verdicts."""
    check_scale(scale)
    console.print(page.overview(scale, catalog.verdicts(scale, results_folder)))


@app.command(name="run")
@plain_errors
def run_finding(
    name: Annotated[str, typer.Argument(help="name of a finding; none with --all")] = "",
    scale: Annotated[
        str, typer.Option(help=f"{', '.join(RUN_SCALES)}; with --all {', '.join(NEW_SCALES)}")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    ops: Annotated[str, typer.Option("--ops", help="implementation of the operators")] = "auto",
    results_folder: Results = results.LOCAL,
    storage: Annotated[str, typer.Option(help="URL of Optuna's database; default SQLite")] = "",
    workers: Annotated[int, typer.Option(min=1, help="local workers")] = 1,
    everything: Annotated[
        bool, typer.Option("--all", help="run what all findings under the new rules lack")
    ] = False,
) -> None:
    """Run what a finding lacks, learning rates first, then print its verdict.

    With --all, run everything that the findings under the new rules lack (`plan` lists it).
    """
    if everything == bool(name):
        raise ValueError("give the name of a finding, or --all for those under the new rules")
    if everything:
        commands.run_all(scale or "small", device, ops, results_folder, storage, workers)
        return
    scale = scale or "cpu"
    finding = catalog.find(name)
    # Here, since the list and the judge need neither Optuna nor a device.
    from ablations.execute import executor

    check_scale(scale)
    execute = executor(scale, device, ops, storage=storage, workers=workers, console=console)
    run.run(finding, scale, results_folder, execute)
    _show(name, scale, results_folder)


@app.command()
@plain_errors
def judge(name: Name, scale: Scale = "cpu", results_folder: Results = results.LOCAL) -> None:
    """Compute the verdict anew from the records alone."""
    _show(name, scale, results_folder)


@app.command()
@plain_errors
def plot(name: Name, scale: Scale = "cpu", results_folder: Results = results.LOCAL) -> None:
    """Draw the figures of a finding's sweeps that have records, as PNG and SVG beside them."""
    # Here, since the list and the judge need no Optuna.
    from sweeps.show.report import of_sweep

    finding = catalog.find(name)
    check_scale(scale)
    seen = catalog.load(finding, scale, results_folder)
    sweeps = finding.sweeps_as_run(scale, seen)
    for sweep in seen["sweep"].unique():
        for path in of_sweep(sweeps[sweep], scale, results_folder / sweep).draw():
            console.print(f"wrote {path}", highlight=False, markup=False)


@app.command()
@plain_errors
def report(
    html: Annotated[bool, typer.Option("--html", help="also one page for a browser")] = False,
    to: Annotated[
        Path | None, typer.Option(help=f"where that page goes; default {html_report.PAGE}")
    ] = None,
) -> None:
    """Write the findings from the committed records, in the checkout you stand in.

    They go into docs/findings.md and the table of README.md.
    """
    if to and not html:
        raise ValueError(f"--to {to} says where --html goes: give both")
    pages = page.pages(Path())
    if html:
        pages[to or html_report.PAGE] = html_report.page(Path())
    for path, text in pages.items():
        path.write_text(text)
        console.print(f"wrote {path}", highlight=False, markup=False)


app.command(name="plan")(plain_errors(commands.plan))
app.command(name="power")(plain_errors(commands.show_power))


@app.command()
@plain_errors
def calibrate() -> None:
    """Simulate findings with known effects and write docs/calibration.md. It takes minutes."""
    # Here, since no other command simulates.
    from ablations import calibration

    calibration.PAGE.write_text(calibration.page())
    console.print(f"wrote {calibration.PAGE}")


def _show(name: str, scale: str, folder: Path) -> None:
    finding = catalog.find(name)
    check_scale(scale)
    catalog.verdict(finding, scale, folder)  # says what is missing, if anything is
    console.print(page.one(finding, catalog.verdicts(scale, folder)[name]), highlight=False)


if __name__ == "__main__":
    sys.exit(app())
