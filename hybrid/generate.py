"""Text from a model: prefill reads a prompt, decode adds one token, sample goes on and on.

Prefill and decode are the model's one call at different lengths; the cache is a list of layer
states. Whoever decodes many tokens prepares for it: `hybrid/steps.py`, as `sample` does.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hybrid import steps
from hybrid.model import Cache, HybridLM

CHUNK = 4096  # tokens of a prompt that are read in one pass


@torch.inference_mode()
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
    """
    if ids_BT.shape[1] == 0:
        raise ValueError("prefill: the prompt has no tokens; give at least one")
    cache = model.start(ids_BT.shape[1] + room) if cache is None else cache
    for piece_BT in ids_BT.split(chunk, dim=1):
        x_BTD, cache, _ = model.hidden(piece_BT, cache)
    return model.head(x_BTD[:, -1]), cache


@torch.inference_mode()
def decode(model: HybridLM, ids_B: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
    """Return (the logits after one more token per sequence (B, V), the cache with it)."""
    output = model(ids_B[:, None], cache)
    return output.logits_BTV[:, -1], output.cache


def sample(
    model: HybridLM,
    ids_BT: Tensor,
    *,
    tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Yield `tokens` tokens (B,) that continue the prompt; temperature 0 takes the likeliest."""
    if temperature < 0:
        raise ValueError(f"sample: temperature={temperature} must be 0 or more")
    draws = torch.Generator(ids_BT.device).manual_seed(seed)
    logits_BV, cache = prefill(model, ids_BT, room=tokens)
    taker = steps.prepare(model, cache)
    for _ in range(tokens):
        ids_B = _choose(logits_BV.float(), temperature, draws)
        yield ids_B
        logits_BV = taker.step(ids_B)


def cache_bytes(cache: Cache) -> int:
    """Return the bytes that `cache` keeps alive: whole storages, also where a tensor is a part."""
    states = [state for state in cache if state is not None]
    held = [tensor.untyped_storage() for state in states for tensor in state.tensors()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())


def _choose(logits_BV: Tensor, temperature: float, draws: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    probability_BV = torch.softmax(logits_BV / temperature, dim=-1)
    return torch.multinomial(probability_BV, 1, generator=draws)[:, 0]
