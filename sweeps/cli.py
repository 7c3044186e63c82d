"""The command line: python -m sweeps --help lists its commands."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hybrid import ops as backends
from hybrid.units import parse_memory
from sweeps import catalog, compact, docs, exchange, execute, results, trained_commands
from sweeps.bench import cli as bench_cli
from sweeps.show import report, status_report, table
from sweeps.study.proxy import serve
from sweeps.terminal import console, plain_errors
from sweeps.trial.data.sources import HubDataset, PackagedText, TextFile, TextSource
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.recipe import Recipe
from sweeps.workers.jobs import Job, Terms
from sweeps.workers.process import Limits

app = typer.Typer(
    help="Sweeps of small hybrid language models: run them, tabulate them, plot them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
OpsName = Annotated[str, typer.Option("--ops", help=f"auto, {', '.join(backends.NAMES)}")]
Compiled = Annotated[Compile, typer.Option("--compile", help="what torch compiles")]
Storage = Annotated[str, typer.Option(help="URL of Optuna's database; default SQLite")]
Text = Annotated[str, typer.Option(help="your own .txt, .jsonl, .parquet or folder")]
Dataset = Annotated[str, typer.Option(help="a Hugging Face data set (extra `hub`)")]
TextField = Annotated[str, typer.Option(help="key or column that holds the text")]
Name = Annotated[str, typer.Argument(help="name of a sweep, as `list` shows them, or a .py file")]
Scale = Annotated[str, typer.Option(help="smoke (seconds), cpu (minutes) or gpu")]
Results = Annotated[Path, typer.Option("--results", help="folder of the records")]


@app.command(name="list")
def list_sweeps() -> None:
    """List the sweeps and their scales."""
    for sweep in catalog.SWEEPS.values():
        console.print(f"[bold]{sweep.name}[/]  {sweep.question}")
        console.print(f"    {sweep.varies}; scales {', '.join(sweep.scales)}")


@app.command()
@plain_errors
def run(
    name: Name,
    scale: Scale = "cpu",
    device: Device = "auto",
    ops: OpsName = "auto",
    compiled: Compiled = Compile.OFF,
    results_folder: Results = results.LOCAL,
    storage: Storage = "",
    workers: Annotated[
        int,
        typer.Option(min=0, help="local workers; 0 makes the study for others", show_default=True),
    ] = 1,
    time_limit: Annotated[float, typer.Option(help="seconds a trial may take; 0 is no limit")] = 0,
    memory_limit: Annotated[str, typer.Option(help="what a trial may take, such as 8GiB")] = "",
    keep_weights: Annotated[bool, typer.Option(help="keep what was trained, to export")] = False,
    text: Text = "",
    dataset: Dataset = "",
    text_field: TextField = "text",
) -> None:
    """Run what is left of a sweep, then print its table and save its figures."""
    job = _job(name, scale, device, ops, compiled, results_folder, text, dataset, text_field)
    limits = Limits(
        seconds=time_limit or None,
        memory_bytes=parse_memory(memory_limit) if memory_limit else None,
    )
    terms = Terms(keep_weights=keep_weights, limits=limits)
    execute.execute(replace(job, terms=terms), storage=storage, workers=workers, console=console)


@app.command()
@plain_errors
def worker(
    study: Annotated[str, typer.Argument(help="name of the study, as `run` and `status` print it")],
    storage: Storage = "",
    results_folder: Results = results.LOCAL,
) -> None:
    """Help with a study that `run` made, here or on another machine, until nothing is left."""
    execute.help_with(study, storage=storage, folder=results_folder, console=console)


@app.command()
@plain_errors
def submit(
    study: Annotated[str, typer.Argument(help="name of the study, as `run --workers 0` prints it")],
    storage: Annotated[str, typer.Option(help="URL of a database that all machines reach")],
    workers: Annotated[int, typer.Option(min=1, help="jobs to submit")] = 1,
    logs: Annotated[Path, typer.Option(help="folder for the jobs' logs, seen by all machines")] = (
        Path("slurm")
    ),
    option: Annotated[
        list[str] | None,
        typer.Option(help="submitit's, such as slurm_partition=gpu"),
    ] = None,
) -> None:
    """Submit workers to Slurm (extra `slurm`)."""
    pairs = [text.partition("=") for text in option or []]
    if wrong := [key for key, mark, _ in pairs if not mark]:
        raise ValueError(f"--option {wrong[0]!r} must be NAME=VALUE")
    numbers = execute.submit_workers(
        study,
        storage=storage,
        workers=workers,
        folder=logs,
        options={key: value for key, _, value in pairs},
    )
    console.print(f"submitted {', '.join(numbers)}; logs in {logs}", highlight=False)


@app.command()
@plain_errors
def status(
    name: Name,
    scale: Scale = "cpu",
    results_folder: Results = results.LOCAL,
    storage: Storage = "",
    watch: Annotated[bool, typer.Option(help="look again every few seconds")] = False,
) -> None:
    """Say how a sweep stands: what is done, runs, waits or failed and why, and the time left."""
    folder = results_folder / (catalog.find(name).name if name.endswith(".py") else name)
    for study, look in execute.look(folder, scale, storage=storage):
        if watch:
            status_report.watch(look, study, console)
        else:
            console.print(status_report.as_rich(look(), study))


@app.command(name="compact")
@plain_errors
def compact_records(
    name: Annotated[str, typer.Argument(help="name of the sweep's folder")],
    results_folder: Results = results.LOCAL,
) -> None:
    """Put the one-trial files of a sweep into one file each for records and curves."""
    found = compact.compact(results_folder / name)
    console.print(f"took in {found.trials} records and {found.curves} curves", highlight=False)
    if found.left:
        console.print(f"left {found.left} files that newer code wrote")


@app.command(name="rebuild")
@plain_errors
def rebuild_study(
    name: Name,
    scale: Scale = "cpu",
    device: Device = "auto",
    ops: OpsName = "auto",
    compiled: Compiled = Compile.OFF,
    results_folder: Results = results.LOCAL,
    storage: Storage = "",
    text: Text = "",
    dataset: Dataset = "",
    text_field: TextField = "text",
) -> None:
    """Make the Optuna study of a sweep anew from its records alone; say what `run` was told."""
    job = _job(name, scale, device, ops, compiled, results_folder, text, dataset, text_field)
    execute.rebuild(job, storage=storage, console=console)


@app.command()
@plain_errors
def proxy(
    storage: Annotated[str, typer.Option(help="URL of the database that is behind it")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "localhost",
    port: Annotated[int, typer.Option(help="workers then use --storage grpc://HOST:PORT")] = 13000,
) -> None:
    """Serve a database to hundreds of workers, until Ctrl-C."""
    serve(storage, host=host, port=port)


@app.command(name="table")
@plain_errors
def show_table(
    name: Name,
    scale: Scale = "cpu",
    results_folder: Results = results.LOCAL,
    markdown: Annotated[bool, typer.Option(help="print Markdown")] = False,
) -> None:
    """Print the table of a sweep from its records."""
    sweep = catalog.find(name)
    found = report.of_sweep(sweep, scale, results_folder / sweep.name)
    if markdown:
        print(found.markdown())
    else:
        console.print(found.table())


@app.command()
@plain_errors
def plot(
    name: Name,
    scale: Scale = "cpu",
    results_folder: Results = results.LOCAL,
) -> None:
    """Draw the figures of a sweep from its records, as PNG and SVG beside them."""
    sweep = catalog.find(name)
    found = report.of_sweep(sweep, scale, results_folder / sweep.name)
    for path in found.draw():
        console.print(f"wrote {path}", highlight=False)
    if said := table.not_shown(found.left_out):
        console.print(said, highlight=False)


@app.command(name="export")
@plain_errors
def export_run(
    run_id: Annotated[str, typer.Argument(help="column run_id of the records")],
    destination: Annotated[Path, typer.Argument(help="folder to make")],
    results_folder: Results = results.LOCAL,
) -> None:
    """Write a trained run as a folder that transformers' AutoModelForCausalLM opens."""
    exchange.export(run_id, destination, folder=results_folder)
    console.print(f"wrote {destination}: AutoModelForCausalLM.from_pretrained opens it")


