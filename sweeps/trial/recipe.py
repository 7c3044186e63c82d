"""How a model is trained and measured: everything that is not the model itself. Plain data.

A Recipe and a ModelSpec decide a run; both are written into its record as JSON.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from hybrid.spec import LARGEST, added, require, require_positive
from sweeps.trial.data.sources import PackagedText, Source, Synthetic

CONTEXT_LEAST_TOKENS = 32  # in a window, for early and late positions to be apart


class Precision(StrEnum):
    """Of matrix products; weights, norms, the scan and the optimiser are always fp32.

    AUTO takes BF16 where the device multiplies it in hardware, else FP32; a record names the one
    that ran.
    """

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class OptimizerName(StrEnum):
    """Which optimiser moves the matrices inside layers; AdamW moves everything else.

    MUON: torch.optim.Muon with adjust_lr_fn="match_rms_adamw" (arXiv 2502.16982): an update has the
    root mean square of AdamW's, 0.2 times the rate, so that one `lr` and one `weight_decay` hold
    for both.
    """

    ADAMW = "adamw"
    MUON = "muon"


@dataclass(frozen=True, kw_only=True)
class WSD:
    """Warm-up, a stable rate, and a linear decay to zero (arXiv 2404.06395, 2405.18392).

    A `decay_fraction` of 0 leaves the decay out: the rate then does not depend on the length.

    A branch ends at a step of `branches`, counted from the start of the run. It leaves the run
    where a run of that length would begin its decay, and equals that run. The run goes on from the
    same place as if there were no branch.
    """

    warmup_steps: int  # absolute, so that runs of any length begin alike
    decay_fraction: float = 0.2  # of the steps, at the end
    branches: tuple[int, ...] = ()

    def __post_init__(self):
        require(
            type(self.warmup_steps) is int and self.warmup_steps >= 0,
            f"WSD: warmup_steps={self.warmup_steps!r} must be a whole number of 0 or more",
        )
        require(
            0 <= self.decay_fraction <= 1,
            f"WSD: decay_fraction={self.decay_fraction!r} must lie in 0..1; 0 is no decay",
        )
        require(
            type(self.branches) is tuple and all(type(end) is int for end in self.branches),
            f"WSD: branches={self.branches!r} must be a tuple of whole numbers of steps",
        )
        require(
            list(self.branches) == sorted(set(self.branches)),
            f"WSD: branches={self.branches!r} must increase from one to the next",
        )
        require(
            self.decay_fraction > 0 or not self.branches,
            f"WSD: branches={self.branches!r} are decays, and decay_fraction=0 leaves them out",
        )

    def decay_start(self, steps: int) -> int:
        """Return the first step (from 0) of the decay of a run of that many steps."""
        if self.decay_fraction == 0:
            return steps
        return steps - max(1, round(self.decay_fraction * steps))

    def check(self, steps: int) -> None:
        """Raise ValueError unless a run of that many steps has room for all of this."""
        for end in self.branches:
            start = self.decay_start(end)
            least = max(1, self.warmup_steps)
            require(
                0 < end < steps and start >= least,
                f"WSD: the branch {end} would begin at step {start}; it must begin at step {least} "
                f"or later, after the warm-up, and end before steps={steps}",
            )
        require(
            self.decay_start(steps) >= self.warmup_steps,
            f"WSD: warmup_steps={self.warmup_steps} must end before the decay begins, at step "
            f"{self.decay_start(steps)} of {steps}",
        )


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """When a run on tasks has learned them, and ends before the `steps` of its recipe.

    Accuracy is measured each time `every` steps are done, on `valid_tokens` of validation draws of
    each probe. The run ends when it was at `accuracy` or above twice in a row.
    """

    accuracy: float = 0.99
    every: int
    keys: tuple[str, ...] = ()  # of task_accuracy, whose mean it is; (): all of them

    def __post_init__(self):
        require_positive("Criterion", every=self.every)
        require(
            0 < self.accuracy <= 1,
            f"Criterion: accuracy={self.accuracy!r} must be above 0 and at most 1",
        )
        require(
            type(self.keys) is tuple and len(set(self.keys)) == len(self.keys),
            f"Criterion: keys={self.keys!r} must be a tuple of different keys of task_accuracy",
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights move, on windows of text that (seed, step) decide."""

    source: Source = PackagedText()
    steps: int
    batch: int  # sequences a step
    tokens: int  # a sequence
    lr: float  # the highest
    warmup: float = 0.1  # fraction of the steps; of the cosine alone, as is the next
    final_lr: float = 0.1  # fraction of the highest, reached at the last step
    schedule: WSD | None = added(None)  # None: a linear warm-up, then a cosine
    criterion: Criterion | None = added(None)  # ends a run before `steps`; tasks alone
    optimizer: OptimizerName = added(OptimizerName.ADAMW)
    lr_base_width: int | None = added(None)  # width that `lr` is meant for; None: every width
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # on matrices; never on norms, A, D and biases
    clip_norm: float = 1.0
    balance: float = 0.001  # weight of the load-balancing loss; Jamba's released configuration
    activation: float = 0.0  # weight of the activation loss (sweeps/trial/outputs.py); 0: none
    precision: Precision = Precision.AUTO
    seed: int = 0  # of the initial weights and of the order of the data
    valid_tokens: int = 65_536  # at most, for each domain
    contexts: tuple[int, ...] = (1024,)  # tokens read before prefill and decode are timed
    lengths: tuple[int, ...] = ()  # of windows in which held-out loss is taken besides `tokens`
    test_tokens: int | None = added(0)  # the same of test text; 0: as valid_tokens, None: all of it
    measure_test: bool = False  # the test split too, at the end: for what nothing more is chosen by
    measure_int8: bool = False  # the trained model again, with its experts in 8 bits; text alone
    measure_heads: bool = False  # what each attention head does, and what its removal costs
    measure_context: bool = added(False)  # whether the loss falls with context; text alone

    def __post_init__(self):
        require_positive(
            "Recipe",
            steps=self.steps,
            batch=self.batch,
            tokens=self.tokens,
            valid_tokens=self.valid_tokens,
        )
        for name in ("contexts", "lengths"):
            for number in getattr(self, name):
                require_positive("Recipe", **{name: number})
        trained = self.steps * self.batch * self.tokens
        require(
            trained <= LARGEST,
            f"Recipe: steps={self.steps} x batch={self.batch} x tokens={self.tokens} are {trained} "
            f"tokens; a record can hold {LARGEST}",
        )
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            require(0 < value < inf, f"Recipe: {name}={value!r} must be above 0 and finite")
        for name in ("warmup", "final_lr", "weight_decay", "balance", "activation"):
            value = getattr(self, name)
            require(0 <= value < inf, f"Recipe: {name}={value!r} must be 0 or more and finite")
        require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"Recipe: betas={self.betas!r} must be two numbers from 0 to below 1",
        )
        for name in ("warmup", "final_lr"):
            value = getattr(self, name)
            require(value <= 1, f"Recipe: {name}={value!r} must lie in 0..1")
        require(
            type(self.seed) is int and 0 <= self.seed <= LARGEST,
            f"Recipe: seed={self.seed!r} must be a whole number of 0 or more, at most {LARGEST}",
        )
        for name in ("measure_test", "measure_int8", "measure_heads", "measure_context"):
            value = getattr(self, name)
            require(type(value) is bool, f"Recipe: {name}={value!r} must be True or False")
        require(
            isinstance(self.precision, Precision),
            f"Recipe: precision={self.precision!r} must be one of {', '.join(map(str, Precision))}",
        )
        require(
            not (self.lengths and isinstance(self.source, Synthetic)),
            f"Recipe: lengths={self.lengths!r} are for text; the probes of tasks have their own",
        )
        require(
            not (self.measure_int8 and isinstance(self.source, Synthetic)),
            "Recipe: measure_int8=True is for text; of tasks nothing is measured in 8 bits",
        )
        require(
            isinstance(self.source, Synthetic) or not self.measure_heads,
            f"Recipe: measure_heads={self.measure_heads!r} is for tasks: what the removal of heads "
            "costs is counted in right answers",
        )
        require(
            isinstance(self.optimizer, OptimizerName),
            f"Recipe: optimizer={self.optimizer!r} must be one of "
            f"{', '.join(map(str, OptimizerName))}",
        )
        require(
            self.test_tokens is None or (type(self.test_tokens) is int and self.test_tokens >= 0),
            f"Recipe: test_tokens={self.test_tokens!r} must be a whole number of 0 or more or None",
        )
        require_positive("Recipe", lr_base_width=self.lr_base_width)
        self._check_schedule()
        self._check_text_alone()
        self._check_tasks_alone()
        require(
            self.lr_base_width is None or self.optimizer is OptimizerName.ADAMW,
            f"Recipe: lr_base_width={self.lr_base_width!r} is for optimizer=adamw: how the rate of "
            f"{self.optimizer} transfers over width is not tested here",
        )

    def _check_schedule(self) -> None:
        if self.schedule is None:
            return
        require(
            isinstance(self.schedule, WSD),
            f"Recipe: schedule={self.schedule!r} must be a WSD, or None for the cosine",
        )
        for name in ("warmup", "final_lr"):
            value = getattr(self, name)
            require(
                value == getattr(type(self), name),
                f"Recipe: {name}={value!r} is of the cosine; leave it out with schedule=WSD(...)",
            )
        self.schedule.check(self.steps)

    def _check_tasks_alone(self) -> None:
        stages = self.source.curriculum if isinstance(self.source, Synthetic) else ()
        require(
            not stages or stages[-1].end < self.steps,
            f"Recipe: steps={self.steps} must be more than the steps of the curriculum, which ends "
            f"at {stages and stages[-1].end}",
        )
        if self.criterion is None:
            return
        require(
            isinstance(self.criterion, Criterion) and isinstance(self.source, Synthetic),
            f"Recipe: criterion={self.criterion!r} must be a Criterion, of a run on tasks; text "
            "has no accuracy",
        )
        require(
            self.schedule is not None and self.schedule.decay_fraction == 0,
            f"Recipe: criterion needs schedule=WSD(warmup_steps=..., decay_fraction=0), got "
            f"{self.schedule!r}: the rate must not depend on `steps`, which may not be reached",
        )
        require(
            2 * self.criterion.every <= self.steps,
            f"Recipe: criterion.every={self.criterion.every} must leave room for two evaluations "
            f"in steps={self.steps}",
        )

    def _check_text_alone(self) -> None:
        if isinstance(self.source, Synthetic):
            require(
                not self.measure_context and self.test_tokens == 0,
                "Recipe: measure_context and test_tokens are for text; the draws of tasks have no "
                f"end, got measure_context={self.measure_context!r}, "
                f"test_tokens={self.test_tokens!r}",
            )
        require(
            not self.measure_context or self.tokens >= CONTEXT_LEAST_TOKENS,
            f"Recipe: measure_context=True needs tokens of {CONTEXT_LEAST_TOKENS} or more, got "
            f"tokens={self.tokens}",
        )

    @property
    def branches(self) -> tuple[int, ...]:
        """Return the steps at which decay branches end."""
        return () if self.schedule is None else self.schedule.branches

    def branch(self, end: int) -> "Recipe":
        """Return the recipe of the run that the branch to step `end` equals."""
        assert self.schedule is not None
        return replace(self, steps=end, schedule=replace(self.schedule, branches=()))

    @property
    def last_tokens(self) -> int | None:
        """Return how many tokens of the test split are read, at most; None is all."""
        return self.valid_tokens if self.test_tokens == 0 else self.test_tokens
