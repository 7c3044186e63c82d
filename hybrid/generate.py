"""Text from a model: prefill reads a prompt, decode adds one token, sample goes on and on.

Prefill and decode are the model's one call at different lengths; the cache is a list of layer
states. Whoever decodes many tokens prepares for it: `hybrid/steps.py`, as `sample` does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from hybrid import steps
from hybrid.cache import Cache, require_ids, rows_of
from hybrid.model import HybridLM
from hybrid.ops.given import at_least
from hybrid.spec import LARGEST, require

COLDEST = 1e-30  # temperature; numbers below have no reciprocal in fp32
CHUNK = 4096  # tokens of a prompt that are read in one pass


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How the next token is chosen; temperature 0 takes the likeliest, whatever the others say."""

    temperature: float = 0.0
    top_k: int | None = None  # among so many likeliest; None among all
    top_p: float = 1.0  # among the likeliest that have this probability together

    def __post_init__(self) -> None:
        require(
            0 <= self.temperature < inf,
            f"Choice: temperature={self.temperature} must be 0 or more and finite",
        )
        require(
            self.top_k is None or 1 <= self.top_k <= LARGEST,
            f"Choice: top_k={self.top_k} must be 1 or more, at most {LARGEST}",
        )
        require(0 < self.top_p <= 1, f"Choice: top_p={self.top_p} must be above 0 and at most 1")


GREEDY = Choice()


def prefill(
    model: HybridLM,
    ids_BT: Tensor,
    *,
    chunk: int = CHUNK,
    cache: Cache | None = None,
    room: int = 0,
) -> tuple[Tensor, Cache]:
    """Return (the logits after the last token (B, V), the cache), reading `chunk` tokens a call.

    A new cache has memory for the prompt and `room` tokens more; it grows when they are not enough.
    Gradients are not recorded, but what is returned may be used where they are. Raises ValueError
    for a prompt without tokens, a `chunk` below 1 or a `room` below 0, and what the model raises.
    """
    at_least("prefill", "chunk", chunk, 1)
    at_least("prefill", "room", room, 0)
    require_ids("prefill: the prompt", ids_BT, 2, None, None)
    logits_BV, cache = _prefill(model, ids_BT, chunk, cache, room)
    return _ordinary(logits_BV), cache


@torch.inference_mode()
def _prefill(
    model: HybridLM, ids_BT: Tensor, chunk: int, cache: Cache | None, room: int
) -> tuple[Tensor, Cache]:
    cache = model.start(ids_BT.shape[1] + room) if cache is None else cache
    for piece_BT in ids_BT.split(chunk, dim=1):
        x_BTD, cache, _ = model.hidden(piece_BT, cache)
    return model.head(x_BTD[:, -1]), cache


def decode(model: HybridLM, ids_B: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
    """Return (the logits after one more token per sequence (B, V), the cache with it).

    Gradients are not recorded, but what is returned may be used where they are. Raises what a step
    raises (`hybrid/steps.py`), and ValueError for a cache that does not fit the model.
    """
    require_ids("ids_B", ids_B, 1, None, None)
    with torch.inference_mode():
        output = model(ids_B[:, None], cache)
    return _ordinary(output.logits_BTV[:, -1]), output.cache


def _ordinary(x: Tensor) -> Tensor:
    """Return `x` as a tensor that may be used outside torch's inference mode."""
    return x if torch.is_inference_mode_enabled() else x.clone()


def sample(
    model: HybridLM,
    ids_BT: Tensor,
    *,
    tokens: int,
    choice: Choice = GREEDY,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Yield `tokens` tokens (B,) that continue the prompt, each chosen as `choice` says."""
    logits_BV, cache = prefill(model, ids_BT, room=tokens)
    yield from go_on(model, logits_BV, cache, tokens=tokens, choice=choice, seed=seed)


def go_on(
    model: HybridLM,
    logits_BV: Tensor,
    cache: Cache,
    *,
    tokens: int,
    choice: Choice = GREEDY,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Yield `tokens` tokens (B,) that continue what gave these logits and this cache, which stays
    as it is.

    Raises ValueError unless there is a row of logits, as wide as the vocabulary, for each sequence
    of the cache, and for a seed that no generator takes.
    """
    require(0 <= seed <= LARGEST, f"seed={seed} must be 0 or more, at most {LARGEST}")
    at_least("go_on", "tokens", tokens, 0)
    rows = rows_of(model, cache)
    wanted = (len(logits_BV) if rows is None else rows, model.spec.vocab)
    if logits_BV.shape != wanted:
        raise ValueError(
            f"go_on: logits_BV has shape {tuple(logits_BV.shape)}; "
            f"beside this cache it must be {wanted}"
        )
    draws = torch.Generator(logits_BV.device).manual_seed(seed)
    taker = steps.prepare(model, cache)
    for _ in range(tokens):
        ids_B = _choose(logits_BV.float(), choice, draws)
        yield ids_B
        logits_BV = taker.step(ids_B)


def branch(cache: Cache, ways: int) -> Cache:
    """Return the cache of `ways` sequences for each of `cache`, which all go on from that one.

    Raises ValueError for fewer than one.
    """
    at_least("branch", "ways", ways, 1)
    return [None if state is None else state.branch(ways) for state in cache]


def cache_bytes(cache: Cache) -> int:
    """Return the bytes that `cache` keeps alive: whole storages, also where a tensor is a part."""
    states = [state for state in cache if state is not None]
    held = [tensor.untyped_storage() for state in states for tensor in state.tensors()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())


def _choose(logits_BV: Tensor, choice: Choice, draws: torch.Generator) -> Tensor:
    if choice.temperature == 0:
        return logits_BV.argmax(dim=-1)
    # From the largest on, or a temperature that is nearly 0 would make it infinite.
    below_BV, order_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)).sort(
        dim=-1, descending=True
    )
    scaled_BV = below_BV / max(choice.temperature, COLDEST)
    probability_BV = scaled_BV.softmax(dim=-1)
    # The likeliest stays, whatever top_p: before it there is no mass.
    out_BV = probability_BV.cumsum(dim=-1) - probability_BV >= choice.top_p
    if choice.top_k is not None:
        out_BV[:, choice.top_k :] = True
    place_B1 = torch.multinomial(probability_BV.masked_fill(out_BV, 0), 1, generator=draws)
    return order_BV.gather(1, place_B1)[:, 0]
