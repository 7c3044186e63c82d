"""The command line: python -m sweeps run|list|table|plot|export|import|docs, and those of the
benchmark, bench|profile|limits|bench-figure.
"""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hybrid import ops as backends
from sweeps import catalog, docs, exchange, figures, results, table
from sweeps.bench import cli as bench_cli
from sweeps.execute import execute
from sweeps.trial.data.sources import HubDataset, PackagedText, Source, TextFile
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.recipe import Recipe

app = typer.Typer(
    help="Sweeps of small hybrid language models: run them, tabulate them, plot them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
LOG_WIDTH = 160  # of a table that goes to a file
console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)

Name = Annotated[str, typer.Argument(help="name of the sweep; `list` shows those that exist")]
Scale = Annotated[str, typer.Option(help="smoke (seconds), cpu (minutes) or gpu")]
Results = Annotated[Path, typer.Option("--results", help="folder of the records")]


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Print what a person got wrong as one sentence, without a traceback, and exit with 2."""

    @wraps(command)
    def wrapped(*args, **kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, LookupError, OSError, ImportError) as error:
            Console(stderr=True).print(f"error: {error}", style="red", highlight=False)
            raise typer.Exit(2) from None

    return wrapped


@app.command(name="list")
def list_sweeps() -> None:
    """List the sweeps, their arms and their scales."""
    for sweep in catalog.SWEEPS.values():
        console.print(f"[bold]{sweep.name}[/]  {sweep.question}")
        console.print(f"    arms {', '.join(sweep.arms)}; scales {', '.join(sweep.scales)}")


@app.command()
@plain_errors
def run(
    name: Name,
    scale: Scale = "cpu",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    ops: Annotated[str, typer.Option(help=f"auto, {', '.join(backends.NAMES)}")] = "auto",
    compiled: Annotated[Compile, typer.Option("--compile", help="what torch compiles")] = (
        Compile.OFF
    ),
    results_folder: Results = results.LOCAL,
    storage: Annotated[str, typer.Option(help="URL of Optuna's database; default SQLite")] = "",
    keep_weights: Annotated[bool, typer.Option(help="keep what was trained, to export")] = False,
    text: Annotated[str, typer.Option(help="your own .txt, .jsonl, .parquet or folder")] = "",
    dataset: Annotated[str, typer.Option(help="a Hugging Face data set (extra `hub`)")] = "",
    text_field: Annotated[str, typer.Option(help="key or column that holds the text")] = "text",
) -> None:
    """Run what is left of a sweep, then print its table and save its figure."""
    source, suffix = _source(text, dataset, text_field)
    execute(
        catalog.find(name),
        scale=scale,
        source=source,
        folder=results_folder / f"{name}{suffix}",
        engine=Engine(device=device, ops=ops, compile=compiled),
        storage=storage,
        keep_weights=keep_weights,
        console=console,
    )


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
    trials = results.load(name, folder=results_folder, scale=scale)
    if markdown:
        print(table.as_markdown(trials, sweep.arms))
    else:
        console.print(table.as_rich(trials, sweep.arms, f"{name}, scale {scale}"))


@app.command()
@plain_errors
def plot(
    name: Name,
    scale: Scale = "cpu",
    results_folder: Results = results.LOCAL,
) -> None:
    """Draw the figure of a sweep from its records, as PNG and SVG beside them."""
    sweep = catalog.find(name)
    trials = results.load(name, folder=results_folder, scale=scale)
    for path in figures.save(
        sweep.figure(trials, sweep.arms), results_folder / name / f"{name}-{scale}"
    ):
        console.print(f"wrote {path}")


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


def _source(text: str, dataset: str, text_field: str) -> tuple[Source, str]:
    """Return (the source asked for, what its results folder's name ends with)."""
    if text and dataset:
        raise ValueError("give --text or --dataset, not both")
    if text:
        return TextFile(path=text, text_field=text_field), f"-{Path(text).stem}"
    if dataset:
        return HubDataset(name=dataset, text_field=text_field), f"-{dataset.replace('/', '-')}"
    return PackagedText(), ""


if __name__ == "__main__":
    sys.exit(app())
