"""Says which wishes of a `run` come too late: for trials that are finished, running or given up."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from optuna.study import Study
from optuna.trial import TrialState

from hybrid import codec
from sweeps.command_line import retry_command
from sweeps.plans.grid import Grid
from sweeps.plans.plan import Plan
from sweeps.study import studies
from sweeps.study.replay import counted
from sweeps.study.retries import ATTEMPTS, forgiven, is_open
from sweeps.study.storage import shown
from sweeps.trial import weights
from sweeps.trial.record import Outcome, Record
from sweeps.trial.records import Ledger
from sweeps.workers import jobs
from sweeps.workers.jobs import Job

ELSEWHERE = "into another --results folder"


def of_finished(job: Job, plan: Plan, ledger: Ledger, url: str) -> Iterator[str]:
    """Yield a sentence for what this run cannot change of trials that earlier runs recorded.

    `url` is that of the study's storage.
    """
    runs = _runs(plan, ledger)
    if job.terms.keep_weights and (n := sum(_lacks_weights(x, ledger.folder) for x in runs)):
        yield (
            f"--keep-weights: {n} finished {_trials(n)} kept no weights and will not run again; "
            f"to have the weights, run the sweep with --keep-weights {ELSEWHERE}"
        )
    excused = forgiven(ledger.folder)
    if n := sum(_is_given_up(x, plan.rules, excused) for x in runs):
        storage = "" if url == studies.sqlite_url(ledger.folder) else shown(url)
        again = retry_command(ledger.folder, plan.scale, storage)
        yield (
            f"{n} {_trials(n)} failed {ATTEMPTS} times and will not run again, whatever the limits "
            f"are now; `python -m sweeps status` says why, and `{again}` lets them be tried again"
        )


def of_running(job: Job, study: Study) -> Iterator[str]:
    """Yield a sentence if trials run under other terms. Call this before the job is attached."""
    if jobs.JOB not in study.user_attrs:
        return
    before = json.loads(study.user_attrs[jobs.JOB]).get("terms")
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    if running and before != json.loads(codec.dumps(job))["terms"]:
        yield (
            f"workers that already run ({running} {_trials(running)}) keep the limits, and the "
            "choice about weights, that they began with; this command's hold for new workers"
        )


def _runs(plan: Plan, ledger: Ledger) -> list[list[Record]]:
    """Return the attempts at each run of a grid's plan, or at each run of a search's scale."""
    asked = plan.points if isinstance(plan, Grid) else None
    return [
        attempts
        for run_id, attempts in ledger.by_run().items()
        if (attempts[0].sweep, attempts[0].scale) == (plan.name, plan.scale)
        and (asked is None or run_id in asked)
    ]


def _lacks_weights(attempts: list[Record], folder: Path) -> bool:
    complete = [r for r in attempts if r.outcome is Outcome.COMPLETE]
    return bool(complete) and not any(weights.path_of(r, folder).exists() for r in complete)


def _is_given_up(attempts: list[Record], rules: str, excused: Mapping[str, int]) -> bool:
    mine = counted(attempts, rules)
    settled = any(record.outcome.settled for record in mine)
    return bool(mine) and not settled and not is_open(mine, excused.get(mine[0].run_id, 0))


def _trials(count: int) -> str:
    return "trial" if count == 1 else "trials"
