"""One trial that an earlier process was asked for, done by several processes together.

    torchrun --nproc-per-node 8 -m sweeps.workers.together FOLDER/runs/RUN-0/config.json

CONFIG is what every run's folder holds, a run that was out of memory too. Up to rounding the
result is that of one process, so the record answers for the trial that was asked for: it has its
`run_id` and the next free `attempt`, and `parallel` and `world_size` say how it came about. The
sweep then finds the trial done; let none of its workers be at the same trial meanwhile. A failed
run keeps its checkpoint, and the same command goes on from it, with as many processes as there are
then.

The first process writes the record; of processes that fail, the first to come does. All have to see
the same disk. No limits are kept here, and a team that is killed leaves no record. What is printed
goes to the terminal: such a run has no log.txt.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch.distributed as dist
import typer

from hybrid import codec
from hybrid.console import plain_errors, reading
from hybrid.model import HybridLM
from hybrid.spec import ModelSpec
from sweeps.show.progress import held_out
from sweeps.trial import records, run_folder, weights
from sweeps.trial.checkpoint import EVERY_SECONDS, Checkpoints
from sweeps.trial.data.streams import pinned
from sweeps.trial.engine import Engine, Parallel
from sweeps.trial.events import Event
from sweeps.trial.parallel import process_group
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Label, Outcome, Record
from sweeps.trial.run import not_run, run
from sweeps.trial.run_folder import LiveCurve, SpokenSteps
from sweeps.trial.train import Step


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a config.json asks for, and the name that the trial has by it."""

    run_id: str
    spec: ModelSpec
    recipe: Recipe
    label: Label
    engine: Engine


def read(config: Path) -> Asked:
    """Return what `config` asks for. Raises OSError or ValueError for one that is not a config."""
    with reading(config):
        data = json.loads(config.read_text())
    if not isinstance(data, dict):
        raise ValueError(f"{config}: must be a JSON object, got {type(data).__name__}")
    kinds = {"spec": ModelSpec, "recipe": Recipe, "label": Label, "engine": Engine}
    if missing := sorted({"run_id", *kinds} - data.keys()):
        raise ValueError(f"{config}: key {missing[0]!r} is missing")
    with reading(config):
        found = {
            key: codec.decode(kind, data[key], f"{config}: {key}") for key, kind in kinds.items()
        }
    recipe = replace(found["recipe"], source=pinned(found["recipe"].source))
    run_id = codec.decode(str, data["run_id"], f"{config}: run_id")
    return Asked(run_id=run_id, **{**found, "recipe": recipe})


def do(asked: Asked, folder: Path, *, keep_weights: bool, checkpoint_seconds: float) -> Record:
    """Run the trial in each process of the group, and return what this one knows of it.

    Its record is then in `folder`. Raises ValueError for a run that is settled there.
    """
    attempt = _next_attempt(asked, folder)
    label = replace(asked.label, attempt=attempt)
    known = not_run(asked.spec, asked.recipe, label=label, engine=asked.engine)
    known = replace(known, run_id=asked.run_id)
    home = run_folder.folder_of(asked.run_id, attempt, folder)
    first = dist.get_rank() == 0
    if first:
        home.path.mkdir(parents=True, exist_ok=True)
        run_folder.take_over(asked.run_id, attempt, folder)
        run_folder.write_config(home, known, asked.recipe, label, asked.engine)
    dist.barrier()  # the others read the checkpoint that was taken over
    steps: list[Step] = []
    live, spoken = LiveCurve(home) if first else None, SpokenSteps(asked.recipe)

    def watch(event: Event) -> None:
        spoken(event)
        if live is not None:
            live(event)
        if isinstance(event, Step):
            steps.append(event)

    def keep(model: HybridLM) -> None:
        if keep_weights:
            weights.keep(model, asked.recipe, weights.path_of(known, folder))

    record = run(
        asked.spec,
        asked.recipe,
        label=label,
        engine=asked.engine,
        watch=watch,
        tell=run_folder.say,
        keep=keep,
        checkpoints=Checkpoints(folder=home.checkpoint, every_seconds=checkpoint_seconds),
    )
    record = replace(record, run_id=asked.run_id)
    if first or not record.outcome.settled:
        _write(record, steps, folder)
    if first and record.outcome.settled:
        run_folder.drop_leftovers(home)
    return record


def _next_attempt(asked: Asked, folder: Path) -> int:
    before = records.Ledger(folder).by_run().get(asked.run_id, [])
    if any(record.outcome.settled for record in before):
        raise ValueError(f"{asked.run_id} is settled in {folder}; there is nothing left to do")
    return len(before)


def _write(record: Record, steps: list[Step], folder: Path) -> None:
    try:
        records.write(record, steps, folder)
    except FileExistsError:  # another process failed before this one, and its record stands
        return


def main(
    config: Annotated[Path, typer.Argument(help="config.json of a run's folder")],
    parallel: Annotated[Parallel, typer.Option(help="ddp, or fsdp for a model too large")],
    results_folder: Annotated[
        Path | None,
        typer.Option("--results", help="folder of the records; default the one of CONFIG"),
    ] = None,
    keep_weights: Annotated[bool, typer.Option(help="keep what was trained, to export")] = False,
    ops: Annotated[str, typer.Option(help="in place of CONFIG's, which it should agree with")] = "",
    checkpoint_seconds: Annotated[float, typer.Option(help="between checkpoints")] = EVERY_SECONDS,
) -> None:
    """Do the trial of CONFIG with all processes that torchrun started."""
    asked = read(config)
    engine = replace(asked.engine, parallel=parallel, ops=ops or asked.engine.ops)
    asked = replace(asked, engine=engine)
    folder = config.resolve().parents[2]
    if results_folder is not None:
        folder = results_folder.resolve() / folder.name
    with process_group(asked.engine.device):
        record = do(asked, folder, keep_weights=keep_weights, checkpoint_seconds=checkpoint_seconds)
        first = dist.get_rank() == 0
    if first or record.outcome is not Outcome.COMPLETE:
        typer.echo(f"{record.run_id}: {record.outcome} after {record.wall_s:.1f} s")
        typer.echo(record.error or f"held out, {held_out(record)}")
    if not record.outcome.settled:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(plain_errors(main))
