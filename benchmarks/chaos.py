"""Kills workers and trials of small sweeps at random, then looks for what was lost or doubled.

    python -m benchmarks.chaos --kills 100 --page docs/reliability.md     (or: make chaos)

Round after round, two workers run a small sweep with a checkpoint after every step, while one
process after another gets SIGKILL at a random moment: a worker, a trial, or the process that trials
are forked from. The moment is drawn once a trial runs, since workers take longer to start than
trials to end. Then a worker finishes the sweep undisturbed. Every run must be complete exactly
once, told to the study exactly once, and have the very curve it has when nothing is killed. A run
whose own process was killed as often as a run may fail is given up, as it should be, and counted.
"""

import argparse
import contextlib
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil
from optuna.trial import TrialState

from sweeps import results
from sweeps.study import studies
from sweeps.study.retries import ATTEMPTS
from sweeps.study.storage import open_storage
from sweeps.trial import provenance, records
from sweeps.trial.data.sources import TextFile
from sweeps.trial.engine import Engine
from sweeps.trial.record import Outcome
from sweeps.trial.records import Ledger
from sweeps.workers import jobs
from sweeps.workers.jobs import Job, Terms
from sweeps.workers.server import process_context
from sweeps.workers.worker import Worker
from tests import tiny_sweep
from tests.text import write_text

WORKERS = 2
LOOK_SECONDS = 0.1  # as long as no trial runs
LONGEST_PAUSE_SECONDS = 4.0  # from the first look that sees a trial to the kill
BEGIN, END = "<!-- begin chaos -->", "<!-- end chaos -->"


class Silent:
    """A watcher that does not care."""

    def __getattr__(self, name: str):
        return lambda *arguments: None


@dataclass(kw_only=True)
class Count:
    """What was done and found."""

    kills: Counter[str] = field(default_factory=Counter)
    sweeps: int = 0
    runs: int = 0
    continued: int = 0  # runs that went on from a checkpoint
    given_up: int = 0  # runs whose process was killed as often as a run may fail
    lost: int = 0
    doubled: int = 0
    told_wrongly: int = 0
    torn: int = 0  # scratch files left, or records set aside
    other_curve: int = 0

    @property
    def faults(self) -> int:
        return self.lost + self.doubled + self.told_wrongly + self.torn + self.other_curve


def work(job: Job) -> None:
    plan, ledger = job.plan(), Ledger(job.records)
    job.records.mkdir(parents=True, exist_ok=True)
    storage = open_storage(studies.sqlite_url(job.records))
    study = studies.open_study(studies.study_name(job.records.name, plan), storage, plan)
    studies.restore(study, plan, ledger)
    Worker(study=study, plan=plan, ledger=ledger, terms=job.terms).work(Silent())


def start(job: Job):
    process = process_context().Process(target=work, args=(job,))
    process.start()
    return process


def victims(workers: list) -> list[tuple[str, psutil.Process]]:
    """Return what may be killed, by what it is: workers that have a trial, and their children."""
    found = []
    for worker in workers:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(worker.pid)
            below = process.children(recursive=True)
            trials = [child for child in below if child.ppid() != worker.pid]
            servers = [x for x in below if "forkserver" in " ".join(x.cmdline())]
            if trials:
                found += [("worker", process), *(("trial", x) for x in trials)]
                found += [("fork server", x) for x in servers if x not in trials]
    return found


def disturb(job: Job, draws: random.Random, count: Count, kills: int) -> None:
    """Work on the sweep with kills until it is done or there were enough."""
    workers = [start(job) for _ in range(WORKERS)]
    while sum(count.kills.values()) < kills and any(w.is_alive() for w in workers):
        workers = [_alive(worker, job) for worker in workers]
        if not victims(workers):
            time.sleep(LOOK_SECONDS)
            continue
        time.sleep(draws.uniform(0.0, LONGEST_PAUSE_SECONDS))
        if not (kinds := victims(workers)):
            continue
        kind = draws.choice(sorted({kind for kind, _ in kinds}))
        process = draws.choice([p for k, p in kinds if k == kind])
        try:
            process.kill()
            count.kills[kind] += 1
        except psutil.Error:
            continue
    workers = [_alive(worker, job) for worker in workers]
    for worker in workers:
        worker.join()


def _alive(worker, job: Job):
    """Return the worker, or another one where it was killed."""
    return worker if worker.is_alive() or worker.exitcode == 0 else start(job)


