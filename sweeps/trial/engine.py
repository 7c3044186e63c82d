"""What a trial runs on and through: the device, the implementation of the ops, compiled or not.

None of it is meant to change a result beyond rounding; all of it changes speed. A record names what
really ran.
"""

from dataclasses import dataclass
from enum import StrEnum


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


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How to run; "auto" is CUDA where there is one, and the best ops that are installed for it."""

    device: str = "auto"  # or cpu, cuda, cuda:N
    ops: str = "auto"  # or one of hybrid.ops.NAMES
    compile: Compile = Compile.OFF
