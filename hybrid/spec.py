"""What a model is: frozen data that checks itself, free of torch.

A model is a tuple of layers. A layer is a mixer, which moves information between tokens, followed
by a feed-forward, which does not. Nothing is filled in afterwards, and a spec that cannot be built
cannot be constructed: every check is in `__post_init__`, before anything is allocated.

    ModelSpec(
        vocab=4096,
        width=128,
        layers=stack("MMMAMMMM", M=mamba_layer, A=attention_layer),
    )
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import gcd, inf
from typing import Any, TypeVar

LARGEST = 2**63 - 1  # of a size; tensors and records count in int64
OMIT_DEFAULT = "omit_default"  # in a field's metadata

T = TypeVar("T")


class SpecError(ValueError):
    """A model that was asked for cannot be. A search takes this for a refusal and goes on."""


def refuse_unless(holds: bool, message: str) -> None:
    """Raise SpecError(message) unless `holds`."""
    if not holds:
        raise SpecError(message)


def refuse_unless_positive(owner: str, **fields: int | None) -> None:
    """Raise SpecError for the first field that is neither None nor an integer of 1 or more."""
    try:
        require_positive(owner, **fields)
    except ValueError as error:
        raise SpecError(str(error)) from None


def require(holds: bool, message: str) -> None:
    """Raise ValueError(message) unless `holds`."""
    if not holds:
        raise ValueError(message)


def look_up(what: str, table: Mapping[str, T], name: str) -> T:
    """Return table[name]; ValueError, with the names there are, for one that is not in it."""
    if name not in table:
        raise ValueError(f"there is no {what} {name!r}; there are: {', '.join(map(str, table))}")
    return table[name]


def require_positive(owner: str, **fields: int | None) -> None:
    """Raise ValueError for the first field that is neither None nor an integer of 1 to LARGEST."""
    for name, value in fields.items():
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{owner}: {name}={value!r} must be an integer of 1 or more")
        if value is not None and value > LARGEST:
            raise ValueError(f"{owner}: {name}={value!r} must be at most {LARGEST}")


def added(default: Any) -> Any:
    """Return a dataclass field that `hybrid.codec` leaves out of JSON at its default.

    For a field that is added after records were written. What was written before the field existed
    keeps its JSON to the last character, and with it the names that are hashed from the JSON.
    """
    return field(default=default, metadata={OMIT_DEFAULT: True})


class DtInit(StrEnum):
    """How the bias of Mamba's dt projection starts; several re-implementations lost the first.

    LOG_UNIFORM: softplus(bias) is log-uniform in [1e-3, 1e-1] (Mamba, arXiv 2312.00752, section
    3.6 and its reference code). ZERO: all biases 0, so dt is about 0.69 everywhere (what a generic
    "zero every bias" initialiser leaves). TORCH_LINEAR: the default of `torch.nn.Linear`.
    """

    LOG_UNIFORM = "log_uniform"
    ZERO = "zero"
    TORCH_LINEAR = "torch_linear"


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary position embedding (arXiv 2104.09864) over the whole head width."""

    theta: float = 10_000.0

    def __post_init__(self):
        refuse_unless(
            1 < self.theta < inf, f"Rope: theta={self.theta!r} must be larger than 1 and finite"
        )


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Causal grouped-query attention without biases; a head is width / heads wide."""

    heads: int
    kv_heads: int
    window: int | None = None  # tokens visible to the left, self included; None sees all
    positions: Rope | None = None  # None: no positional encoding, as in Jamba

    def __post_init__(self):
        refuse_unless_positive(
            "Attention", heads=self.heads, kv_heads=self.kv_heads, window=self.window
        )
        refuse_unless(
            self.heads % self.kv_heads == 0,
            f"Attention: kv_heads={self.kv_heads} must divide heads={self.heads}",
        )


@dataclass(frozen=True, kw_only=True)
class Mamba:
    """Mamba-1 (arXiv 2312.00752) with Jamba's inner norms (arXiv 2403.19887, section 6.4)."""

    d_state: int = 16
    d_conv: int | None = 4  # width of the short convolution; None leaves it out
    expand: int = 2
    dt_rank: int | None = None  # None: width / 16, rounded up
    inner_norm: bool = True  # RMSNorm on dt (low rank, before its projection), B and C
    dt_init: DtInit = DtInit.LOG_UNIFORM

    def __post_init__(self):
        refuse_unless_positive(
            "Mamba",
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            dt_rank=self.dt_rank,
        )
        refuse_unless(
            isinstance(self.dt_init, DtInit),
            f"Mamba: dt_init={self.dt_init!r} must be one of {', '.join(map(str, DtInit))}",
        )

    def rank(self, width: int) -> int:
        """Return R, the rank of the dt projection; Mamba's default is ceil(width / 16)."""
        return -(-width // 16) if self.dt_rank is None else self.dt_rank


@dataclass(frozen=True, kw_only=True)
class Mamba2:
    """Mamba-2 (arXiv 2405.21060): heads with one decay each; groups of heads share B and C."""

    d_state: int = 128
    d_conv: int | None = 4  # width of the short convolution over x, B and C; None leaves it out
    expand: int = 2
    head_width: int = 64
    groups: int = 1
    gated_norm: bool = True  # RMSNorm of each group after the gate, before the output projection
    dt_init: DtInit = DtInit.LOG_UNIFORM

    def __post_init__(self):
        refuse_unless_positive(
            "Mamba2",
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            head_width=self.head_width,
            groups=self.groups,
        )
        refuse_unless(
            isinstance(self.dt_init, DtInit),
            f"Mamba2: dt_init={self.dt_init!r} must be one of {', '.join(map(str, DtInit))}",
        )

    def heads(self, width: int) -> int:
        """Return H, the number of heads in a model of that width."""
        return self.expand * width // self.head_width

    def projected(self, width: int) -> tuple[int, int, int]:
        """Return the widths of what the input projection makes: gate; x, B and C; dt."""
        E = self.expand * width
        return E, E + 2 * self.groups * self.d_state, self.heads(width)


@dataclass(frozen=True, kw_only=True)
class MLP:
    """SwiGLU: down(silu(gate(x)) * up(x)), without biases (arXiv 2002.05202)."""

    hidden: int

    def __post_init__(self):
        refuse_unless_positive("MLP", hidden=self.hidden)


@dataclass(frozen=True, kw_only=True)
class MoE:
    """`n_experts` SwiGLU experts of which a softmax router picks `top_k` for each token."""

    hidden: int  # of one expert
    n_experts: int
    top_k: int
    renormalise: bool = False  # make the chosen weights sum to one, as Mixtral does; Jamba does not

    def __post_init__(self):
        refuse_unless_positive(
            "MoE", hidden=self.hidden, n_experts=self.n_experts, top_k=self.top_k
        )
        refuse_unless(
            self.top_k <= self.n_experts,
            f"MoE: top_k={self.top_k} must lie in 1..n_experts={self.n_experts}",
        )


StateSpace = Mamba | Mamba2
Mixer = Attention | StateSpace
FeedForward = MLP | MoE


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One mixer and what follows it; `feed_forward=None` is a layer of a mixer alone."""

    mixer: Mixer
    feed_forward: FeedForward | None

    def __post_init__(self):
        refuse_unless(
            isinstance(self.mixer, Mixer),
            f"Layer: mixer={self.mixer!r} must be an Attention, a Mamba or a Mamba2",
        )
        refuse_unless(
            self.feed_forward is None or isinstance(self.feed_forward, FeedForward),
            f"Layer: feed_forward={self.feed_forward!r} must be an MLP, a MoE or None",
        )


class Init(StrEnum):
    """Standard deviations of the initial matrices. Mamba's A, dt and convolution have their own.

    Matrices that write into the residual stream are divided by the square root of the number of
    residual additions in each of the three.

    NORMAL: 0.02 for every matrix (GPT-2). FAN_IN: 1/sqrt(inputs), of the embedding 1/sqrt(width).
    MUP: as FAN_IN inside layers, 1/inputs for the head and for routers, and an embedding that does
    not depend on the width (arXiv 2203.03466, table 3). MUP is for rates that transfer over width.
    """

    NORMAL = "normal"
    FAN_IN = "fan_in"
    MUP = "mup"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A pre-norm language model: embedding, layers, final RMSNorm, unembedding."""

    vocab: int
    width: int
    layers: tuple[Layer, ...]
    tied: bool = False  # the unembedding is the embedding
    norm_eps: float = 1e-6
    init: Init = added(Init.NORMAL)

    def __post_init__(self):
        refuse_unless_positive("ModelSpec", vocab=self.vocab, width=self.width)
        refuse_unless(
            type(self.layers) is tuple and len(self.layers) > 0,
            f"ModelSpec: layers={self.layers!r} must be a tuple of at least one Layer",
        )
        refuse_unless(
            0 < self.norm_eps < inf,
            f"ModelSpec: norm_eps={self.norm_eps!r} must be above 0 and finite",
        )
        refuse_unless(
            isinstance(self.init, Init),
            f"ModelSpec: init={self.init!r} must be one of {', '.join(map(str, Init))}",
        )
        refuse_unless(
            not (self.tied and self.init is Init.MUP),
            "ModelSpec: init=mup must not be tied: the embedding and the head start differently",
        )
        for index, layer in enumerate(self.layers):
            _check_fit(layer, self.width, where=f"layers[{index}]")

    @property
    def ratio(self) -> str:
        """Attention to Mamba layers (1 or 2) in lowest terms: "1:7"; "1:0" and "0:1" if pure."""
        kinds = Counter(type(layer.mixer) for layer in self.layers)
        a, m = kinds[Attention], kinds[Mamba] + kinds[Mamba2]
        divisor = gcd(a, m)
        return f"{a // divisor}:{m // divisor}"


def stack(word: str, **kinds: Layer) -> tuple[Layer, ...]:
    """Return one layer per letter of `word`: stack("MMAM" * 4, M=mamba_layer, A=attention_layer).

    Raises ValueError for an empty word and for a letter that names no layer.
    """
    refuse_unless(len(word) > 0, "stack: word='' must have at least one letter, one for each layer")
    unknown = sorted(set(word) - kinds.keys())
    refuse_unless(
        not unknown, f"stack: word={word!r} uses {unknown}; known letters are {sorted(kinds)}"
    )
    return tuple(kinds[letter] for letter in word)


def _check_fit(layer: Layer, width: int, where: str) -> None:
    """Check what a layer cannot know alone: whether it fits the model's width."""
    refuse_unless(isinstance(layer, Layer), f"{where}={layer!r} must be a Layer")
    match layer.mixer:
        case Attention(heads=heads, positions=positions):
            refuse_unless(
                width % heads == 0, f"{where}.mixer: heads={heads} must divide width={width}"
            )
            refuse_unless(
                positions is None or (width // heads) % 2 == 0,
                f"{where}.mixer: Rope rotates pairs, so the head width "
                f"{width // heads} (width={width} / heads={heads}) must be even",
            )
        case Mamba2(expand=expand, head_width=P, groups=groups):
            E = expand * width
            refuse_unless(
                E % P == 0,
                f"{where}.mixer: head_width={P} must divide the inner width {E} "
                f"(expand={expand} x width={width})",
            )
            refuse_unless(
                E // P % groups == 0,
                f"{where}.mixer: groups={groups} must divide the {E // P} heads "
                f"(inner width {E} / head_width={P})",
            )
