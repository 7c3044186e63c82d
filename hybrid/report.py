"""What the command line and `docs/cost.md` say about cost, table by table. Free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from hybrid import published
from hybrid.cost import (
    Weights,
    active_params,
    cache_parts,
    param_parts,
    params,
    training_bytes,
    weight_bytes,
)
from hybrid.devices import Device
from hybrid.flops import forward_flops, training_flops
from hybrid.memory import KV_BYTES, longest_context, serving_bytes
from hybrid.presets import PRESETS
from hybrid.roofline import decode_bound, prefill_bound, read_bytes
from hybrid.sheet import Sheet
from hybrid.spec import ModelSpec
from hybrid.units import binary_text, bytes_text, count_text, tokens_text

READINGS: dict[str, int | None] = {
    "weights and cache alone": 0,
    "prompt read 8,192 tokens at a time": 8192,
    "prompt read at once": None,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Under what conditions a model is costed."""

    context: int
    batch: int
    weights: Weights
    chunk: int | None
    memory: int
    device: Device


def card(name: str, spec: ModelSpec, setting: Setting) -> list[Sheet]:
    """Return what one model costs: parameters, memory, compute and bounds."""
    parts = vars(param_parts(spec))
    flops = vars(forward_flops(spec, tokens=setting.context))
    shape = f"{len(spec.layers)} layers ({spec.ratio} attention:Mamba), width {spec.width:,}"
    return [
        summary({name: spec}, setting),
        _shares(f"{name}: parameters ({shape})", "parameters", parts),
        _shares(
            f"{name}: forward FLOPs of a token, mean over {setting.context:,} tokens",
            "FLOPs",
            {part: value / setting.context for part, value in flops.items()},
        ),
        _training(name, spec, setting),
    ]


def summary(specs: Mapping[str, ModelSpec], setting: Setting) -> Sheet:
    """Return the models side by side."""
    columns = [_figures(spec, setting) for spec in specs.values()]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    device = setting.device
    return Sheet(
        title=f"Cost at {setting.context:,} tokens, batch {setting.batch}, {setting.weights}",
        head=("", *specs),
        rows=rows,
        notes=(
            f"Keys and values in bf16, Mamba's states in fp32; prompt read "
            f"{_reading(setting.chunk)}; memory "
            f"{bytes_text(setting.memory)}. Bounds are of {device.name}: "
            f"{device.bytes_per_s / 1e9:,.0f} GB/s, {device.fp32_flops_per_s / 1e12:.3g} TFLOP/s "
            f"fp32, {device.bf16_flops_per_s / 1e12:.3g} bf16; no more than a roofline.",
        ),
    )


def _reading(chunk: int | None) -> str:
    return "at once" if chunk is None else f"{chunk:,} tokens at a time"


def _figures(spec: ModelSpec, setting: Setting) -> dict[str, str]:
    context, batch, weights = setting.context, setting.batch, setting.weights
    cache = cache_parts(spec, batch=batch, tokens=context, itemsize=KV_BYTES)
    need = serving_bytes(spec, batch=batch, context=context, weights=weights, chunk=setting.chunk)
    longest = longest_context(
        spec, memory=setting.memory, batch=batch, weights=weights, chunk=setting.chunk
    )
    read = read_bytes(spec, batch=batch, tokens=1, seen=context, weights=weights)
    decode = decode_bound(spec, setting.device, batch=batch, context=context, weights=weights)
    prefill = prefill_bound(spec, setting.device, batch=batch, context=context, weights=weights)
    return {
        "parameters": count_text(params(spec)),
        "active parameters": count_text(active_params(spec)),
        "weights": bytes_text(weight_bytes(spec, weights)),
        "keys and values": binary_text(cache.kv),
        "SSM states": bytes_text(cache.ssm),
        "convolution tails": bytes_text(cache.conv),
        "working memory": bytes_text(need.working),
        "needed in all": bytes_text(need.total),
        "longest context that fits": tokens_text(longest),
        "training FLOPs a token": count_text(training_flops(spec, tokens=context)),
        "decoding FLOPs a token": count_text(forward_flops(spec, tokens=1, seen=context).total),
        "read for a decoding step": bytes_text(read.total),
        "decoding, at most": f"{decode.tokens_per_s:,.0f} tokens/s ({decode.limit})",
        "prefill, at most": f"{prefill.tokens_per_s:,.0f} tokens/s ({prefill.limit})",
    }


def _shares(title: str, what: str, parts: Mapping[str, float]) -> Sheet:
    total = sum(parts.values())
    rows = [
        (part.replace("_", " "), count_text(value), f"{value / total:.1%}")
        for part, value in parts.items()
        if value
    ]
    return Sheet(title=title, head=("part", what, "share"), rows=[*rows, _total(total)])


def _total(total: float) -> tuple[str, str, str]:
    return "total", count_text(total), ""


def _training(name: str, spec: ModelSpec, setting: Setting) -> Sheet:
    held = training_bytes(spec, batch=setting.batch, tokens=setting.context, itemsize=2)
    rows = [(part.replace("_", " "), bytes_text(value)) for part, value in vars(held).items()]
    return Sheet(
        title=f"{name}: training memory, {setting.batch} x {setting.context:,} tokens in bf16",
        head=("part", "bytes"),
        rows=[*rows, ("peak", bytes_text(held.total))],
        notes=("AdamW, fp32 weights, nothing recomputed. Not all parts are held at once.",),
    )


