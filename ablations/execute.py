"""How a finding's sweep is run: as a job of `sweeps`, with local workers."""

from pathlib import Path

from rich.console import Console

from ablations.run import Execute
from sweeps.execute import execute
from sweeps.options import check_backend
from sweeps.study.storage import parse
from sweeps.trial.engine import Engine
from sweeps.workers.jobs import Job, resolved


def executor(
    scale: str, device: str, ops: str, *, storage: str, workers: int, console: Console
) -> Execute:
    """Return what runs one sweep at `scale`, on its own text, until nothing of it is left.

    Raises ValueError or ImportError for an engine that is not here and for a storage of no known
    form, before anything is written.
    """
    if storage:
        parse(storage)
    check_backend(ops, device)
    engine = resolved(Engine(device=device, ops=ops))

    def run(file: Path, folder: Path) -> None:
        job = Job(
            sweep=str(file.resolve()),
            scale=scale,
            source=None,
            engine=engine,
            folder=str(folder.resolve()),
        )
        execute(job, storage=storage, workers=workers, console=console)

    return run
