"""One trial, one Record, one Parquet row: what its columns are and since when.

What was not measured is null, never zero. A failure is an outcome, not an absence. Records are
written and read by `sweeps/trial/records.py`.
"""

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from sweeps.trial.columns import Change, column, columns_of
from sweeps.trial.file_names import require_folder_name, require_name, require_plain_name
from sweeps.trial.train import Step


class Outcome(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    DIVERGED = "diverged"  # a training loss that is not finite
    PRUNED = "pruned"  # stopped on purpose; `error` holds the reason
    REFUSED = "refused"  # over a budget by arithmetic; nothing was built
    OUT_OF_MEMORY = "out_of_memory"  # of the GPU, the machine, or over the limit it was given
    TIMED_OUT = "timed_out"
    FAILED = "failed"  # an exception, in `error`
    CRASHED = "crashed"  # the process died; `error` names the signal or exit code

    @property
    def settled(self) -> bool:
        """Whether running the same trial again could not end otherwise."""
        return self in (Outcome.COMPLETE, Outcome.DIVERGED, Outcome.PRUNED, Outcome.REFUSED)


class MachineError(OSError):
    """This machine lacks what a trial needs: its text, a package, room on a disk, the device.

    It is no outcome of the trial. No record is written, and the trial waits for the next worker.
    """


class RecordNotWritten(MachineError):
    """A record could not be written, for want of space say; nothing is left of it on the disk."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Which part of which sweep a trial is; the defaults are those of a single run.

    Raises ValueError for a name that no file name can hold.
    """

    sweep: str = "single"
    scale: str = "none"
    arm: str = "none"
    matched: str | None = None  # what is equal across the arms, and by which dimension
    attempt: int = 0
    trial_params: str | None = None  # what a sampler chose, as JSON

    def __post_init__(self):
        require_folder_name("Label: sweep", self.sweep)
        require_plain_name("Label: scale", self.scale)
        require_name("Label: arm", self.arm)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one trial. docs/results.md lists the columns from here."""

    run_id: str = column(
        "sweep, scale, arm, seed and a hash of spec, recipe and content of the text"
    )
    attempt: int = column("0, or how often the same trial had failed before")
    sweep: str = column("name of the sweep that asked for the trial")
    scale: str = column("named size of the sweep, such as smoke, cpu or gpu")
    arm: str = column("what the sweep varied, such as the ratio 1:7")
    matched: str | None = column(
        "what the sweep made equal across its arms, and by which dimension", optional=True
    )
    branch_of: str | None = column(
        "run_id of the run that this decay branch left; null where it is no branch", optional=True
    )
    trial_params: str | None = column(
        "what a sampler chose, as JSON: parameters and their distributions", optional=True
    )
    seed: int = column("of the initial weights and of the order of the data")
    outcome: Outcome = column(", ".join(Outcome))
    error: str | None = column(
        "why the outcome is not complete, then the last lines of the run's log.txt", optional=True
    )
    ratio: str = column("attention to Mamba layers, in lowest terms")
    spec: str = column("the ModelSpec as JSON; hybrid.codec.loads reads it")
    recipe: str = column("the Recipe as JSON; hybrid.codec.loads reads it")
    params: int = column("all parameters, by arithmetic", "parameters")
    active_params: int = column("parameters that one token uses, by arithmetic", "parameters")

    started_utc: str = column("when the trial started, ISO 8601")
    wall_s: float = column(
        "from start to record, set-up and measurements included; of the last process alone where "
        "the run was continued",
        "s",
    )
    resumed_steps: list[int] | None = column(
        "steps (from 0) at which it was continued from a checkpoint; empty if it never was",
        "steps",
        optional=True,
    )
    git_commit: str | None = column("of the code; null outside a checkout", optional=True)
    git_dirty: bool | None = column("whether the checkout had other changes", optional=True)
    versions: dict[str, str] = column("of Python and the packages that compute")
    device: str = column("cpu or cuda")
    machine: str = column("model name of the processor or GPU")
    threads: int = column("of torch on the CPU", "threads")
    ops: str | None = column("implementation that really ran", optional=True)
    compiled: str | None = column("by torch.compile: off, on or graphs", optional=True)
    parallel: str | None = column(
        "what its processes shared: none, ddp or fsdp (then speeds are of one process alone, the "
        "training's of all, and memory is the first one's)",
        optional=True,
    )
    world_size: int | None = column("of the training", "processes", optional=True)
    precision: str | None = column("of matrix products: fp32 or bf16", optional=True)
    tokenizer_sha256: str | None = column("of the tokenizer that made the tokens", optional=True)
    text_sha256: str | None = column("of the normalised text and its split", optional=True)

    train_tokens: int | None = column("trained on", "tokens", optional=True)
    train_nats_per_token: float | None = column(
        "mean training loss of the last tenth of the steps, of scored tokens",
        "nats/token",
        optional=True,
    )
    grad_norm_max: float | None = column(
        "largest gradient norm of a step after the first tenth, before clipping", optional=True
    )
    train_tokens_per_s: float | None = column(
        "median over steps after the first tenth, those before an interruption included; "
        "evaluation excluded",
        "tokens/s",
        optional=True,
    )
    valid_bits_per_byte: dict[str, float] | None = column(
        "held-out loss of each domain", "bits/byte", optional=True
    )
    test_bits_per_byte: dict[str, float] | None = column(
        "the same of text that nothing is chosen by; only where the recipe asks for it",
        "bits/byte",
        optional=True,
    )
    context_early_bits_per_byte: dict[str, float] | None = column(
        "where the recipe asks for it: loss of each domain at positions 8 to 15 (from 0) of the "
        "windows; of the test split where the recipe asks for that, else of the valid split, as "
        "are the next three",
        "bits/byte",
        optional=True,
    )
    context_late_bits_per_byte: dict[str, float] | None = column(
        "the same in the last quarter of the windows", "bits/byte", optional=True
    )
    context_unshuffled_bits_per_byte: dict[str, float] | None = column(
        "the same at the last position alone", "bits/byte", optional=True
    )
    context_shuffled_bits_per_byte: dict[str, float] | None = column(
        "the same at the last position, of windows in which all but the last 8 tokens read are in "
        "random order",
        "bits/byte",
        optional=True,
    )
    bits_per_byte_unigram: dict[str, float] | None = column(
        "of a unigram table counted on all training text of the source, on the held-out tokens "
        "that valid_bits_per_byte is taken on",
        "bits/byte",
        optional=True,
    )
    bits_per_byte_bigram: dict[str, float] | None = column(
        "the same of a bigram table", "bits/byte", optional=True
    )
    bits_per_byte_bigram_domain: dict[str, float] | None = column(
        "the same of bigram tables, one a domain, counted on that domain's training text alone",
        "bits/byte",
        optional=True,
    )
    bits_per_byte_bigram_windows: dict[str, float] | None = column(
        "the same of a bigram table counted on exactly the windows that this run trains on, all "
        "steps of its recipe",
        "bits/byte",
        optional=True,
    )
    test_bits_per_byte_unigram: dict[str, float] | None = column(
        "as bits_per_byte_unigram, on the held-out tokens that test_bits_per_byte is taken on",
        "bits/byte",
        optional=True,
    )
    test_bits_per_byte_bigram: dict[str, float] | None = column(
        "as bits_per_byte_bigram, on those tokens", "bits/byte", optional=True
    )
    test_bits_per_byte_bigram_domain: dict[str, float] | None = column(
        "as bits_per_byte_bigram_domain, on those tokens", "bits/byte", optional=True
    )
    test_bits_per_byte_bigram_windows: dict[str, float] | None = column(
        "as bits_per_byte_bigram_windows, on those tokens", "bits/byte", optional=True
    )
    length_bits_per_byte: dict[int, float] | None = column(
        "held-out loss, mean over domains, in windows of other lengths than the training's; of the "
        "test split where the recipe asks for it, else of the valid split",
        "bits/byte",
        optional=True,
    )
    activation_max: dict[str, float] | None = column(
        "largest absolute value over held-out tokens: over all layers, `output`, which is what a "
        "mixer or feed-forward adds to the residual stream; over Mamba-1 layers, dt before its "
        "bias and softplus, b, c, and the scan's gated output",
        optional=True,
    )
    task_accuracy: dict[str, float] | None = column(
        "where tasks were trained on, not text: right answers of held-out draws, by length and "
        "task; for few-shot tasks `free`, `forced` (among the legal labels), and `legal mass`, "
        "which is their probability",
        "share",
        optional=True,
    )
    test_task_accuracy: dict[str, float] | None = column(
        "the same of draws that nothing is chosen by; only where the recipe asks for it",
        "share",
        optional=True,
    )
    task_floor: dict[str, float] | None = column(
        "by the keys of task_accuracy: what guessing among the values that are present in the "
        "sequence scores, on validation draws",
        "share",
        optional=True,
    )
    tokens_to_accuracy: dict[float, int] | None = column(
        "where the recipe has a criterion: tokens trained on until the first of two evaluations in "
        "a row at or above the accuracy; an accuracy that was not reached has no key",
        "tokens",
        optional=True,
    )
    head_prefix_matching: dict[str, float] | None = column(
        "of each attention head, where the recipe asks for it: attention to the token after the "
        "present one's first coming, mean over the second half of random tokens that come twice",
        "share",
        optional=True,
    )
    head_copying: dict[str, float] | None = column(
        "of each attention head: how much it raises the logits of the tokens that it looks at, of "
        "how much it raises those of all tokens of the sequence; the sequences are the same",
        "share",
        optional=True,
    )
    heads_removed_accuracy: dict[str, float] | None = column(
        "right answers, mean over probes, with no head removed (`none`), without the quarter of "
        "heads that match prefixes best (`top`), and without as many others (`random`, mean over "
        "draws); of the test split where the recipe asks for it, else of the valid split",
        "share",
        optional=True,
    )
    induction_heads_removed_accuracy: dict[str, float] | None = column(
        "right answers as in heads_removed_accuracy, with no head removed (`none`), without all "
        "heads whose prefix matching is above 0.25 (`above`), and without as many others "
        "(`others`, mean over draws; missing where fewer others exist); null where no head or "
        "every head is above",
        "share",
        optional=True,
    )
    expert_load: list[list[float]] | None = column(
        "for each router, choices of each expert per held-out token", "choices/token", optional=True
    )
    baseline_bytes: int | None = column(
        "memory held before the model was built", "bytes", optional=True
    )
    train_peak_bytes: int | None = column(
        "peak while training: CUDA's allocator, or the process's resident set on the CPU",
        "bytes",
        optional=True,
    )
    train_bytes_estimate: int | None = column(
        "the same by arithmetic, without the baseline", "bytes", optional=True
    )
    prefill_tokens_per_s: dict[int, float] | None = column(
        "reading a prompt at batch 1, by its length", "tokens/s", optional=True
    )
    decode_ms: dict[int, float] | None = column(
        "one token at batch 1, by the length before it", "ms", optional=True
    )
    cache_bytes: dict[int, int] | None = column(
        "held by the cache at batch 1, by tokens read", "bytes", optional=True
    )
    int8_bits_per_byte: dict[str, float] | None = column(
        "held-out loss of each domain with the experts' weights in 8 bits, only where the recipe "
        "asks for it: of the test split where the recipe asks for that, else of the valid split",
        "bits/byte",
        optional=True,
    )
    int8_decode_ms: dict[int, float] | None = column(
        "the same as decode_ms with the experts' weights in 8 bits", "ms", optional=True
    )
    expert_bytes: int | None = column(
        "held by the weights of the experts, where they are measured in 8 bits too",
        "bytes",
        optional=True,
    )
    int8_expert_bytes: int | None = column(
        "the same in 8 bits, scales included", "bytes", optional=True
    )

    def __post_init__(self):
        complete = self.outcome is Outcome.COMPLETE
        measured = [x for x in (self.valid_bits_per_byte, self.task_accuracy) if x is not None]
        if len(measured) != complete:
            raise ValueError(
                "a trial has one of valid_bits_per_byte and task_accuracy exactly when it is "
                f"complete; got outcome={self.outcome}, "
                f"valid_bits_per_byte={self.valid_bits_per_byte}, "
                f"task_accuracy={self.task_accuracy}"
            )


# How the columns came to be. A renamed column has to be entered, or older files lose it; an added
# one is read without.
CHANGES = (
    Change(version=1, commit="588f66d"),
    Change(version=2, commit="8f88edd", added=("matched",)),
    Change(version=3, commit="c6350ee", added=("compiled",)),
    Change(version=4, commit="39553dd", added=("trial_params", "resumed_steps")),
    Change(version=5, commit="c57849c", added=("parallel", "world_size")),
    Change(version=6, commit="0c224ad", added=("test_bits_per_byte",)),
    Change(
        version=7,
        commit="93d5f07",
        added=("length_bits_per_byte", "activation_max", "grad_norm_max"),
    ),
    Change(version=8, commit="bbfbb1d", added=("task_accuracy", "test_task_accuracy")),
    Change(
        version=9,
        commit="3085fde",
        added=("head_prefix_matching", "head_copying", "heads_removed_accuracy"),
    ),
    Change(
        version=10,
        commit="5c3d33f",
        added=("int8_bits_per_byte", "int8_decode_ms", "expert_bytes", "int8_expert_bytes"),
    ),
    Change(
        version=11,
        commit="093166e",
        added=(
            "branch_of",
            "context_early_bits_per_byte",
            "context_late_bits_per_byte",
            "context_unshuffled_bits_per_byte",
            "context_shuffled_bits_per_byte",
        ),
    ),
    Change(
        version=12,
        commit="a030155",
        added=(
            "bits_per_byte_unigram",
            "bits_per_byte_bigram",
            "bits_per_byte_bigram_domain",
            "bits_per_byte_bigram_windows",
            "test_bits_per_byte_unigram",
            "test_bits_per_byte_bigram",
            "test_bits_per_byte_bigram_domain",
            "test_bits_per_byte_bigram_windows",
        ),
    ),
    Change(
        version=13,
        commit="de8f387",
        added=("task_floor", "tokens_to_accuracy", "induction_heads_removed_accuracy"),
    ),
)
KEY = (("run_id", pa.string()), ("attempt", pa.int64()))  # of a step, before its own columns
COLUMNS = columns_of(Record, CHANGES)
CURVE_COLUMNS = columns_of(Step, CHANGES[:1], KEY)
SCHEMA, CURVE_SCHEMA = COLUMNS.schema, CURVE_COLUMNS.schema
