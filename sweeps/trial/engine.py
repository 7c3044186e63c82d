"""What a trial runs on and through: device, implementation of the ops, compiled or not, processes.

None of it is meant to change a result beyond rounding; all of it changes speed. A record names what
really ran.
"""

from dataclasses import dataclass
from enum import StrEnum

from hybrid.spec import require


class Compile(StrEnum):
    """What torch's compiler does with a model.

    ON fuses what lies between kernels. GRAPHS also records CUDA graphs, for training and for
    decoding, which pays where a model is so small that launching its kernels takes longer than
    running them; on a CPU it is ON.
    """

    OFF = "off"
    ON = "on"
    GRAPHS = "graphs"

    @property
    def mode(self) -> str:
        """Return the `mode` of torch.compile."""
        return "reduce-overhead" if self is Compile.GRAPHS else "default"


class Parallel(StrEnum):
    """What the processes of one trial share; how many they are is for their launcher to say.

    DDP: each has the whole model and a part of every batch. FSDP: each also has only its part of
    the weights, their gradients and AdamW's state, for a model too large for one GPU.
    """

    NONE = "none"
    DDP = "ddp"
    FSDP = "fsdp"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How to run; "auto" is CUDA where there is one, and the best ops that are installed for it."""

    device: str = "auto"  # or cpu, cuda, cuda:N
    ops: str = "auto"  # or one of hybrid.ops.NAMES
    compile: Compile = Compile.OFF
    parallel: Parallel = Parallel.NONE

    def __post_init__(self) -> None:
        alone, plain = self.parallel is Parallel.NONE, self.compile is Compile.OFF
        require(
            alone or plain,
            f"Engine: compile={self.compile} must be off with parallel={self.parallel}: "
            "together they are untested",
        )
        require(
            alone or ":" not in self.device,
            f"Engine: device={self.device!r} must name no index with parallel={self.parallel}: "
            "each process takes the GPU of its own number",
        )