@app.command(name="import")
@plain_errors
def import_folder(
    folder: Annotated[Path, typer.Argument(help="folder of a Jamba model in safetensors")],
    tokens: Annotated[int, typer.Option(help="length of the held-out windows")] = 256,
    text: Annotated[str, typer.Option(help="your own text; default the packaged one")] = "",
) -> None:
    """Read a transformers Jamba folder, say what it is, and measure its held-out loss."""
    recipe = Recipe(steps=1, batch=4, tokens=tokens, lr=1.0, valid_tokens=16_384)
    imported = exchange.read(folder, _source(text, "", "text")[0], recipe)
    console.print(exchange.describe(imported), highlight=False)


app.command()(plain_errors(trained_commands.generate))
app.command(name="eval")(plain_errors(trained_commands.evaluate))
app.command(name="bench")(plain_errors(bench_cli.bench))
app.command(name="profile")(plain_errors(bench_cli.profile_step))
app.command(name="limits")(plain_errors(bench_cli.largest_batch))
app.command(name="bench-figure")(plain_errors(bench_cli.draw))


@app.command(name="docs")
@plain_errors
def write_docs() -> None:
    """Write the generated parts of README.md and docs/ anew, in the checkout you stand in."""
    for path, text in docs.pages(Path()).items():
        path.write_text(text)
        console.print(f"wrote {path}")


def _job(
    name: str,
    scale: str,
    device: str,
    ops: str,
    compiled: Compile,
    results_folder: Path,
    text: str,
    dataset: str,
    text_field: str,
) -> Job:
    """Return what is to be run, on what, and where its records go."""
    source, suffix = _source(text, dataset, text_field)
    return Job(
        sweep=str(Path(name).resolve()) if name.endswith(".py") else name,
        scale=scale,
        source=source,
        engine=Engine(device=device, ops=ops, compile=compiled),
        folder=str((results_folder / f"{catalog.find(name).name}{suffix}").resolve()),
    )


def _source(text: str, dataset: str, text_field: str) -> tuple[TextSource, str]:
    """Return (the source asked for, what its results folder's name ends with)."""
    if text and dataset:
        raise ValueError("give --text or --dataset, not both")
    if text:
        return TextFile(path=text, text_field=text_field), f"-{Path(text).stem}"
    if dataset:
        return HubDataset(name=dataset, text_field=text_field), f"-{dataset.replace('/', '-')}"
    return PackagedText(), ""
