"""The commands bench, profile, limits and bench-figure: options to a Setting, rows to a table."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hybrid.console import naming
from hybrid.spec import require
from hybrid.units import parse_memory
from sweeps.bench import entries, figure, limits, limits_table, profile, record, run, table
from sweeps.bench.options import (
    COMPILE_HELP,
    OPS_HELP,
    SMOKE,
    USUAL,
    Batch,
    Bits,
    Blocks,
    Compiled,
    Device,
    Hidden,
    Ratio,
    Results,
    Smoke,
    Tokens,
    Vocab,
    Width,
    console,
    print_lines,
    say,
    setting_of,
    size,
    sizes_of,
    typed,
)
from sweeps.bench.peak import in_process
from sweeps.bench.setting import Phase
from sweeps.results import LOCAL
from sweeps.show import figures
from sweeps.trial.engine import Compile
from sweeps.trial.progress_log import saying
from sweeps.trial.recipe import Precision


def bench(
    ratio: Ratio = None,
    width: Width = None,
    hidden: Hidden = None,
    blocks: Blocks = None,
    vocab: Vocab = None,
    batch: Batch = None,
    tokens: Tokens = None,
    context: Annotated[
        list[int] | None, typer.Option(help="tokens of a prompt; repeatable; default 1024")
    ] = None,
    decode_tokens: Annotated[int | None, size("decode_tokens", "decoded in one call")] = None,
    rounds: Annotated[int | None, size("rounds", "turns for each contender")] = None,
    budget: Annotated[float, typer.Option(help="seconds; longer calls get fewer rounds")] = 60.0,
    device: Device = "auto",
    precision: Bits = Precision.AUTO,
    ops: Annotated[
        list[str] | None, typer.Option(help=f"{OPS_HELP}; repeatable; default all")
    ] = None,
    compiled: Compiled = None,
    peers: Annotated[bool, typer.Option(help="also transformers and mambapy")] = True,
    phases: Annotated[
        list[Phase] | None, typer.Option(help="what to time; repeatable; default all")
    ] = None,
    memory: Annotated[bool, typer.Option(help="measure memory, each in a new process")] = True,
    results: Results = LOCAL,
    smoke: Smoke = False,
) -> None:
    """Time training, prefill, decode and scan of our back ends and of others' Jamba, in turn."""
    sizes = sizes_of(
        smoke,
        ratio=ratio,
        width=width,
        hidden=hidden,
        blocks=blocks,
        vocab=vocab,
        batch=batch,
        tokens=tokens,
        contexts=tuple(context) if context else None,
        decode_tokens=decode_tokens,
        rounds=rounds,
    )
    setting = replace(
        setting_of(sizes, device, precision),
        budget_s=budget,
        phases=tuple(dict.fromkeys(phases or Phase)),
    )
    with naming(f"--ops {', '.join(ops or ())}"):
        names = entries.chosen(ops or (), peers, setting.device, compiled or ())
    work = partial(run.run, setting, names, memory=memory, command=typed(), say=say)
    with saying("measuring", say):
        rows = in_process(work, parent=True)
    frame = record.as_frame(rows)
    console.print(table.as_rich(frame, f"{setting.device.type}, {setting.precision}"))
    print_lines([*table.notes(frame), table.machine(frame)])
    print_lines([f"wrote {record.write(rows, results)}"])  # last: what was measured is printed


