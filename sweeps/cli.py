"""The command line: python -m sweeps --help lists its commands."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hybrid import ops as backends
from hybrid.console import plain_errors
from hybrid.units import parse_memory
from sweeps import (
    catalog,
    compact,
    docs,
    exchange,
    execute,
    folders,
    options,
    results,
    trained_commands,
)
from sweeps.bench import cli as bench_cli
from sweeps.command_line import command, results_option
from sweeps.show import report, status_report, table
from sweeps.study.proxy import serve
from sweeps.terminal import console
from sweeps.trial.data.sources import PackagedText, TextFile
from sweeps.trial.data.streams import pinned
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.progress_log import saying
from sweeps.trial.recipe import Recipe
from sweeps.workers import jobs
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
Found = Annotated[str, typer.Argument(help="name or .py file of a sweep, or a folder of records")]
Scale = Annotated[
    str, typer.Option(help="size of the models and of training, such as smoke, cpu or gpu")
]
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
    console.print(f"submitted {', '.join(numbers)}; logs in {logs}", highlight=False, markup=False)


@app.command()
@plain_errors
def status(
    name: Found,
    scale: Scale = "cpu",
    results_folder: Results = results.LOCAL,
    storage: Storage = "",
    watch: Annotated[bool, typer.Option(help="look again every few seconds")] = False,
    text: Text = "",
    dataset: Dataset = "",
    text_field: TextField = "text",
) -> None:
    """Say how a sweep stands: what is done, runs, waits or failed and why, and the time left."""
    folder = folders.to_read(results_folder, name, folders.source_of(text, dataset, text_field))
    _check_scale_in(folder, name, scale)
    for study, look in execute.look(folder, scale, storage=storage):
        if watch:
            status_report.watch(look, study, console)
        else:
            console.print(status_report.as_rich(look(), study))


@app.command()
@plain_errors
def retry(
    name: Found,
    scale: Scale = "cpu",
    results_folder: Results = results.LOCAL,
    storage: Storage = "",
    text: Text = "",
    dataset: Dataset = "",
    text_field: TextField = "text",
) -> None:
    """Let trials be tried again that failed as often as they may; their records stay."""
    folder = folders.to_read(results_folder, name, folders.source_of(text, dataset, text_field))
    _check_scale_in(folder, name, scale)
    execute.retry(folder, scale, storage=storage, console=console)


@app.command(name="compact")
@plain_errors
def compact_records(
    name: Found,
    results_folder: Results = results.LOCAL,
    text: Text = "",
    dataset: Dataset = "",
    text_field: TextField = "text",
) -> None:
    """Put the one-trial files of a sweep into one file each for records and curves."""
    source = folders.source_of(text, dataset, text_field)
    found = compact.compact(folders.to_read(results_folder, name, source))
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
    name: Found,
    scale: Scale = "cpu",
    results_folder: Results = results.LOCAL,
    markdown: Annotated[bool, typer.Option(help="print Markdown")] = False,
    text: Text = "",
    dataset: Dataset = "",
    text_field: TextField = "text",
) -> None:
    """Print the table of a sweep from its records."""
    found = _report(name, scale, results_folder, text, dataset, text_field)
    if markdown:
        print(found.markdown())
    else:
        console.print(found.table())


@app.command()
@plain_errors
def plot(
    name: Found,
    scale: Scale = "cpu",
    results_folder: Results = results.LOCAL,
    text: Text = "",
    dataset: Dataset = "",
    text_field: TextField = "text",
) -> None:
    """Draw the figures of a sweep from its records, as PNG and SVG beside them."""
    found = _report(name, scale, results_folder, text, dataset, text_field)
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
    with saying("opening the run and its text"):
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
    source = TextFile(path=text) if text else PackagedText()
    with saying("reading the folder and the text, and measuring the loss"):
        imported = exchange.read(folder, source, recipe)
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
        console.print(f"wrote {path}", markup=False)


def _report(
    name: str, scale: str, results_folder: Path, text: str, dataset: str, text_field: str
) -> report.Report:
    """Return what the records of a sweep show. Raises LookupError where there are none."""
    folder = folders.to_read(results_folder, name, folders.source_of(text, dataset, text_field))
    sweep = folders.sweep_in(folder, name)
    options.check_scale(sweep, scale)
    try:
        job = jobs.of_folder(folder)
        return report.of_sweep(sweep, scale, folder, None if job is None else job.source)
    except results.NoRecordsError as missing:
        given = {"--text": text, "--dataset": dataset}
        given["--text-field"] = "" if text_field == "text" else text_field
        words = [word for pair in given.items() if pair[1] for word in pair]
        how = [name, "--scale", scale, *words, *results_option(results_folder)]
        raise missing.made_by(command("sweeps", "run", *how)) from None


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
    given = folders.source_of(text, dataset, text_field)
    engine = Engine(device=device, ops=ops, compile=compiled)
    if _is_folder(name, results_folder):
        folder = folders.to_read(results_folder, name, given)
        return replace(folders.job_of(folder), scale=scale, engine=engine, folder=str(folder))
    sweep = catalog.find(name)
    options.check_scale(sweep, scale)
    source = None if given is None else pinned(given)
    folder = folders.to_run(results_folder, sweep.name, source)
    if source is not None and (said := folders.about_others(results_folder, sweep.name, source)):
        console.print(f"{said}Records of this text go to {folder}", highlight=False, soft_wrap=True)
    return Job(
        sweep=str(Path(name).resolve()) if name.endswith(".py") else name,
        scale=scale,
        source=source,
        engine=engine,
        folder=str(folder.resolve()),
    )


def _check_scale_in(folder: Path, name: str, scale: str) -> None:
    """Raise ValueError for a scale that the sweep does not have whose records are in `folder`.

    Nothing is checked where no sweep is known by the name: what opens its study says so.
    """
    known = name.endswith(".py") or name in catalog.SWEEPS
    if known or jobs.of_folder(folder) is not None:
        options.check_scale(folders.sweep_in(folder, name), scale)


def _is_folder(name: str, results_folder: Path) -> bool:
    """Return whether a name is that of a folder of records and of no sweep."""
    known = name.endswith(".py") or name in catalog.SWEEPS
    return not known and (results_folder / name / jobs.FILE).is_file()
