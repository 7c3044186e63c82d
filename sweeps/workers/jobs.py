"""What a worker needs to know in order to help, wherever it runs: kept in the study as JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.study import Study

from hybrid import codec
from hybrid import ops as backends
from sweeps import catalog
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.plans.search import Hunt, Search
from sweeps.sweep import Sweep
from sweeps.trial.checkpoint import EVERY_SECONDS
from sweeps.trial.data.cache import write_atomically
from sweeps.trial.data.sources import Source
from sweeps.trial.data.streams import pinned
from sweeps.trial.device import choose_device, choose_precision
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Precision
from sweeps.workers.process import NO_LIMITS, Limits

JOB = "job"  # user attribute of a study
FILE = "job.json"  # in the folder of the records


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How every trial of a job is run, whatever it is."""

    keep_weights: bool = False
    limits: Limits = NO_LIMITS
    checkpoint_seconds: float | None = EVERY_SECONDS  # None keeps no checkpoint


@dataclass(frozen=True, kw_only=True)
class Job:
    """One sweep at one scale, and where its records go. `folder` is shared by all its workers."""

    sweep: str  # name in the catalog, or path of a file that defines SWEEP
    scale: str
    source: Source | None  # in place of the default text; None: what the recipes name
    engine: Engine
    folder: str
    terms: Terms = Terms()
    precision: Precision | None = None  # what `auto` was where the job was made; None: not known

    def plan(self) -> Plan:
        """Return the plan. Raises ValueError for an unknown sweep or scale."""
        sweep = catalog.find(self.sweep)
        return PLANS[type(sweep)](sweep, self)

    @property
    def records(self) -> Path:
        return Path(self.folder)


PLANS: dict[type, Callable[..., Plan]] = {
    Sweep: lambda sweep, job: Grid(
        sweep=sweep, scale=job.scale, source=job.source, engine=job.engine
    ),
    Search: lambda search, job: Hunt(
        search=search, scale=job.scale, source=job.source, engine=job.engine
    ),
}


def fixed(job: Job) -> Job:
    """Return `job` so that it means the same in every folder and on every machine.

    Raises what `resolved` and reading the text raise.
    """
    engine = resolved(job.engine)
    return replace(
        job,
        engine=engine,
        source=None if job.source is None else pinned(job.source),
        folder=str(job.records.resolve()),
        precision=choose_precision(Precision.AUTO, choose_device(engine.device)),
    )


def resolved(engine: Engine) -> Engine:
    """Return `engine` with what "auto" means here, so that no worker takes it for something else.

    The number of a GPU stays, so that trials run on the one that was asked for. No run's name and
    no record has the number: both have the kind of the device.
    Raises ValueError or ImportError for a device or an implementation that is not here.
    """
    device = choose_device(engine.device)
    return replace(engine, device=str(device), ops=backends.find(engine.ops, device).name)


def require_folder(job: Job) -> None:
    """Raise FileNotFoundError where the folder of a job's records is not, as `keep` made it.

    A folder that is mounted elsewhere here would be made anew, and no other worker would see it.
    """
    if not (job.records / FILE).is_file():
        raise FileNotFoundError(
            f"the job's folder of records {job.records} is not on this machine, or has no {FILE}; "
            "mount it at that path, or make the study anew with `python -m sweeps run`"
        )


def attach(study: Study, job: Job) -> None:
    """Keep `job` in the study."""
    study.set_user_attr(JOB, codec.dumps(job))


def is_of(attributes: Mapping[str, Any], folder: str, scale: str) -> bool:
    """Return whether a study of these user attributes is of the sweep in `folder` at `scale`.

    Studies of other programs are not. A job that newer code made need not be readable here.
    """
    kept = json.loads(attributes.get(JOB, "{}"))
    return bool(kept) and (Path(kept["folder"]).name, kept["scale"]) == (folder, scale)


def keep(job: Job) -> None:
    """Write down in the folder of the records what is run into it, for commands that read them."""
    job.records.mkdir(parents=True, exist_ok=True)
    write_atomically(job.records / FILE, f"{codec.dumps(job)}\n".encode())


def of_folder(folder: Path) -> Job | None:
    """Return what was run last into `folder`; None where that was not written down.

    Raises ValueError, naming the file, for one that holds something else.
    """
    path = folder / FILE
    try:
        return codec.loads(Job, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def of_study(study: Study) -> Job:
    """Return the job that the study was made for; LookupError if another program made it."""
    if JOB not in study.user_attrs:
        raise LookupError(f"study {study.study_name!r} was not made by `python -m sweeps run`")
    return codec.loads(Job, study.user_attrs[JOB])