# ---- beside what was published -------------------------------------------------------------------


def counts() -> Sheet:
    """Return our counts beside those of the released models."""
    rows = []
    for name, theirs in published.COUNTS.items():
        spec = published.without_windows(PRESETS[name])
        grown = [cache_parts(spec, batch=1, tokens=t, itemsize=KV_BYTES).kv for t in (0, 1)]
        ours = {
            "parameters": params(spec),
            "active parameters": active_params(spec),
            "KV bytes a token": grown[1] - grown[0],
            f"KV bytes at {published.TABLE_1_CONTEXT:,}": cache_parts(
                spec, batch=1, tokens=published.TABLE_1_CONTEXT, itemsize=KV_BYTES
            ).kv,
        }
        for (what, our), their in zip(ours.items(), vars(theirs).values(), strict=True):
            rows.append((f"{name}: {what}", f"{our:,}", f"{their:,}", f"{our - their:,}"))
    return Sheet(
        title="Published models",
        head=("", "ours", "theirs", "difference"),
        rows=rows,
        notes=(
            "Theirs: parameters of the released weights. Keys and values in bf16; Mistral counted "
            "without its sliding window, as the Jamba paper's Table 1 does.",
        ),
    )


def table_1() -> Sheet:
    """Return Table 1 of the Jamba paper beside ours, rounded as it is there."""
    rows = []
    for name, theirs in published.TABLE_1.items():
        spec = published.without_windows(PRESETS[name])
        kv = cache_parts(spec, batch=1, tokens=published.TABLE_1_CONTEXT, itemsize=KV_BYTES).kv
        ours = (f"{params(spec) / 1e9:.4g}", f"{active_params(spec) / 1e9:.4g}", f"{kv / 2**30:g}")
        printed = (f"{theirs.params_b:g}", f"{theirs.active_b:g}", f"{theirs.kv_gib}")
        rows.append((name, *(f"{a} / {b}" for a, b in zip(ours, printed, strict=True))))
    return Sheet(
        title="Table 1 of the Jamba paper (ours / theirs)",
        head=("", "parameters, B", "active, B", "KV at 256K, GiB"),
        rows=rows,
        notes=("Printed as GB, the paper's cache sizes are GiB. 16 bits; Mistral without window.",),
    )


def figure_2() -> Sheet:
    """Return Figure 2 of the Jamba paper beside ours, under each way of reading the prompt."""
    paper = {published.FIGURE_2_MODEL: published.FIGURE_2_CONTEXT} | {
        name: round(published.FIGURE_2_CONTEXT / ratio)
        for name, ratio in published.FIGURE_2_RATIOS.items()
    }
    rows = [("the paper", *(f"{x:,}" for x in paper.values()), *_ratios(paper))]
    for reading, chunk in READINGS.items():
        ours = figure_2_contexts(chunk)
        rows.append((reading, *(f"{x:,}" for x in ours.values()), *_ratios(ours)))
    return Sheet(
        title="Figure 2 of the Jamba paper: longest context on one 80 GB card",
        head=("", *paper, *(f"Jamba / {name}" for name in published.FIGURE_2_RATIOS)),
        rows=rows,
        notes=(
            "Assumed: 80 x 10^9 bytes; every weight in one byte (no scales); keys and values in "
            "bf16, Mamba's states in fp32; batch 1; logits for the last token alone; working "
            "memory of this workbench's layers with products in bf16; no allocator slack and no "
            "room for the runtime. The paper's other contexts are its 140K over its ratios.",
            *(_how_close(reading, chunk) for reading, chunk in READINGS.items()),
        ),
    )


def figure_2_contexts(chunk: int | None) -> dict[str, int]:
    """Return the longest contexts of Figure 2's models under its conditions."""
    found = {}
    for name in (published.FIGURE_2_MODEL, *published.FIGURE_2_RATIOS):
        longest = longest_context(
            PRESETS[name],
            memory=published.FIGURE_2_MEMORY,
            batch=1,
            weights=Weights.INT8,
            chunk=chunk,
        )
        assert longest is not None, "each of these models has attention without a window"
        found[name] = longest
    return found


def _ratios(contexts: Mapping[str, int]) -> list[str]:
    jamba = contexts[published.FIGURE_2_MODEL]
    return [f"{jamba / contexts[name]:.2f}x" for name in published.FIGURE_2_RATIOS]


def _how_close(reading: str, chunk: int | None) -> str:
    ours = figure_2_contexts(chunk)
    jamba = ours[published.FIGURE_2_MODEL]
    said = [f"Jamba's context is {jamba / published.FIGURE_2_CONTEXT:.2f} of the paper's"] + [
        f"its ratio to {name} {jamba / ours[name] / ratio:.2f} of the paper's {ratio}x"
        for name, ratio in published.FIGURE_2_RATIOS.items()
    ]
    return f"How close, {reading}: {'; '.join(said)}."
