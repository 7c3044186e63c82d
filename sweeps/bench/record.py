"""Row: one contender in one phase, as one row of Parquet; one file is one run of the command.

    results/local/bench/20260101T120000-1a2b3c4d-5e6f7a8b.parquet           time, commit, digits
    results/local/bench/profile-20260101T120000-1a2b3c4d-5e6f7a8b.parquet   sweeps/bench/profile.py
    results/local/bench/limits-20260101T120000-1a2b3c4d-5e6f7a8b.parquet    sweeps/bench/limits.py

Files are written by sweeps/trial/parquet.py. What was not measured is null. A contender that is
absent, fails or differs has a row that says so. The columns of a file say of which kind its rows
are, not its name.
"""

import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hybrid import codec, cost
from hybrid.console import reading
from sweeps.bench.setting import Phase, Setting
from sweeps.trial import provenance
from sweeps.trial.columns import column, schema_of
from sweeps.trial.device import machine_name
from sweeps.trial.parquet import write_new

FOLDER = "bench"  # under results/local and results/published
PEER_PACKAGES = ("transformers", "mambapy")


class Status(StrEnum):
    """What became of a contender in a phase."""

    TIMED = "timed"
    DIFFERS = "differs"  # it does not compute what the baseline does
    FAILS = "fails"  # an exception, in `notes`
    ABSENT = "absent"  # not installed; `notes` say how to
    OUT_OF_MEMORY = "out of memory"  # of `python -m sweeps limits`


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a row comes from."""

    run_id: str = column("name of the file")
    started_utc: str = column("ISO 8601")
    command: str = column("that was typed")
    git_commit: str | None = column("of the code; null outside a checkout", optional=True)
    git_dirty: bool | None = column("whether the checkout had other changes", optional=True)
    versions: dict[str, str] = column("of Python and the packages that compute")
    device: str = column("cpu or cuda")
    machine: str = column("model name of the processor or GPU")
    threads: int = column("of torch on the CPU", "threads")
    precision: str = column("of matrix products: fp32 or bf16")
    spec: str = column("the ModelSpec as JSON; hybrid.codec.loads reads it")
    params: int = column("all parameters, by arithmetic", "parameters")
    batch: int = column("sequences of a training step", "sequences")
    tokens: int = column("of a training sequence", "tokens")


@dataclass(frozen=True, kw_only=True)
class Row(Origin):
    """One contender in one phase."""

    contender: str = column("whose implementation")
    phase: Phase = column("train, prefill, decode, scan or scan-train")
    context: int | None = column("tokens read, or before decoding", "tokens", optional=True)
    status: Status = column("timed, differs, fails or absent")
    notes: list[str] = column("what a reader has to know")
    baseline: str = column("the contender that ratios are relative to")
    logits_difference: float | None = column(
        "from the baseline in fp32, largest / largest logit; of the scan, its output's",
        optional=True,
    )
    loss_difference: float | None = column(
        "of the training loss from the baseline's, in the run's precision", "nats", optional=True
    )
    rounds: int | None = column("turns in which it was timed", optional=True)
    calls: int | None = column("timed, all rounds together", optional=True)
    call_tokens: int | None = column("that one call brings forward", "tokens", optional=True)
    median_s: float | None = column("of a call", "s", optional=True)
    low_s: float | None = column("first quartile", "s", optional=True)
    high_s: float | None = column("third quartile", "s", optional=True)
    tokens_per_s: float | None = column("call_tokens / median_s", "tokens/s", optional=True)
    elements_per_s: float | None = column(
        "of the scan: (token, channel, state) triples", "elements/s", optional=True
    )
    ratio: float | None = column(
        "time / the baseline's of the same round, median over rounds", optional=True
    )
    ratio_low: float | None = column("first quartile over rounds", optional=True)
    ratio_high: float | None = column("third quartile over rounds", optional=True)
    peak_bytes: int | None = column(
        "growth over what the process held with the model ready: CUDA's allocator, or resident set",
        "bytes",
        optional=True,
    )
    flops_per_s: float | None = column("by hybrid.flops, whoever computes", "flop/s", optional=True)
    bytes_per_s: float | None = column(
        "that decoding has to read, by hybrid.roofline", "bytes/s", optional=True
    )
    fraction_of_gemm: float | None = column("flops_per_s / gemm_flops_per_s", optional=True)
    fraction_of_bandwidth: float | None = column("bytes_per_s / copy_bytes_per_s", optional=True)
    gemm_flops_per_s: float = column("of a large matrix product, same run", "flop/s")
    copy_bytes_per_s: float = column("of a large copy, read and written, same run", "bytes/s")
    exp_cached_per_s: float = column("torch.exp, fp32, within a cache, same run", "elements/s")
    exp_uncached_per_s: float = column("torch.exp, fp32, through memory, same run", "elements/s")


SCHEMA = schema_of(Row)
Kind = typing.TypeVar("Kind", bound=Origin)


def origin(setting: Setting, command: str, prefix: str = "") -> Origin:
    """Return where the rows of a run that begins now come from."""
    commit, dirty = provenance.git_commit()
    started = provenance.now_utc()
    stamp = started.partition("+")[0].replace("-", "").replace(":", "")
    return Origin(
        run_id=f"{prefix}{stamp}-{(commit or 'nocommit')[:8]}-{uuid4().hex[:8]}",
        started_utc=started,
        command=command,
        git_commit=commit,
        git_dirty=dirty,
        versions=provenance.versions(provenance.PACKAGES + PEER_PACKAGES),
        device=setting.device.type,
        machine=machine_name(setting.device),
        threads=torch.get_num_threads(),
        precision=str(setting.precision),
        spec=codec.dumps(setting.spec),
        params=cost.params(setting.spec),
        batch=setting.batch,
        tokens=setting.tokens,
    )


def write(rows: Sequence[Origin], folder: Path) -> Path:
    """Write the rows of one run, all of one class, and return the file; FileExistsError if there.

    `folder` is that of all results, such as results/local.
    """
    if not rows:
        raise ValueError(f"write: no rows for {folder}; a run gives at least one")
    path = folder / FOLDER / f"{rows[0].run_id}.parquet"
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema_of(type(rows[0])))
    write_new(table, path, replace=False)
    return path


def read(path: Path, kind: type[Origin]) -> pd.DataFrame:
    """Return one run, one row as one line; ValueError if the file is not one of `kind`."""
    with reading(path):
        return pq.read_table(path, schema=schema_of(kind)).to_pandas()


def kind_of(path: Path, kinds: Sequence[type[Origin]]) -> type[Origin]:
    """Return the class whose columns a file has; ValueError, naming the file, for none of them."""
    try:
        columns = set(pq.read_schema(path).names)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no file of records: {error}") from None
    found = [kind for kind in kinds if columns >= set(schema_of(kind).names)]
    if len(found) != 1:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{path} has the columns of none of {names}")
    return found[0]


def as_frame(rows: Sequence[Origin]) -> pd.DataFrame:
    """Return rows that are not written yet as `read` would."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema_of(type(rows[0])))
    return table.to_pandas()
