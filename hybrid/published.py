"""What others have published about the cost of the preset models, typed, with source. No torch.

Only numbers that were printed; `hybrid/cost.py` computes ours, and `docs/cost.md` sets the two
side by side. GB in the Jamba paper's Table 1 is GiB. Its Table 1 leaves out Mistral's sliding
window, so `without_windows` is the spec that it describes.
"""

from dataclasses import dataclass, replace

from hybrid.spec import Attention, Layer, ModelSpec

GIB = 1 << 30
TABLE_1_CONTEXT = 262_144


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of one model; parameters as its released weights have them."""

    params: int
    active_params: int
    kv_bytes_per_token: int  # bf16
    kv_bytes: int  # at TABLE_1_CONTEXT


COUNTS = {
    "llama-2-7b": Counts(
        params=6_738_415_616,
        active_params=6_738_415_616,
        kv_bytes_per_token=524_288,
        kv_bytes=128 * GIB,
    ),
    "llama-2-13b": Counts(
        params=13_015_864_320,
        active_params=13_015_864_320,
        kv_bytes_per_token=819_200,
        kv_bytes=200 * GIB,
    ),
    "llama-2-70b": Counts(
        params=68_976_648_192,
        active_params=68_976_648_192,
        kv_bytes_per_token=327_680,
        kv_bytes=80 * GIB,
    ),
    "mistral-7b": Counts(
        params=7_241_732_096,
        active_params=7_241_732_096,
        kv_bytes_per_token=131_072,
        kv_bytes=32 * GIB,
    ),
    "mixtral-8x7b": Counts(
        params=46_702_792_704,
        active_params=12_879_925_248,
        kv_bytes_per_token=131_072,
        kv_bytes=32 * GIB,
    ),
    "jamba-v0.1": Counts(
        params=51_570_323_328,
        active_params=12_110_311_296,
        kv_bytes_per_token=16_384,
        kv_bytes=4 * GIB,
    ),
    "jamba-tiny-dev": Counts(
        params=318_688_640,
        active_params=167_693_696,
        kv_bytes_per_token=1_024,
        kv_bytes=GIB // 4,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Table1Row:
    """A row of Table 1 (arXiv 2403.19887): rounded as printed."""

    params_b: float
    active_b: float
    kv_gib: int


TABLE_1 = {
    "llama-2-7b": Table1Row(params_b=6.7, active_b=6.7, kv_gib=128),
    "mistral-7b": Table1Row(params_b=7.2, active_b=7.2, kv_gib=32),
    "mixtral-8x7b": Table1Row(params_b=46.7, active_b=12.9, kv_gib=32),
    "jamba-v0.1": Table1Row(params_b=52, active_b=12, kv_gib=4),
}

# Figure 2 (arXiv 2403.19887): the longest context on one A100 of 80 GB with int8 weights.
FIGURE_2_MODEL = "jamba-v0.1"
FIGURE_2_CONTEXT = 140_000
FIGURE_2_RATIOS = {"mixtral-8x7b": 2, "llama-2-70b": 7}
FIGURE_2_MEMORY = 80 * 10**9


def without_windows(spec: ModelSpec) -> ModelSpec:
    """Return the spec with every attention layer seeing all tokens, as Table 1 counts it."""
    return replace(spec, layers=tuple(_without_window(layer) for layer in spec.layers))


def _without_window(layer: Layer) -> Layer:
    match layer.mixer:
        case Attention() as attention:
            return replace(layer, mixer=replace(attention, window=None))
        case _:
            return layer
