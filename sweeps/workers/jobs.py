"""What a worker needs to know in order to help, wherever it runs: kept in the study as JSON."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.study import Study

from hybrid import codec
from hybrid import ops as backends
from sweeps import catalog
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.plans.search import Hunt, Search
from sweeps.sweep import Sweep
from sweeps.trial.checkpoint import EVERY_SECONDS
from sweeps.trial.data.sources import Source
from sweeps.trial.device import choose_device
from sweeps.trial.engine import Engine
from sweeps.workers.process import NO_LIMITS, Limits

JOB = "job"  # user attribute of a study


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
    source: Source
    engine: Engine
    folder: str
    terms: Terms = Terms()

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


def resolved(engine: Engine) -> Engine:
    """Return `engine` with what "auto" means here, so that no worker takes it for something else.

    The number of a GPU stays, so that trials run on the one that was asked for. No run's name and
    no record has the number: both have the kind of the device.
    Raises ValueError or ImportError for a device or an implementation that is not here.
    """
    device = choose_device(engine.device)
    return replace(engine, device=str(device), ops=backends.find(engine.ops, device).name)


def attach(study: Study, job: Job) -> None:
    """Keep `job` in the study."""
    study.set_user_attr(JOB, codec.dumps(job))


def of_study(study: Study) -> Job:
    """Return the job that the study was made for; LookupError if another program made it."""
    if JOB not in study.user_attrs:
        raise LookupError(f"study {study.study_name!r} was not made by `python -m sweeps run`")
    return codec.loads(Job, study.user_attrs[JOB])
