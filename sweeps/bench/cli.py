"""The two commands, bench and profile: options to a Setting, rows to a table and a file."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hybrid import ops as backends
from hybrid.jamba import parse_ratio
from hybrid.spec import require
from sweeps.bench import entries, profile, record, run, table
from sweeps.bench.setting import Phase, Setting, jamba_style
from sweeps.results import LOCAL
from sweeps.trial.device import choose_device, choose_precision
from sweeps.trial.recipe import Precision


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the options about size mean; those not given are these."""

    ratio: str = "1:7"
    width: int = 128
    hidden: int = 256
    blocks: int = 1
    vocab: int = 1024
    batch: int = 8
    tokens: int = 256
    contexts: tuple[int, ...] = (1024,)
    decode_tokens: int = 32
    rounds: int = 5
    round_s: float = 0.5


USUAL = Sizes()
SMOKE = Sizes(
    width=32,
    hidden=48,
    vocab=64,
    batch=2,
    tokens=16,
    contexts=(24,),
    decode_tokens=2,
    rounds=2,
    round_s=0.01,
)
LOG_WIDTH = 170  # of a table that goes to a file
console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
progress = Console(stderr=True)


def _size(name: str, meaning: str) -> typer.models.OptionInfo:
    return typer.Option(help=f"{meaning}; default {getattr(USUAL, name)}", show_default=False)


Ratio = Annotated[str | None, _size("ratio", "attention to Mamba layers")]
Width = Annotated[int | None, _size("width", "of the model")]
Hidden = Annotated[int | None, _size("hidden", "width inside a feed-forward")]
Blocks = Annotated[int | None, _size("blocks", "of eight layers")]
Vocab = Annotated[int | None, _size("vocab", "tokens there are")]
Batch = Annotated[int | None, _size("batch", "sequences of a training step")]
Tokens = Annotated[int | None, _size("tokens", "of a training sequence")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Bits = Annotated[Precision, typer.Option(help="of matrix products")]
Results = Annotated[Path, typer.Option("--results", help="folder of the records")]
Smoke = Annotated[bool, typer.Option(help="a tiny model unless told otherwise: does it run here?")]
OPS_HELP = f"back end, of {', '.join(backends.NAMES)}"


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
    decode_tokens: Annotated[int | None, _size("decode_tokens", "decoded in one call")] = None,
    rounds: Annotated[int | None, _size("rounds", "turns for each contender")] = None,
    budget: Annotated[float, typer.Option(help="seconds; longer calls get fewer rounds")] = 60.0,
    device: Device = "auto",
    precision: Bits = Precision.AUTO,
    ops: Annotated[
        list[str] | None, typer.Option(help=f"{OPS_HELP}; repeatable; default all")
    ] = None,
    peers: Annotated[bool, typer.Option(help="also transformers and mambapy")] = True,
    phases: Annotated[
        list[Phase] | None, typer.Option(help="what to time; repeatable; default all")
    ] = None,
    memory: Annotated[bool, typer.Option(help="measure memory, each in a new process")] = True,
    results: Results = LOCAL,
    smoke: Smoke = False,
) -> None:
    """Time training, prefill, decode and scan of our back ends and of others' Jamba, in turn."""
    sizes = _sizes(
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
        _setting(sizes, device, precision),
        budget_s=budget,
        phases=tuple(dict.fromkeys(phases or Phase)),
    )
    names = entries.chosen(ops or (), peers, setting.device)
    rows = run.run(setting, names, memory=memory, command=_command(), say=_say)
    path = record.write(rows, results)
    frame = record.as_frame(rows)
    console.print(table.as_rich(frame, f"{setting.device.type}, {setting.precision}"))
    _print_lines([*table.notes(frame), table.machine(frame), f"wrote {path}"])


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
    sizes = _sizes(
        smoke,
        ratio=ratio,
        width=width,
        hidden=hidden,
        blocks=blocks,
        vocab=vocab,
        batch=batch,
        tokens=tokens,
    )
    setting = _setting(sizes, device, precision)
    name = entries.chosen([ops] if ops else (), False, setting.device)[0]
    rows = profile.run(setting, name, steps=steps, label=label, command=_command())
    path = record.write(rows, results)
    shown = Table(title=f"one training step of {name}: {1e3 * rows[0].step_s:,.1f} ms profiled")
    for heading in ("part", "share", "ms", "calls"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            row.part, f"{100 * row.share:.1f}%", f"{1e3 * row.part_s:.2f}", f"{row.calls:.0f}"
        )
    console.print(shown)
    _print_lines([f"wrote {path}"])


def _sizes(smoke: bool, **given: Any) -> Sizes:
    """Return the usual or the tiny sizes, with those that were given in their place."""
    known = {name: value for name, value in given.items() if value is not None}
    return replace(SMOKE if smoke else USUAL, **known)


def _setting(sizes: Sizes, device: str, precision: Precision) -> Setting:
    chosen = choose_device(device)
    return Setting(
        spec=jamba_style(
            ratio=parse_ratio(sizes.ratio),
            width=sizes.width,
            hidden=sizes.hidden,
            blocks=sizes.blocks,
            vocab=sizes.vocab,
        ),
        device=chosen,
        precision=choose_precision(precision, chosen),
        batch=sizes.batch,
        tokens=sizes.tokens,
        contexts=sizes.contexts,
        decode_tokens=sizes.decode_tokens,
        rounds=sizes.rounds,
        round_s=sizes.round_s,
    )


def _command() -> str:
    return shlex.join(["python", "-m", "sweeps", *sys.argv[1:]])


def _say(what: str) -> None:
    progress.print(what, style="dim", highlight=False)


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
