"""The command line: python -m hybrid cost|plan|docs. Arithmetic; torch only for `--device this`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hybrid import codec, docs, report
from hybrid.console import naming, plain_errors
from hybrid.cost import Weights
from hybrid.devices import Device, find_device
from hybrid.plan import Budget
from hybrid.plan_report import plan_sheet
from hybrid.presets import PRESETS
from hybrid.published import FIGURE_2_MODEL, FIGURE_2_RATIOS
from hybrid.spec import ModelSpec
from hybrid.units import parse_context, parse_count, parse_memory

app = typer.Typer(
    help="What a hybrid language model costs, by arithmetic.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PLAIN_WIDTH = 160  # of a table that goes to a file
console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)

Models = Annotated[list[str], typer.Argument(help="preset names or spec files (.json)")]
Context = Annotated[str, typer.Option(help="tokens, such as 4096 or 256k")]
Batch = Annotated[int, typer.Option(help="sequences at once", min=1)]
Stored = Annotated[Weights, typer.Option("--weights", help="how weights are stored")]
Chunk = Annotated[str, typer.Option(help="tokens of a prompt in one pass, such as 8k, or all")]
Memory = Annotated[str, typer.Option(help="such as 80GB or 80GiB; default: the device's")]
On = Annotated[str, typer.Option("--device", help="name of a device, or `this` to measure here")]


@app.command()
@plain_errors
def cost(
    models: Models,
    context: Context = "4k",
    batch: Batch = 1,
    weights: Stored = Weights.BF16,
    chunk: Chunk = "8k",
    memory: Memory = "",
    device: On = "a100-80gb-sxm",
    compare: Annotated[bool, typer.Option("--compare", help="show them side by side")] = False,
) -> None:
    """Print what models cost: one card each, or a table to compare them."""
    specs = {name: load_spec(name) for name in models}
    machine = load_device(device)
    setting = report.Setting(
        context=parse_context(context),
        batch=batch,
        weights=weights,
        chunk=parse_chunk(chunk),
        memory=parse_memory(memory) if memory else machine.memory_bytes,
        device=machine,
    )
    if compare:
        sheets = [report.summary(specs, setting)]
        if FIGURE_2_MODEL in specs and specs.keys() & FIGURE_2_RATIOS.keys():
            sheets += [report.table_1(), report.figure_2()]
    else:
        sheets = [
            sheet for name, spec in specs.items() for sheet in report.card(name, spec, setting)
        ]
    for sheet in sheets:
        sheet.show(console)


@app.command()
@plain_errors
def plan(
    memory: Memory = "",
    context: Context = "256k",
    batch: Batch = 1,
    weights: Stored = Weights.INT8,
    chunk: Chunk = "8k",
    min_active: Annotated[str, typer.Option(help="active parameters, such as 12B")] = "",
    max_flops: Annotated[str, typer.Option(help="FLOPs of one more token, such as 40G")] = "",
    min_attention: Annotated[int, typer.Option(help="attention layers", min=0)] = 0,
    base: Annotated[str, typer.Option(help="model whose size the family has")] = FIGURE_2_MODEL,
    device: On = "a100-80gb-sxm",
    top: Annotated[int, typer.Option(help="rows to print", min=1)] = 20,
) -> None:
    """Print the settings of a family that fit a budget and that no other setting beats."""
    machine = load_device(device)
    name = Path(base).stem if base.endswith(".json") else base
    budget = Budget(
        memory=parse_memory(memory) if memory else machine.memory_bytes,
        context=parse_context(context),
        batch=batch,
        weights=weights,
        chunk=parse_chunk(chunk),
        min_active=parse_count(min_active) if min_active else None,
        max_flops=parse_count(max_flops) if max_flops else None,
        min_attention=min_attention,
    )
    plan_sheet(name, load_spec(base), budget, machine, top).show(console)


@app.command(name="docs")
@plain_errors
def write_docs() -> None:
    """Write docs/cost.md anew, in the checkout you stand in."""
    docs.PAGE.write_text(docs.page())
    console.print(f"wrote {docs.PAGE}")


def load_spec(name: str) -> ModelSpec:
    """Return a preset, or the spec in a JSON file; LookupError and ValueError say what is wrong."""
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix != ".json":
        raise LookupError(
            f"there is no model {name!r}; there are: {', '.join(PRESETS)}, "
            "and any spec file whose name ends in .json"
        )
    try:
        return codec.loads(ModelSpec, path.read_text())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def load_device(name: str) -> Device:
    """Return a device of the table, or the machine at hand, measured."""
    if name != "this":
        with naming(f"--device {name}"):
            return find_device(name)
    from hybrid.machine import this_machine  # imports torch

    return this_machine()


def parse_chunk(text: str) -> int | None:
    """Return tokens, or None for "all"."""
    return None if text == "all" else parse_context(text)


if __name__ == "__main__":
    sys.exit(app())
