"""Runs tasks of lm-eval on a trained model, one after the other. Written against lm-eval 0.4.13.

lm-eval's own definitions are used as they are; what is set from outside is the number of shots
and, for a folder of records, where the data come from.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import jinja2
import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from hybrid.spec import require
from sweeps.eval import data
from sweeps.eval.adapter import MOST_TOKENS, WorkbenchLM
from sweeps.eval.data import Local
from sweeps.eval.record import Origin, Score, sha256_of
from sweeps.eval.suite import Benchmark, Suite

OURS = Path(__file__).parent / "tasks"
THEIRS = Path(lm_eval.tasks.__file__).parent
HUB = "hub"
NO_RECORD = (  # what comes of one that is not as it should be
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    jinja2.TemplateError,
)
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
    Before anything runs, raises FileNotFoundError where records are missing, and ValueError for
    one that is not as it should be and for a model that reads too few tokens of a sequence.
    """
    local = data.read(folder, benchmarks) if folder else [None] * len(benchmarks)
    tasks = [load(*both) for both in zip(benchmarks, local, strict=True)]
    for benchmark, task in zip(benchmarks, tasks, strict=True):
        _check_longest(task, benchmark, lm.scorer.longest)
    for benchmark, task in zip(benchmarks, tasks, strict=True):
        began = time.monotonic()
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
    except Exception as error:
        if records is None:  # whatever class the hub's client has for it
            raise _not_had(benchmark, error) from error
        if isinstance(error, NO_RECORD):
            raise _not_as_documented(benchmark, error) from error
        raise
    assert isinstance(task, ConfigurableTask)
    pool = task.sampler.df
    _check_shots(task, benchmark, len(pool))
    _check_documents(task, benchmark, task.task_docs)
    _check_documents(task, benchmark, pool if benchmark.shots else ())
    task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    return task


def _not_had(benchmark: Benchmark, error: Exception) -> OSError:
    return OSError(
        f"{benchmark.task} cannot be had from the hub ({_reason(error)}); give its records "
        "with --data FOLDER, in the formats of docs/evaluation.md"
    )


def _not_as_documented(benchmark: Benchmark, error: Exception) -> ValueError:
    return ValueError(
        f"{benchmark.task}: a record is not as docs/evaluation.md says: {_reason(error)}"
    )


def _reason(error: Exception) -> str:
    """Return what an error says, with its name where that alone may be a word or a number."""
    said = (str(error).splitlines() or [""])[0]
    plain = isinstance(error, (ValueError, OSError)) and said
    return said if plain else f"{type(error).__name__}: {said}"


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


def _check_shots(task: ConfigurableTask, benchmark: Benchmark, there: int) -> None:
    """Raise ValueError for too few examples; among those of its own split a question is none."""
    least = benchmark.shots + (task.fewshot_cfg.split == task.config.test_split)
    require(
        there >= least,
        f"{benchmark.task}: {there} examples to choose from are too few for {benchmark.shots} "
        f"before each question; give at least {least}",
    )


def _check_documents(task: ConfigurableTask, benchmark: Benchmark, documents: Iterable) -> None:
    """Raise ValueError unless each document has a text and an answer."""
    for i, document in enumerate(documents):
        try:
            _check_document(task, i, document)
        except NO_RECORD as error:
            raise _not_as_documented(benchmark, error) from error


def _check_document(task: ConfigurableTask, i: int, document: dict[str, Any]) -> None:
    text, target = task.doc_to_text(document), task.doc_to_target(document)
    if task.OUTPUT_TYPE != "multiple_choice":
        require(bool(target), f"question {i} has no answer")
        return
    answer = text if task.multiple_input else target  # the options of WinoGrande are beginnings
    options = len(task.doc_to_choice(document))
    require(
        isinstance(answer, int) and 0 <= answer < options,
        f"the answer of record {i} is {answer!r}; it must be the number of one of {options} "
        "options, the first being 0",
    )


def _check_longest(task: ConfigurableTask, benchmark: Benchmark, longest: int | None) -> None:
    """Raise ValueError where no token of a prompt would be left beside a generated answer."""
    if longest is None or task.OUTPUT_TYPE != "generate_until":
        return
    tokens = (task.config.generation_kwargs or {}).get("max_gen_toks", MOST_TOKENS)
    require(
        tokens < longest,
        f"--longest {longest} is too little for {benchmark.task}, whose answers have up to "
        f"{tokens} tokens; give at least {tokens + 1}",
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
            data_sha256=sha256_of([*task.task_docs, *task.sampler.df]),
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
