"""The commands for a model that has been trained: generate and eval."""

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hybrid import ops as backends
from hybrid.console import naming
from hybrid.generate import Choice
from hybrid.spec import LARGEST, require
from sweeps import options, results, speech, trained
from sweeps.bench.options import print_lines, say, typed
from sweeps.eval import needle, needle_figure, record, suite, table
from sweeps.eval.record import Origin
from sweeps.eval.scoring import Scorer
from sweeps.eval.suite import Suite
from sweeps.show import figures
from sweeps.terminal import console
from sweeps.trained import Trained
from sweeps.trial.device import autocast, choose_precision
from sweeps.trial.progress_log import saying
from sweeps.trial.recipe import Precision

Name = Annotated[
    str, typer.Argument(help="run id of a run with kept weights, or a folder of a Jamba model")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
OpsName = Annotated[str, typer.Option("--ops", help=f"auto, {', '.join(backends.NAMES)}")]
Bits = Annotated[Precision, typer.Option(help="of matrix products")]
Results = Annotated[Path, typer.Option("--results", help="folder of the records")]


def generate(
    name: Name,
    prompt: Annotated[str, typer.Option(help="what to continue; default the begin of a text")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="at the most")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token")] = 0.8,
    top_k: Annotated[
        int, typer.Option(min=0, max=LARGEST, help="so many likeliest tokens; 0 is all")
    ] = 0,
    top_p: Annotated[float, typer.Option(help="the likeliest tokens with this probability")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="of the draws")] = 0,
    device: Device = "auto",
    ops: OpsName = "auto",
    precision: Bits = Precision.AUTO,
    results_folder: Results = results.LOCAL,
) -> None:
    """Print text that a trained model writes, token by token."""
    choice = Choice(temperature=temperature, top_k=top_k or None, top_p=top_p)
    options.check_backend(ops, device)
    with saying(f"opening {name}"):
        found = trained.find(name, folder=results_folder, device=device, ops=ops)
    where = found.model.embed.weight.device
    with autocast(choose_precision(precision, where), where):
        for piece in speech.speak(found, prompt, tokens=tokens, choice=choice, seed=seed):
            sys.stdout.write(piece)
            sys.stdout.flush()
    sys.stdout.write("\n")


def evaluate(
    name: Name,
    asked: Annotated[Suite, typer.Option("--suite", help="what to ask")] = Suite.JAMBA_PAPER,
    tasks: Annotated[list[str] | None, typer.Option(help="of jamba-paper; repeatable")] = None,
    data: Annotated[
        Path | None, typer.Option(help="folder of records, instead of the hub: docs/evaluation.md")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="questions a task; 0 is all")] = 0,
    context: Annotated[
        list[int] | None, typer.Option(help="of needle: tokens; repeatable; default 256 to 2048")
    ] = None,
    depths: Annotated[
        int | None, typer.Option(min=2, help="of needle: from 0 to 1; default 5")
    ] = None,
    needles: Annotated[
        int | None, typer.Option(min=1, help="of needle: in each cell; default 5")
    ] = None,
    text: Annotated[str, typer.Option(help="of needle: your own haystack, as of `run`")] = "",
    batch: Annotated[int, typer.Option(min=1, help="sequences scored at once")] = 8,
    longest: Annotated[
        int, typer.Option(min=0, help="tokens read of a sequence, cut at its beginning; 0 is all")
    ] = 0,
    device: Device = "auto",
    ops: OpsName = "auto",
    precision: Bits = Precision.AUTO,
    results_folder: Results = results.LOCAL,
) -> None:
    """Score a trained model: the paper's benchmarks through lm-eval, or a needle in a haystack."""
    of_needle = {"context": context, "depths": depths, "needles": needles, "text": text}
    of_tasks = {"tasks": tasks, "data": data, "limit": limit}
    if asked is Suite.JAMBA_PAPER:
        _refuse(of_needle, asked)
        _need_lm_eval()
    else:
        _refuse(of_tasks, asked)
    with naming(f"--tasks {', '.join(tasks or [])}"):
        chosen = suite.chosen(tasks or [])
    sizes = needle.sizes(context or (), depths, needles, text)
    options.check_backend(ops, device)
    with saying(f"opening {name}"):
        found = trained.find(name, folder=results_folder, device=device, ops=ops)
    where = found.model.embed.weight.device
    bits = choose_precision(precision, where)
    scorer = Scorer(model=found.model, precision=bits, batch=batch, longest=longest or None)
    start = record.origin(found, scorer, typed())
    if asked is Suite.NEEDLE:
        _needle(found, scorer, start, sizes, results_folder)
        return
    rows = []
    try:
        with saying("loading lm-eval", say) as log:
            harness = importlib.import_module("sweeps.eval.harness")
            adapter = importlib.import_module("sweeps.eval.adapter")
            lm = adapter.WorkbenchLM(found, scorer, tell=log.now)
            log.now("reading the records of the tasks")
            for scores in harness.run(lm, chosen, start, folder=data, limit=limit or None):
                rows += scores
                path = record.write(scores, scores[0].task, results_folder)
                say(f"wrote {path}")
                log.said()
    finally:  # also what could not be written, or came before an error
        if rows:
            console.print(table.scores(rows))


def _refuse(options: dict[str, Any], asked: Suite) -> None:
    """Raise ValueError if one of these options is given, which all are of another suite."""
    given = [f"--{name}" for name, value in options.items() if value]
    require(not given, f"--suite {asked} has no {', '.join(given)}; leave out what is not its own")


def _needle(
    found: Trained, scorer: Scorer, start: Origin, sizes: needle.Sizes, results_folder: Path
) -> None:
    rows = []
    with saying("hiding needles in text and asking the model", say) as log:
        for row in needle.run(found, scorer, start, sizes):
            rows.append(row)
            say(f"context {row.context}, depth {row.depth:.2f}: {row.exact:.2f} exact")
            log.said()
    console.print(table.needles(rows))
    print_lines([table.what_needles_show(rows)])
    path = record.write(rows, Suite.NEEDLE, results_folder)
    print_lines([f"wrote {path}"])
    figure = needle_figure.draw(record.as_table(rows).to_pandas())
    print_lines([f"wrote {x}" for x in figures.save(figure, path.with_suffix(""))])


def _need_lm_eval() -> None:
    try:
        importlib.import_module("lm_eval")
    except ImportError as error:
        raise ImportError(
            f"--suite {Suite.JAMBA_PAPER} needs lm-eval: pip install 'hybrid-workbench[eval]', or "
            "in the checkout pip install -c constraints.txt -e '.[eval]'"
        ) from error