def judge(job: Job, expected: pd.DataFrame, count: Count) -> None:
    """Count what is not as it would be had nothing been killed."""
    plan = job.plan()
    places = set(plan.places())
    everything = records.read(job.records)
    found = [r for r in everything if r.outcome is Outcome.COMPLETE]
    runs = Counter(r.run_id for r in found)
    crashed = Counter(r.run_id for r in everything if r.outcome is Outcome.CRASHED)
    given_up = {run for run, n in crashed.items() if n == ATTEMPTS}
    count.given_up += len(given_up)
    places -= given_up
    study = studies.open_study(
        studies.study_name(job.records.name, plan),
        open_storage(studies.sqlite_url(job.records)),
        plan,
    )
    told = Counter(t.user_attrs["place"] for t in study.get_trials(states=(TrialState.COMPLETE,)))
    count.sweeps += 1
    count.runs += len(runs)
    count.continued += sum(bool(r.resumed_steps) for r in found)
    count.lost += len(places - runs.keys())
    count.doubled += sum(n - 1 for n in runs.values())
    count.told_wrongly += sum(told[place] != 1 for place in places)
    left = [*job.records.rglob("*.tmp"), *job.records.glob("aside/**/*.parquet")]
    for path in left:
        print(f"torn or left over: {path.relative_to(job.records)}", flush=True)
    count.torn += len(left)
    wanted = expected[~expected["run_id"].isin(given_up)]
    merged = curves(job).merge(wanted, how="outer", indicator=True)
    count.other_curve += merged.loc[merged["_merge"] != "both", "run_id"].nunique()


def curves(job: Job) -> pd.DataFrame:
    """Return the curves of complete runs, but for what a clock says."""
    complete = {
        (r.run_id, r.attempt) for r in records.read(job.records) if r.outcome is Outcome.COMPLETE
    }
    table = results.curves(job.records.name, folder=job.records.parent)
    kept = [key in complete for key in zip(table["run_id"], table["attempt"], strict=True)]
    return table[kept].drop(columns=["seconds", "attempt"])


def chaos(kills: int, seed: int, folder: Path) -> Count:
    """Kill until there were `kills`, and return what was found; the draws come from `seed`."""
    text = folder / "tale.txt"
    write_text(text)
    base = Job(
        sweep=str(Path(tiny_sweep.__file__)),
        scale="many",
        source=TextFile(path=str(text)),
        engine=jobs.resolved(Engine(device="cpu")),
        folder=str(folder / "undisturbed"),
        terms=Terms(checkpoint_seconds=0),
    )
    work(base)
    expected, count, draws = curves(base), Count(), random.Random(seed)
    while sum(count.kills.values()) < kills:
        job = Job(**{**vars(base), "folder": str(folder / f"sweep{count.sweeps}")})
        disturb(job, draws, count, kills)
        work(job)
        judge(job, expected, count)
        print(count, flush=True)
    return count


def as_markdown(count: Count, seed: int, seconds: float) -> str:
    commit, dirty = provenance.git_commit()
    killed = ", ".join(f"{n} {kind}s" for kind, n in sorted(count.kills.items()))
    return f"""{BEGIN}
| | |
|---|---:|
| processes killed with SIGKILL | {sum(count.kills.values())} ({killed}) |
| sweeps, runs | {count.sweeps}, {count.runs} |
| runs that went on from a checkpoint | {count.continued} |
| runs given up: their own process was killed {ATTEMPTS} times | {count.given_up} |
| runs lost | {count.lost} |
| runs done twice | {count.doubled} |
| places not told to the study exactly once | {count.told_wrongly} |
| files torn or left over | {count.torn} |
| curves that differ from the undisturbed ones | {count.other_curve} |

`make chaos` (seed {seed}), {seconds / 60:.0f} minutes, commit {(commit or "unknown")[:12]}\
{" with changes" if dirty else ""}, {WORKERS} workers on 2 cores, SQLite.
{END}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="Markdown file whose marked part is replaced")
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        count = chaos(options.kills, options.seed, Path(folder))
    text = as_markdown(count, options.seed, time.monotonic() - begun)
    if options.page:
        page = options.page.read_text()
        head, _, rest = page.partition(BEGIN)
        options.page.write_text(head + text + rest.partition(END)[2])
    print(text)
    raise SystemExit(count.faults > 0)


if __name__ == "__main__":
    main()
