"""Which operator of torch belongs to which part of a training step. One table, first match wins.

Names are those of torch's profiler; backward operators and autograd's nodes carry the name of what
they differentiate. Operators by element cannot be told apart by who calls them: those of norms that
are not fused, of gates and of residual sums stand in a line of their own.
"""

import re

OTHER = "other"
OUTSIDE = "outside operators"  # Python, and what the profiler itself takes

PARTS = {
    "optimiser and clipping": r"^Optimizer|fused_adam|_foreach_|linalg_vector_norm|aten::clamp",
    "scan": r"scan",
    "convolution": r"conv",
    "attention": r"scaled_dot_product|attention|attend|aten::_?softmax",
    "loss": r"log_?softmax|nll_loss|cross_?entropy|loss",
    "matrix products": r"aten::(mm|bmm|addmm|baddbmm|matmul|linear|einsum|_scaled_mm)$|grouped_mm"
    r"|mkldnn_linear",
    "norms": r"norm_cpu|rms_?norm|layer_?norm|aten::(pow|mean|rsqrt)_?$",
    "activations": r"silu|swiglu|softplus|sigmoid|gelu|aten::exp_?$",
    "embedding": r"embedding",
    "copies and casts": r"aten::(copy_|_to_copy|to|clone|contiguous|cat|stack|fill_|zero_|zeros"
    r"|ones|zeros_like|ones_like|(index|gather|scatter|new|empty|resize)\w*)$",
    "sums and products by element": r"aten::(mul|add|sub|div|neg|sum|rsub)_?$",
}


def part_of(operator: str) -> str:
    """Return the part that an operator's name belongs to, or `OTHER`."""
    found = (part for part, name in PARTS.items() if re.search(name, operator, re.IGNORECASE))
    return next(found, OTHER)
