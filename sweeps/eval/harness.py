"""Runs tasks of lm-eval on a trained model, one after the other. Written against lm-eval 0.4.13.

lm-eval's own definitions are used as they are; what is set from outside is the number of shots
and, for a folder of records, where the data come from.
"""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from sweeps.eval import data
from sweeps.eval.adapter import WorkbenchLM
from sweeps.eval.data import Local
from sweeps.eval.record import Origin, Score
from sweeps.eval.suite import Benchmark, Suite

OURS = Path(__file__).parent / "tasks"
THEIRS = Path(lm_eval.tasks.__file__).parent
HUB = "hub"
# It tells of each setting that a definition leaves open; what matters is in the record.
logging.getLogger("lm_eval").setLevel(logging.ERROR)
datasets.disable_progress_bars()


def run(
    lm: WorkbenchLM,
    benchmarks: tuple[Benchmark, ...],
    start: Origin,
    *,
    folder: Path | None = None,
    limit: int | None = None,
) -> Iterator[list[Score]]:
    """Yield the scores of each benchmark when it has finished.

    `folder` holds the records; without one they come from the hub. `limit` is questions a task.
    Raises FileNotFoundError, before anything runs, where records are missing.
    """
    local = data.read(folder, benchmarks) if folder else [None] * len(benchmarks)
    for benchmark, records in zip(benchmarks, local, strict=True):
        began = time.monotonic()
        task = load(benchmark, records)
        found: Any = evaluate(lm, {"tasks": {benchmark.task: task}}, limit=limit, log_samples=False)
        wall_s = time.monotonic() - began
        yield _scores(benchmark, task, found, start, str(folder or HUB), wall_s)


def load(benchmark: Benchmark, records: Local | None) -> ConfigurableTask:
    """Return lm-eval's task; its data come from the hub where there are no records."""
    where = THEIRS / benchmark.official if benchmark.official else OURS
    manager = TaskManager(include_path=where, include_defaults=False)
    change: dict[str, Any] = {"task": benchmark.task, "num_fewshot": benchmark.shots}
    if records is not None:
        change |= _from_folder(records)
    # A definition is changed only as a member of a group.
    group = {"group": Suite.JAMBA_PAPER.value, "task": [change]}
    try:
        task = manager.load([group])["tasks"][benchmark.task]
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"{benchmark.task} cannot be had from the hub ({reason}); give its records "
            "with --data FOLDER, in the formats of docs/evaluation.md"
        ) from error
    assert isinstance(task, ConfigurableTask)
    _check_shots(task, benchmark)
    task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    return task


def _from_folder(records: Local) -> dict[str, Any]:
    return {
        "custom_dataset": _reader(records),
        "dataset_kwargs": None,
        "training_split": data.TRAIN if data.TRAIN in records.splits else None,
        "validation_split": None,
        # Called test whichever it is: only from that one lm-eval takes a question out of its shots.
        "test_split": records.evaluated,
        "fewshot_split": records.shots_from,
    }


def _reader(records: Local) -> Callable[..., datasets.DatasetDict]:
    def read(**_metadata: Any) -> datasets.DatasetDict:  # lm-eval passes what a task says of itself
        splits = {name: datasets.Dataset.from_list(x) for name, x in records.splits.items()}
        return datasets.DatasetDict(splits)

    return read


def _check_shots(task: ConfigurableTask, benchmark: Benchmark) -> None:
    there = len(list(task.fewshot_docs() or ()))
    if there <= benchmark.shots:
        raise ValueError(
            f"{benchmark.task}: {there} examples to choose from are too few for {benchmark.shots} "
            f"before each question; give more than {benchmark.shots}"
        )


def _scores(
    benchmark: Benchmark,
    task: ConfigurableTask,
    found: dict[str, Any],
    start: Origin,
    where: str,
    wall_s: float,
) -> list[Score]:
    """Return a score for each metric; lm-eval calls them `acc,none` and `acc_stderr,none`."""
    values, asked = found["results"][benchmark.task], found["n-samples"][benchmark.task]
    names = [name.split(",") for name in values if "," in name and "_stderr," not in name]
    config = task.config
    evaluated = config.test_split or config.validation_split
    return [
        Score(
            **vars(start),
            suite=Suite.JAMBA_PAPER,
            task=benchmark.task,
            task_version=str(task.VERSION),
            ours=benchmark.ours,
            shots=config.num_fewshot,
            shots_from=config.fewshot_split or config.training_split or evaluated,
            evaluated=evaluated,
            data=where,
            metric=metric,
            filter=filtered,
            value=float(values[f"{metric},{filtered}"]),
            stderr=_number(values[f"{metric}_stderr,{filtered}"]),
            n=asked["effective"],
            limited=asked["effective"] < asked["original"],
            wall_s=wall_s,
        )
        for metric, filtered in names
    ]


def _number(x: float | str) -> float | None:
    """Return a standard error, None where lm-eval has "N/A"."""
    return None if isinstance(x, str) else float(x)
