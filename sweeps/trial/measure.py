"""What only a clock or held-out text can tell: loss, expert load, prefill and decode speed.

No formula lives here; the arithmetic's side is `hybrid/cost.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid import generate, steps
from hybrid.model import HybridLM
from sweeps.trial.data.batches import bits_per_byte, held_out, text_bytes
from sweeps.trial.data.documents import Split
from sweeps.trial.data.streams import Tokens
from sweeps.trial.device import autocast
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.train import Step

PREFILL_REPEATS = 3
DECODE_STEPS = 24
DECODE_WARMUP = 4


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The loss on one domain's held-out text, and how its tokens were routed."""

    bits_per_byte: float
    loads: tuple[tuple[float, ...], ...]  # for each router, choices of each expert / tokens


@torch.inference_mode()
def held_out_loss(
    model: HybridLM,
    tokens: Tokens,
    domain: str,
    recipe: Recipe,
    precision: Precision,
    split: Split = Split.VALID,
    length: int | None = None,
) -> HeldOut:
    """Return the loss on a split of `domain`, in windows of `length`; None is the training's."""
    length = recipe.tokens if length is None else length
    model.eval()
    device = model.embed.weight.device
    nats, n_bytes, n_windows = 0.0, 0, 0
    loads: list[Tensor] = []
    for ids_BT, targets_BT in held_out(
        tokens,
        split=split,
        domain=domain,
        length=length,
        batch=max(1, recipe.batch * recipe.tokens // length),
        limit_tokens=recipe.valid_tokens,
    ):
        with autocast(precision, device):
            output = model(ids_BT.to(device))
        logits_nV = output.logits_BTV.flatten(0, 1).float()
        nats += F.cross_entropy(logits_nV, targets_BT.flatten().to(device), reduction="sum").item()
        n_bytes += text_bytes(tokens, targets_BT)
        windows = len(ids_BT)
        batch_loads = [windows * routing.load_X for routing in output.routings]
        loads = [a + b for a, b in zip(loads, batch_loads, strict=True)] if loads else batch_loads
        n_windows += windows
    return HeldOut(
        bits_per_byte=bits_per_byte(nats=nats, n_bytes=n_bytes),
        loads=tuple(tuple((load / n_windows).tolist()) for load in loads),
    )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast one sequence is read and continued, at one context length."""

    prefill_tokens_per_s: float
    decode_ms: float  # a token, with the whole context in the cache
    cache_bytes: int  # held after the context, by the tensors themselves


def speed(model: HybridLM, context: int, precision: Precision, *, graphs: bool) -> Speed:
    """Return medians at batch 1 over random tokens: speed does not depend on what is read."""
    model.eval()
    device = model.embed.weight.device
    draws = torch.Generator().manual_seed(context)
    ids_BT = torch.randint(model.spec.vocab, (1, context), generator=draws).to(device)
    with autocast(precision, device):
        generate.prefill(model, ids_BT[:, : min(context, 64)])  # warm-up
        prefills = []
        for _ in range(PREFILL_REPEATS):
            start = _now(device)
            logits_BV, cache = generate.prefill(model, ids_BT)
            prefills.append(_now(device) - start)
        held = generate.cache_bytes(cache)
        decodes, taker = [], steps.prepare(model, cache, graphs=graphs)
        for _ in range(DECODE_WARMUP + DECODE_STEPS):
            start = _now(device)
            logits_BV = taker.step(logits_BV.argmax(dim=-1))
            decodes.append(_now(device) - start)
    return Speed(
        prefill_tokens_per_s=context / median(prefills),
        decode_ms=1e3 * median(decodes[DECODE_WARMUP:]),
        cache_bytes=held,
    )


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What `speed` found, by context length; the names are those of the record's columns."""

    prefill_tokens_per_s: dict[int, float]
    decode_ms: dict[int, float]
    cache_bytes: dict[int, int]


def speeds(
    model: HybridLM, contexts: Sequence[int], precision: Precision, *, graphs: bool
) -> Speeds:
    """Return the speed at each of `contexts`."""
    found = {context: speed(model, context, precision, graphs=graphs) for context in contexts}
    return Speeds(
        prefill_tokens_per_s={c: x.prefill_tokens_per_s for c, x in found.items()},
        decode_ms={c: x.decode_ms for c, x in found.items()},
        cache_bytes={c: x.cache_bytes for c, x in found.items()},
    )


def train_tokens_per_s(steps: Sequence[Step]) -> float | None:
    """Return tokens over median step seconds, the first tenth (at least one step) left out.

    The median, because one pause of a shared machine should not count as the model's. None where
    no step is left.
    """
    warm = steps[max(1, len(steps) // 10) :]
    if not warm:
        return None
    tokens_per_step = steps[0].tokens
    return tokens_per_step / median(step.seconds for step in warm)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
