"""How a model is trained and measured: everything that is not the model itself. Plain data.

A Recipe and a ModelSpec decide a run; both are written into its record as JSON.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from hybrid.spec import LARGEST, require, require_positive
from sweeps.trial.data.sources import PackagedText, Source, Synthetic


class Precision(StrEnum):
    """Of matrix products; weights, norms, the scan and the optimiser are always fp32.

    AUTO takes BF16 where the device multiplies it in hardware, else FP32; a record names the one
    that ran.
    """

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW with linear warm-up and a cosine, on windows of text that (seed, step) decide."""

    source: Source = PackagedText()
    steps: int
    batch: int  # sequences a step
    tokens: int  # a sequence
    lr: float  # the highest
    warmup: float = 0.1  # fraction of the steps
    final_lr: float = 0.1  # fraction of the highest, reached at the last step
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
    measure_test: bool = False  # the test split too, at the end: for what nothing more is chosen by
    measure_int8: bool = False  # the trained model again, with its experts in 8 bits; text alone
    measure_heads: bool = False  # what each attention head does, and what its removal costs

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
        for name in ("measure_test", "measure_int8", "measure_heads"):
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
