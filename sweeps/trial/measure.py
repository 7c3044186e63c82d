"""What only a clock or held-out data can tell: loss, accuracy, expert load, and speed.

No formula lives here; the arithmetic's side is `hybrid/cost.py`.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid import generate, steps
from hybrid.layers.moe import Routing
from hybrid.model import HybridLM
from sweeps.trial.data import synthetic
from sweeps.trial.data.batches import HeldOutWindows, bits_per_byte, held_out, text_bytes
from sweeps.trial.data.documents import Split
from sweeps.trial.data.streams import Tokens
from sweeps.trial.data.synthetic.kind import UNSCORED
from sweeps.trial.data.tasks import Probe
from sweeps.trial.device import autocast
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.train import Step

PREFILL_REPEATS = 3
DECODE_STEPS = 24
DECODE_WARMUP = 4

Loads = tuple[tuple[float, ...], ...]  # for each router, choices of each expert / tokens


def held_out_windows(recipe: Recipe, split: Split, length: int | None = None) -> HeldOutWindows:
    """Return the windows of a split in which loss is taken; `length` None is the training's."""
    return HeldOutWindows(
        split=split,
        length=recipe.tokens if length is None else length,
        limit_tokens=limit_of(recipe, split),
    )


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The loss on one domain's held-out text, and how its tokens were routed."""

    bits_per_byte: float
    loads: Loads


def limit_of(recipe: Recipe, split: Split) -> int | None:
    """Return how many tokens of each domain of a split are read, at most; None is all."""
    return recipe.last_tokens if split is Split.TEST else recipe.valid_tokens


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
    windows = held_out_windows(recipe, split, length)
    model.eval()
    device = model.embed.weight.device
    nats, n_bytes = 0.0, 0
    loads = _LoadMeans()
    for ids_BT, targets_BT in held_out(
        tokens,
        domain=domain,
        batch=max(1, recipe.batch * recipe.tokens // windows.length),
        **asdict(windows),
    ):
        with autocast(precision, device):
            output = model(ids_BT.to(device))
        logits_nV = output.logits_BTV.flatten(0, 1).float()
        nats += F.cross_entropy(logits_nV, targets_BT.flatten().to(device), reduction="sum").item()
        n_bytes += text_bytes(tokens, targets_BT)
        loads.add(output.routings, len(ids_BT))
    return HeldOut(bits_per_byte=bits_per_byte(nats=nats, n_bytes=n_bytes), loads=loads.means())


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The shares that a probe found, by their keys in a record, and how its tokens were routed."""

    shares: dict[str, float]
    loads: Loads


@torch.inference_mode()
def task_scores(
    model: HybridLM, probe: Probe, recipe: Recipe, precision: Precision, split: Split
) -> Scored:
    """Return what `probe` finds on draws of `split`, the same whatever the recipe's seed.

    At most `valid_tokens` of the recipe, but at least one sequence; as many tokens at a time as in
    a training step.
    """
    model.eval()
    device = model.embed.weight.device
    seen: dict[str, list[Tensor]] = defaultdict(list)
    loads = _LoadMeans()
    for ids_BT, targets_BT in synthetic.held_out(
        probe,
        split=split,
        vocab=model.spec.vocab,
        batch=max(1, recipe.batch * recipe.tokens // probe.length),
        limit_tokens=recipe.valid_tokens,
    ):
        with autocast(precision, device):
            output = model(ids_BT.to(device))
        logits_nV = output.logits_BTV[(targets_BT != UNSCORED).to(device)].float().cpu()
        for key, found_n in synthetic.scores(probe, ids_BT, targets_BT, logits_nV).items():
            seen[key].append(found_n.double())
        loads.add(output.routings, len(ids_BT))
    shares = {key: torch.cat(found).mean().item() for key, found in seen.items()}
    return Scored(shares=shares, loads=loads.means())


class _LoadMeans:
    """The mean load of each expert over batches of different size."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
        self.rows = 0

    def add(self, routings: Sequence[Routing], rows: int) -> None:
        new = [rows * routing.load_X for routing in routings]
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.rows else new
        self.rows += rows

    def means(self) -> Loads:
        return tuple(tuple((total / self.rows).tolist()) for total in self.sums)


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
    model: HybridLM,
    contexts: Sequence[int],
    precision: Precision,
    *,
    graphs: bool,
    tell: Callable[[str], None] = lambda doing: None,
) -> Speeds:
    """Return the speed at each of `contexts`; `tell` is told which one is measured."""
    found = {}
    for context in contexts:
        tell(f"measuring speed at {context:,} tokens of context")
        found[context] = speed(model, context, precision, graphs=graphs)
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
