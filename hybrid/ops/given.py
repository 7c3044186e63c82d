"""Checks the shapes, dtypes, devices and indices of an op's inputs before a kernel sees them.

One function for each op. Every implementation calls it first, the reference included, so that all
refuse the same calls. Each function raises TypeError for a dtype or device, ValueError for a shape
or size, and IndexError for an index. Values on a GPU are not read, because reading them waits for
the GPU: torch's own kernels check indices there. `dtypes` are those that the implementation takes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

IGNORED = -100  # a target without a loss, as in torch's own cross entropy
ACTIVATIONS = (torch.float32, torch.bfloat16)
INDICES = (torch.int64, torch.int32)
# The dtype in which an op computes, and in which its parameters and states are given.
WIDE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
FLOATS = tuple(WIDE)

Shaped = dict[str, tuple[Tensor, tuple[int, ...]]]
Dtypes = tuple[torch.dtype, ...]


def sizes(op: str, name: str, tensor: Tensor) -> torch.Size:
    """Return the shape of a tensor.

    Raises TypeError for what is no tensor, and ValueError unless there is an extent of at least 1
    for each letter of the name.
    """
    _require_tensor(op, name, tensor)
    letters = name.partition("_")[2]
    if tensor.dim() != len(letters) or 0 in tensor.shape:
        raise ValueError(
            f"{op}: {name} has shape {tuple(tensor.shape)}; "
            f"it needs {len(letters)} extents, each at least 1"
        )
    return tensor.shape


def check(op: str, activations: Shaped, others: Shaped, dtypes: Dtypes = ACTIVATIONS) -> bool:
    """Return whether a gradient may be asked for.

    Raises TypeError unless the first of `activations` has one of `dtypes`, the rest the same one,
    and `others` the WIDE one, all on one device. Raises ValueError unless each has the shape beside
    it.
    """
    first, (x, _) = next(iter(activations.items()))
    require_dtype(op, first, x, dtypes)
    asked = False
    for name, (tensor, wanted) in (activations | others).items():
        _require_tensor(op, name, tensor)
        dtype = x.dtype if name in activations else WIDE[x.dtype]
        if tensor.dtype is not dtype or tensor.device != x.device:
            raise TypeError(
                f"{op}: {name} is {tensor.dtype} on {tensor.device}; "
                f"beside {first} it must be {dtype} on {x.device}"
            )
        if tensor.shape != wanted:
            raise ValueError(
                f"{op}: {name} has shape {tuple(tensor.shape)}; "
                f"beside {first} it must be {tuple(wanted)}"
            )
        asked = asked or tensor.requires_grad
    return asked and torch.is_grad_enabled()


def require_dtype(op: str, name: str, x: Tensor, dtypes: Dtypes) -> None:
    """Raise TypeError unless `x` has one of these dtypes."""
    if x.dtype not in dtypes:
        raise TypeError(
            f"{op}: {name} is {x.dtype} on {x.device}; "
            f"this kernel takes {', '.join(map(str, dtypes))}"
        )


def attend(
    q_BTHP: Tensor, k_BSKP: Tensor, v_BSKP: Tensor, window: int | None, dtypes: Dtypes
) -> None:
    """Require queries of the last T of S tokens, and K heads of keys that share the H heads."""
    B, T, H, P = sizes("attend", "q_BTHP", q_BTHP)
    S, K = sizes("attend", "k_BSKP", k_BSKP)[1:3]
    keys = (B, S, K, P)
    activations: Shaped = {
        "q_BTHP": (q_BTHP, (B, T, H, P)),
        "k_BSKP": (k_BSKP, keys),
        "v_BSKP": (v_BSKP, keys),
    }
    check("attend", activations, {}, dtypes)
    if H % K:
        raise ValueError(f"attend: k_BSKP has {K} heads, which must divide the {H} of q_BTHP")
    if T > S:
        raise ValueError(f"attend: k_BSKP has {S} tokens; q_BTHP has {T}, which must be among them")
    if window is not None:
        at_least("attend", "window", window, 1)


def conv(
    x_BTE: Tensor, weight_EW: Tensor, bias_E: Tensor, tail_BLE: Tensor | None, dtypes: Dtypes
) -> bool:
    """Return whether a gradient may be asked for."""
    (B, T, E), W = sizes("conv", "x_BTE", x_BTE), sizes("conv", "weight_EW", weight_EW)[1]
    others: Shaped = {"weight_EW": (weight_EW, (E, W)), "bias_E": (bias_E, (E,))}
    if tail_BLE is not None:
        others["tail_BLE"] = (tail_BLE, (B, W - 1, E))
    return check("conv", {"x_BTE": (x_BTE, (B, T, E))}, others, dtypes)


def scan(
    u_BTE: Tensor,
    raw_BTE: Tensor,
    bias_E: Tensor,
    a_EN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    d_E: Tensor,
    gate_BTE: Tensor,
    h_BEN: Tensor | None,
    dtypes: Dtypes,
) -> bool:
    """Return whether a gradient may be asked for."""
    (B, T, E), N = sizes("scan", "u_BTE", u_BTE), sizes("scan", "a_EN", a_EN)[1]
    activations: Shaped = {
        "u_BTE": (u_BTE, (B, T, E)),
        "raw_BTE": (raw_BTE, (B, T, E)),
        "b_BTN": (b_BTN, (B, T, N)),
        "c_BTN": (c_BTN, (B, T, N)),
        "gate_BTE": (gate_BTE, (B, T, E)),
    }
    others: Shaped = {"bias_E": (bias_E, (E,)), "a_EN": (a_EN, (E, N)), "d_E": (d_E, (E,))}
    if h_BEN is not None:
        others["h_BEN"] = (h_BEN, (B, E, N))
    return check("scan", activations, others, dtypes)


def ssd(
    u_BTHP: Tensor,
    raw_BTH: Tensor,
    bias_H: Tensor,
    a_H: Tensor,
    b_BTGN: Tensor,
    c_BTGN: Tensor,
    d_H: Tensor,
    h_BHPN: Tensor | None,
    dtypes: Dtypes,
) -> bool:
    """Return whether a gradient may be asked for."""
    (B, T, H, P), (G, N) = sizes("ssd", "u_BTHP", u_BTHP), sizes("ssd", "b_BTGN", b_BTGN)[2:]
    activations: Shaped = {
        "u_BTHP": (u_BTHP, (B, T, H, P)),
        "raw_BTH": (raw_BTH, (B, T, H)),
        "b_BTGN": (b_BTGN, (B, T, G, N)),
        "c_BTGN": (c_BTGN, (B, T, G, N)),
    }
    others: Shaped = {"bias_H": (bias_H, (H,)), "a_H": (a_H, (H,)), "d_H": (d_H, (H,))}
    if h_BHPN is not None:
        others["h_BHPN"] = (h_BHPN, (B, H, P, N))
    asked = check("ssd", activations, others, dtypes)
    if H % G:
        raise ValueError(f"ssd: b_BTGN has {G} groups, which must divide the {H} heads of u_BTHP")
    return asked


def norm(x: Tensor, weight: Tensor, dtype: torch.dtype, dtypes: Dtypes, op: str = "norm") -> None:
    """Require a weight as wide as x; `dtype` is that of the result."""
    rows(op, "x", x, dtypes)
    if dtype not in dtypes:
        raise TypeError(f"{op}: dtype={dtype}; this kernel writes {', '.join(map(str, dtypes))}")
    _require_tensor(op, "weight", weight)
    if weight.dtype is not WIDE[x.dtype] or weight.device != x.device:
        raise TypeError(
            f"{op}: weight is {weight.dtype} on {weight.device}; "
            f"beside x it must be {WIDE[x.dtype]} on {x.device}"
        )
    if weight.shape != x.shape[-1:]:
        raise ValueError(
            f"{op}: weight has shape {tuple(weight.shape)}; "
            f"beside x, {x.shape[-1]} wide, it must be {tuple(x.shape[-1:])}"
        )


def norms(
    x: Tensor, weight: Tensor, sizes: Sequence[int], dtype: torch.dtype, dtypes: Dtypes
) -> None:
    """Require parts that make up the last extent of x, which is as wide as its weight."""
    norm(x, weight, dtype, dtypes, "norms")
    for size in sizes:
        at_least("norms", f"a size of sizes={tuple(sizes)}", size, 1)
    if sum(sizes) != x.shape[-1]:
        raise ValueError(
            f"norms: sizes={tuple(sizes)} make {sum(sizes)}; "
            f"x is {x.shape[-1]} wide, and its weight {len(weight)}"
        )


def silu_and_mul(gate_up: Tensor, dtypes: Dtypes) -> None:
    """Require a last extent of two halves."""
    rows("silu_and_mul", "gate_up", gate_up, dtypes)
    if gate_up.shape[-1] % 2:
        raise ValueError(
            f"silu_and_mul: gate_up is {gate_up.shape[-1]} wide; it must have two equal halves"
        )


def grouped(x_nD: Tensor, weight_XFD: Tensor, count_X: Tensor, dtypes: Dtypes) -> None:
    """Require a group for every row. A compiler cannot read counts, and takes them as they are."""
    (n, D), (X, F, _) = (
        sizes("grouped", "x_nD", x_nD),
        sizes("grouped", "weight_XFD", weight_XFD),
    )
    activations: Shaped = {"x_nD": (x_nD, (n, D)), "weight_XFD": (weight_XFD, (X, F, D))}
    check("grouped", activations, {}, dtypes)
    _require_indices("grouped", "count_X", count_X, INDICES, (X,), x_nD)
    if count_X.is_cpu and not torch.compiler.is_compiling():
        counts = count_X.tolist()
        if min(counts) < 0 or sum(counts) != n:
            raise ValueError(
                f"grouped: count_X={counts} must be 0 or more and add up to the {n} rows of x_nD"
            )


def cross_entropy(logits_nV: Tensor, target_n: Tensor, dtypes: Dtypes) -> None:
    """Require a target for each row, a column of the logits or IGNORED."""
    n, V = sizes("cross_entropy", "logits_nV", logits_nV)
    require_dtype("cross_entropy", "logits_nV", logits_nV, dtypes)
    targets("cross_entropy", target_n, n, logits_nV)
    if not target_n.is_cpu:
        return
    wrong = target_n[((target_n < 0) & (target_n != IGNORED)) | (target_n >= V)]
    if len(wrong):
        raise IndexError(
            f"cross_entropy: target {wrong[0].item()} must lie in 0..{V - 1}, the logits' columns, "
            f"or be {IGNORED}, which is left out"
        )


def targets(op: str, target_n: Tensor, n: int, beside: Tensor) -> None:
    """Require one target of int64 for each of n rows."""
    _require_indices(op, "target_n", target_n, (torch.int64,), (n,), beside)


def rows(op: str, name: str, x: Tensor, dtypes: Dtypes) -> None:
    """Require a tensor of one extent or more, none of them 0."""
    _require_tensor(op, name, x)
    require_dtype(op, name, x, dtypes)
    if not x.dim() or not x.numel():
        raise ValueError(f"{op}: {name} has shape {tuple(x.shape)}; each extent must be at least 1")


def at_least(op: str, name: str, value: int, low: int) -> None:
    """Raise TypeError unless `value` is an int, ValueError unless it is `low` or more."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{op}: {name} is {value!r}; it must be an int")
    if value < low:
        raise ValueError(f"{op}: {name} is {value}; it must be {low} or more")


def _require_indices(
    op: str, name: str, x: Tensor, dtypes: Dtypes, shape: tuple[int, ...], beside: Tensor
) -> None:
    _require_tensor(op, name, x)
    if x.dtype not in dtypes or x.device != beside.device:
        raise TypeError(
            f"{op}: {name} is {x.dtype} on {x.device}; "
            f"it must be {' or '.join(map(str, dtypes))} on {beside.device}"
        )
    if x.shape != shape:
        raise ValueError(f"{op}: {name} has shape {tuple(x.shape)}; it must be {shape}")


def _require_tensor(op: str, name: str, x: object) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} is a {type(x).__name__}; it must be a tensor")
