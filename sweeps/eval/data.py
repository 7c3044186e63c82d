"""A folder with the records of benchmarks, for a machine that reaches no hub.

    data/hellaswag/train.jsonl             FOLDER/TASK/SPLIT.SUFFIX, shots from train
    data/hellaswag/validation.jsonl
    data/piqa/validation-00000-of-00001.parquet
    data/boolq/validation/data-0.arrow     or a folder with files for a split

docs/evaluation.md lists the fields of a record of each task.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hybrid.console import described
from hybrid.spec import require
from sweeps.eval.suite import Benchmark

Record = dict[str, Any]
TRAIN = "train"
SPLITS = (TRAIN, "validation", "test")
# What `datasets` saves beside records.
NOT_RECORDS = ("dataset_dict.json", "dataset_info.json", "state.json", "cache-*.arrow")


def _jsonl(path: Path) -> list[Record]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_of_line(i, line) for i, line in enumerate(lines, start=1) if line.strip()]


def _of_line(number: int, line: str) -> Record:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {number} is not JSON: {error.msg} at column {error.colno}"
        ) from error
    except (ValueError, RecursionError) as error:  # too long a number, too deep a list
        raise ValueError(f"line {number}: {error}") from error


def _json(path: Path) -> list[Record]:
    found = json.loads(path.read_text(encoding="utf-8"))
    require(isinstance(found, list), f"it must be a list of records, not {type(found).__name__}")
    return found


def _parquet(path: Path) -> list[Record]:
    return pq.read_table(path).to_pylist()


def _arrow(path: Path) -> list[Record]:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all().to_pylist()


READERS: dict[str, Callable[[Path], list[Record]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
}


@dataclass(frozen=True, kw_only=True)
class Local:
    """The records of one benchmark that were found in a folder."""

    benchmark: Benchmark
    splits: dict[str, list[Record]]

    @property
    def evaluated(self) -> str:
        """The split that is evaluated: the usual one, else what there is besides train."""
        usual = self.benchmark.evaluated
        return next(x for x in (usual, "validation", "test", TRAIN) if x in self.splits)

    @property
    def shots_from(self) -> str:
        """The split that examples come from; the evaluated one where there is nothing else."""
        return TRAIN if TRAIN in self.splits else self.evaluated


def read(folder: Path, benchmarks: tuple[Benchmark, ...]) -> list[Local]:
    """Return the records of each benchmark; raises FileNotFoundError unless all have some."""
    files = {x.task: list(_files(folder / x.task)) for x in benchmarks}
    missing = [x for x in benchmarks if not files[x.task]]
    if missing:
        there = [x.task for x in benchmarks if files[x.task]]
        pick = f"; `--tasks {' --tasks '.join(there)}` runs what is there" if there else ""
        raise FileNotFoundError(
            f"{folder} has no records of {', '.join(x.task for x in missing)}: put them into "
            f"{folder / missing[0].task / missing[0].evaluated}.jsonl and so on, in the formats of "
            f"docs/evaluation.md{pick}"
        )
    return [_local(x, files[x.task]) for x in benchmarks]


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (split, file) for each file of a task."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in READERS and not any(map(path.match, NOT_RECORDS)):
            name = path.relative_to(folder).parts[0].partition(".")[0].partition("-")[0]
            require(name in SPLITS, f"{path}: its split {name!r} must be one of {SPLITS}")
            yield name, path


def _local(benchmark: Benchmark, files: list[tuple[str, Path]]) -> Local:
    splits: dict[str, list[Record]] = {}
    for split, path in files:
        splits.setdefault(split, []).extend(_records(benchmark, path))
    return Local(benchmark=benchmark, splits=splits)


def _records(benchmark: Benchmark, path: Path) -> list[Record]:
    try:
        found = READERS[path.suffix](path)
        records = [_as_published(benchmark, i, record) for i, record in enumerate(found)]
    except Exception as error:  # pyarrow has many classes for damage
        said = str(error) if isinstance(error, ValueError) else described(error)
        raise ValueError(f"{path} cannot be read: {said}") from error
    for i, record in enumerate(records):
        for field in benchmark.fields:
            require(
                field in record, f"{path}: record {i} has no {field!r}; it has {sorted(record)}"
            )
    require(bool(records), f"{path} has no records")
    return records


def _as_published(benchmark: Benchmark, i: int, record: Any) -> Record:
    """Return a record, one of BoolQ with the number that SuperGLUE has for its answer."""
    if not isinstance(record, dict):
        raise ValueError(f"record {i} must be an object with fields, not {record!r}")
    if benchmark.task == "boolq" and isinstance(record.get("answer"), bool):
        return {**record, "label": int(record["answer"])}
    return record