def profile_step(
    ratio: Ratio = None,
    width: Width = None,
    hidden: Hidden = None,
    blocks: Blocks = None,
    vocab: Vocab = None,
    batch: Batch = None,
    tokens: Tokens = None,
    device: Device = "auto",
    precision: Bits = Precision.AUTO,
    ops: Annotated[str, typer.Option(help=f"{OPS_HELP}; default the fastest")] = "",
    steps: Annotated[int, typer.Option(help="profiled, after the warm-up")] = 3,
    label: Annotated[str, typer.Option(help="such as before or after; stands in the table")] = "",
    results: Results = LOCAL,
    smoke: Smoke = False,
) -> None:
    """Show what share of a training step each part takes: products, scan, attention and so on."""
    require(steps >= 1, f"profile: steps={steps} must be 1 or more")
    sizes = sizes_of(
        smoke,
        ratio=ratio,
        width=width,
        hidden=hidden,
        blocks=blocks,
        vocab=vocab,
        batch=batch,
        tokens=tokens,
    )
    setting = setting_of(sizes, device, precision)
    with naming(f"--ops {ops}"):
        name = entries.chosen([ops] if ops else (), False, setting.device)[0]
    work = partial(profile.run, setting, name, steps=steps, label=label, command=typed())
    with saying("profiling training steps", say):
        rows = in_process(work)
    shown = Table(title=f"one training step of {name}: {1e3 * rows[0].step_s:,.1f} ms profiled")
    for heading in ("part", "share", "ms", "calls"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            row.part, f"{100 * row.share:.1f}%", f"{1e3 * row.part_s:.2f}", f"{row.calls:.0f}"
        )
    console.print(shown)
    print_lines([f"wrote {record.write(rows, results)}"])


def largest_batch(
    ratio: Annotated[
        list[str] | None, typer.Option(help="attention to Mamba layers; repeatable; default 1:7")
    ] = None,
    width: Width = None,
    hidden: Hidden = None,
    blocks: Blocks = None,
    vocab: Vocab = None,
    tokens: Tokens = None,
    context: Annotated[int | None, typer.Option(help="before decoding; default 1024")] = None,
    decode_tokens: Annotated[int | None, size("decode_tokens", "decoded, each timed")] = None,
    rounds: Annotated[int | None, size("rounds", "training steps timed")] = None,
    memory: Annotated[
        str, typer.Option(help='to fill, such as "8GB"; default all of a GPU, a part of free RAM')
    ] = "",
    max_batch: Annotated[int, typer.Option(help="sequences at the most")] = 1 << 20,
    budget: Annotated[
        float, typer.Option(help="seconds for a phase of a model; then no larger batch is begun")
    ] = 60.0,
    device: Device = "auto",
    precision: Bits = Precision.AUTO,
    ops: Annotated[str, typer.Option(help=f"{OPS_HELP}; default the fastest")] = "",
    compiled: Annotated[Compile, typer.Option("--compile", help=COMPILE_HELP)] = Compile.OFF,
    results: Results = LOCAL,
    smoke: Smoke = False,
) -> None:
    """Double the batch until memory is exhausted, training and decoding: time, and memory."""
    usual = SMOKE if smoke else USUAL
    settings = [
        setting_of(
            sizes_of(
                smoke,
                ratio=each,
                width=width,
                hidden=hidden,
                blocks=blocks,
                vocab=vocab,
                tokens=tokens,
                contexts=None if context is None else (context,),
                decode_tokens=decode_tokens,
                rounds=rounds,
            ),
            device,
            precision,
        )
        for each in dict.fromkeys(ratio or [usual.ratio])
    ]
    where = settings[0].device
    bounds = limits.Bounds(
        memory_bytes=parse_memory(memory) if memory else limits.memory_of(where),
        max_batch=max_batch,
        budget_s=budget,
    )
    with naming(f"--ops {ops}"):
        name = entries.chosen([ops] if ops else (), False, where, [compiled])[0]
    with saying("measuring", say):
        rows = limits.run(settings, name, bounds, command=typed(), say=say)
    frame = record.as_frame(rows)
    console.print(limits_table.as_rich(frame, f"{name}, {where.type}, {settings[0].precision}"))
    print_lines([*limits_table.notes(frame), limits_table.provenance(frame)])
    print_lines([f"wrote {record.write(rows, results)}"])


def draw(
    files: Annotated[list[Path], typer.Argument(help="of bench and limits, of several ratios")],
    to: Annotated[Path, typer.Option(help="the figure, without .png and .svg")],
) -> None:
    """Draw throughput against context and batch, a line for each ratio, from files of records."""
    paths = figures.save(figure.throughput(figure.read(files)), to)
    print_lines([f"wrote {path}" for path in paths])
