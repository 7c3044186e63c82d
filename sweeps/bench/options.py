"""What the commands of the benchmark share: options about sizes, and where lines are printed."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hybrid import ops as backends
from hybrid.console import naming
from hybrid.jamba import parse_ratio
from sweeps.bench.setting import Setting, jamba_style
from sweeps.options import check_device
from sweeps.trial.device import choose_device, choose_precision
from sweeps.trial.engine import Compile
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


def size(name: str, meaning: str) -> typer.models.OptionInfo:
    return typer.Option(help=f"{meaning}; default {getattr(USUAL, name)}", show_default=False)


Ratio = Annotated[str | None, size("ratio", "attention to Mamba layers")]
Width = Annotated[int | None, size("width", "of the model")]
Hidden = Annotated[int | None, size("hidden", "width inside a feed-forward")]
Blocks = Annotated[int | None, size("blocks", "of eight layers")]
Vocab = Annotated[int | None, size("vocab", "tokens there are")]
Batch = Annotated[int | None, size("batch", "sequences of a training step")]
Tokens = Annotated[int | None, size("tokens", "of a training sequence")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Bits = Annotated[Precision, typer.Option(help="of matrix products")]
Results = Annotated[Path, typer.Option("--results", help="folder of the records")]
Smoke = Annotated[bool, typer.Option(help="a tiny model unless told otherwise: does it run here?")]
OPS_HELP = f"back end, of {', '.join(backends.NAMES)}"
COMPILE_HELP = "off, on or graphs: what torch compiles"
Compiled = Annotated[
    list[Compile] | None,
    typer.Option(
        "--compile", help=f"{COMPILE_HELP}; repeatable; default off, on CUDA also the others"
    ),
]


def sizes_of(smoke: bool, **given: Any) -> Sizes:
    """Return the usual or the tiny sizes, with those that were given in their place."""
    known = {name: value for name, value in given.items() if value is not None}
    return replace(SMOKE if smoke else USUAL, **known)


def setting_of(sizes: Sizes, device: str, precision: Precision) -> Setting:
    """Return what is measured; ValueError for what a person can get wrong."""
    check_device(device)
    chosen = choose_device(device)
    with naming(f"--ratio {sizes.ratio}"):
        ratio = parse_ratio(sizes.ratio)
    return Setting(
        spec=jamba_style(
            ratio=ratio,
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


def typed() -> str:
    """Return the command as it was typed."""
    return shlex.join(["python", "-m", "sweeps", *sys.argv[1:]])


def say(what: str) -> None:
    """Tell whoever waits what happens."""
    progress.print(what, style="dim", highlight=False)


def print_lines(lines: list[str]) -> None:
    """Print sentences as they are, however long."""
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
