"""Compiles the Triton kernels for a GPU that need not be there: a program of its own, no launches.

The interpreter runs Python, which allows what Triton's compiler does not. As a child process of
`tests/test_ops_triton.py`, not interpreted, this prints for each kernel the bytes of its code.
"""

import json
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hybrid.ops import triton_conv as conv_runner
from hybrid.ops import triton_conv_kernels as conv_kernels
from hybrid.ops import triton_kernels as kernels
from hybrid.ops import triton_scan as runner

TARGET = GPUTarget("cuda", 90, 32)
ACTIVATIONS = {
    f"{name}_ptr"
    for name in ("u", "raw", "gate", "gy", "b", "c", "y", "gu", "graw", "ggate", "x", "gx")
} | {"value_ptr", "key_ptr"}
# Triton compiles a number that is 1 into the kernel: once as if all were more, once for these 1.
ONES = ("B", "T", "N", "C", "G", "per_segment", "b_t", "c_t")
SINGLE = {"BLOCK_E": runner.SINGLE.channels, "num_warps": runner.SINGLE.warps}
CONV = {
    "W": 4,
    "BLOCK_T": conv_runner.TOKENS,
    "BLOCK_E": conv_runner.CHANNELS,
    "num_warps": conv_runner.WARPS,
}


def compiled(kernel: Any, activation: str, ones: tuple[str, ...], **constants: Any) -> int:
    """Return the bytes of machine code of one kernel."""
    options = {name: constants.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    constants |= {name: 1 for name in ones if name in kernel.arg_names}
    kinds = {
        name: "constexpr"
        if name in constants
        else f"*{activation if name in ACTIVATIONS else 'fp32'}"
        if name.endswith("_ptr")
        else "i32"
        for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, kinds, constexprs=places)
    return len(triton.compile(source, target=TARGET, options=options).asm["cubin"])


def sizes(activation: str, ones: tuple[str, ...]) -> dict[str, int]:
    """Return the machine code's bytes of every kernel, in every variant that is launched."""
    fused = {"enable_fp_fusion": True}
    forward, backward = runner._sizes(runner.FORWARD), runner._sizes(runner.BACKWARD)
    step = {"BLOCK_N": 16, **SINGLE, **fused}
    variants: list[tuple[Any, dict[str, Any]]] = [
        *((kernels.scan_forward, forward | {"SAVE": save}) for save in (False, True)),
        *((kernels.scan_segment, forward | {"BACKWARD": back}) for back in (False, True)),
        *((kernels.scan_carry, SINGLE | fused | {"BACKWARD": back}) for back in (False, True)),
        (kernels.scan_backward, backward),
        *((kernels.scan_step, step | {"HAS_H": has}) for has in (False, True)),
        *((conv_kernels.conv_forward, CONV | fused | {"HAS_TAIL": has}) for has in (False, True)),
        *(
            (conv_kernels.conv_backward, CONV | fused | {"HAS_TAIL": has, "HAS_GNEW": has})
            for has in (False, True)
        ),
    ]
    return {
        f"{kernel.__name__} {activation} {ones} {constants}": compiled(
            kernel, activation, ones, **constants
        )
        for kernel, constants in variants
    }


if __name__ == "__main__":
    print(json.dumps(sizes("bf16", ()) | sizes("fp32", ONES)))
