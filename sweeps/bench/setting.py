"""What a benchmark measures: a model, sizes, a device, and how much patience there is."""

from dataclasses import dataclass
from enum import StrEnum

import torch

from hybrid.jamba import jamba
from hybrid.spec import Attention, ModelSpec, require, require_positive
from sweeps.trial.recipe import Precision


class Phase(StrEnum):
    """What is timed."""

    TRAIN = "train"  # a step: forward, loss, backward, clip, AdamW
    PREFILL = "prefill"  # a prompt read at batch 1
    DECODE = "decode"  # greedy tokens at batch 1, after a context
    SCAN = "scan"  # Mamba's scan alone, forward, in fp32; ours only
    SCAN_TRAIN = "scan-train"  # the same with its gradients, in the precision of the run


SCANS = (Phase.SCAN, Phase.SCAN_TRAIN)


BLOCK = 8  # layers, as in the paper
HEADS, KV_HEADS = 4, 2


def jamba_style(
    *, ratio: tuple[int, int], width: int, hidden: int, blocks: int, vocab: int
) -> ModelSpec:
    """Return the benchmark's model: dense Jamba blocks of eight layers."""
    return jamba(
        vocab=vocab,
        width=width,
        hidden=hidden,
        blocks=blocks,
        l=BLOCK,
        ratio=ratio,
        attention=Attention(heads=HEADS, kv_heads=KV_HEADS),
    )


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything that decides a benchmark but the contenders."""

    spec: ModelSpec
    device: torch.device
    precision: Precision  # of matrix products, not AUTO
    batch: int = 8  # sequences of a training step
    tokens: int = 256  # a training sequence
    contexts: tuple[int, ...] = (1024,)  # tokens read by prefill, and before decoding
    decode_tokens: int = 32  # a call
    rounds: int = 5
    round_s: float = 0.5  # calls are repeated within a round until they took so long
    budget_s: float = 60.0  # a contender with longer calls gets fewer rounds
    phases: tuple[Phase, ...] = tuple(Phase)
    seed: int = 0

    def __post_init__(self):
        require_positive(
            "Setting",
            batch=self.batch,
            tokens=self.tokens,
            decode_tokens=self.decode_tokens,
            rounds=self.rounds,
        )
        for context in self.contexts:
            require_positive("Setting", context=context)
        for name in ("round_s", "budget_s"):
            value = getattr(self, name)
            require(value > 0, f"Setting: {name}={value} must be above 0 seconds")
        require(len(self.phases) > 0, "Setting: phases=() must name at least one")
        require(
            self.precision is not Precision.AUTO,
            "Setting: precision must be fp32 or bf16; sweeps.trial.device.choose_precision chooses",
        )

    @property
    def dtype(self) -> torch.dtype:
        """Return what matrix products are computed in."""
        return {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}[self.precision]
