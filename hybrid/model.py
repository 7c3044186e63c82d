"""The model: embed, run every layer, predict. It never asks what kind a layer is."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hybrid import ops as backends
from hybrid.cache import Cache, require_ids, require_in_vocabulary, rows_of, writable
from hybrid.init import initialise
from hybrid.layers import FEED_FORWARDS, MIXERS
from hybrid.layers.moe import Routing
from hybrid.layers.norm import RMSNorm
from hybrid.loss import next_token_nats
from hybrid.ops import Ops
from hybrid.spec import Layer, ModelSpec

__all__ = ["Cache", "HybridLM", "Output", "build"]


class Output(NamedTuple):
    """What a forward pass returns, whatever the model."""

    logits_BTV: Tensor
    cache: Cache
    routings: tuple[Routing, ...]  # one per router, from the first layer on


class Mixing(nn.Module):
    """x + mixer(norm(x))."""

    def __init__(self, layer: Layer, spec: ModelSpec, ops: Ops):
        super().__init__()
        self.norm = RMSNorm(spec.width, spec.norm_eps, ops)
        self.mixer = MIXERS[type(layer.mixer)](layer.mixer, spec.width, spec.norm_eps, ops)

    def forward(self, x_BTD: Tensor, state):
        y_BTD, state = self.mixer(self.norm(x_BTD), state)
        return x_BTD + y_BTD, state


class Feeding(nn.Module):
    """x + feed_forward(norm(x))."""

    def __init__(self, layer: Layer, spec: ModelSpec, ops: Ops):
        super().__init__()
        self.norm = RMSNorm(spec.width, spec.norm_eps, ops)
        kind = FEED_FORWARDS[type(layer.feed_forward)]
        self.feed_forward = kind(layer.feed_forward, spec.width, ops)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, tuple[Routing, ...]]:
        y_BTD, routings = self.feed_forward(self.norm(x_BTD))
        return x_BTD + y_BTD, routings


class NoFeeding(nn.Module):
    """What follows the mixer in a layer of a mixer alone: nothing, not even a norm."""

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, tuple[Routing, ...]]:
        return x_BTD, ()


class Block(nn.Module):
    """One layer: a mixer, then a feed-forward."""

    def __init__(self, layer: Layer, spec: ModelSpec, ops: Ops):
        super().__init__()
        self.mixing = Mixing(layer, spec, ops)
        self.feeding = NoFeeding() if layer.feed_forward is None else Feeding(layer, spec, ops)

    def forward(self, x_BTD: Tensor, state):
        x_BTD, state = self.mixing(x_BTD, state)
        x_BTD, routings = self.feeding(x_BTD)
        return x_BTD, state, routings


class HybridLM(nn.Module):
    """A language model of the hybrid family; make one with `build`."""

    def __init__(self, spec: ModelSpec, ops: Ops):
        super().__init__()
        self.spec, self.ops = spec, ops
        self.embed = nn.Embedding(spec.vocab, spec.width)
        self.blocks = nn.ModuleList(Block(layer, spec, ops) for layer in spec.layers)
        self.norm = RMSNorm(spec.width, spec.norm_eps, ops)
        self.head = nn.Linear(spec.width, spec.vocab, bias=False)
        if spec.tied:
            self.head.weight = self.embed.weight

    def hidden(
        self, ids_BT: Tensor, cache: Cache | None = None
    ) -> tuple[Tensor, Cache, tuple[Routing, ...]]:
        """Return (the normalised last hidden states (B, T, D), the cache after them, routings).

        Raises TypeError unless ids are int64 or int32, IndexError for an id outside 0..vocab-1, and
        ValueError for ids of another shape and for a cache that does not fit the model or the ids.
        On a GPU an id outside is a RuntimeError of torch's, which may come later.
        """
        cache = self._checked(ids_BT, cache)
        try:
            return self._pass(ids_BT, cache)
        except IndexError:
            require_in_vocabulary("ids_BT", ids_BT, self.spec.vocab)
            raise

    def _checked(self, ids_BT: Tensor, cache: Cache | None) -> Cache:
        """Return the cache to go on from, None for each layer where there is none."""
        device = self.embed.weight.device
        if cache is None:
            require_ids("ids_BT", ids_BT, 2, None, device)
            return [None] * len(self.blocks)
        require_ids("ids_BT", ids_BT, 2, rows_of(self, cache), device)
        return writable(cache)

    def _pass(self, ids_BT: Tensor, cache: Cache) -> tuple[Tensor, Cache, tuple[Routing, ...]]:
        """Run every layer; only this part is compiled."""
        x_BTD = self.embed(ids_BT).float()
        states: Cache = []
        routings: list[Routing] = []
        for block, state in zip(self.blocks, cache, strict=True):
            x_BTD, state, routed = block(x_BTD, state)
            states.append(state)
            routings.extend(routed)
        return self.norm(x_BTD), states, tuple(routings)

    def forward(self, ids_BT: Tensor, cache: Cache | None = None) -> Output:
        """Return logits for the token after each of `ids_BT`, which continue what `cache` saw.

        Raises what `hidden` raises.
        """
        x_BTD, cache, routings = self.hidden(ids_BT, cache)
        return Output(self.head(x_BTD), cache, routings)

    def loss(self, ids_BT: Tensor, target_BT: Tensor) -> tuple[Tensor, tuple[Routing, ...]]:
        """Return (mean nats of each next token, routings) without ever holding all logits.

        Raises what `hidden` raises, ValueError unless there is one target for each id, TypeError
        unless targets are int64, and IndexError for one that is no token and not IGNORED.
        """
        if target_BT.shape != ids_BT.shape:
            raise ValueError(
                f"loss: target_BT has shape {tuple(target_BT.shape)}; "
                f"it must be that of ids_BT, {tuple(ids_BT.shape)}"
            )
        x_BTD, cache, routings = self.hidden(ids_BT)
        del cache  # its memory is needed for the loss
        x_nD, target_n = x_BTD.flatten(0, 1), target_BT.flatten()
        return next_token_nats(x_nD, self.head.weight, target_n, self.ops), routings

    def compile_passes(self, mode: str) -> None:
        """Have torch compile the pass over tokens, in this `mode` of torch.compile, at its first
        call and again for other shapes; the loss stays as it is.
        """
        run = torch.compile(self._pass, mode=mode)

        def hidden(
            ids_BT: Tensor, cache: Cache | None = None
        ) -> tuple[Tensor, Cache, tuple[Routing, ...]]:
            cache = self._checked(ids_BT, cache)
            # A compiled embedding takes a negative id for one counted from the end.
            require_in_vocabulary("ids_BT", ids_BT, self.spec.vocab)
            return run(ids_BT, cache)

        self.hidden = hidden  # type: ignore[method-assign]

    @contextmanager
    def passes_as_written(self) -> Iterator[None]:
        """Leave what is compiled aside meanwhile: it does not see hooks that came later."""
        compiled = self.__dict__.pop("hidden", None)
        try:
            yield
        finally:
            if compiled is not None:
                self.hidden = compiled  # type: ignore[method-assign]

    def start(self, room: int) -> Cache:
        """Return the cache that starts a sequence, with memory for `room` tokens."""
        blocks: Iterable[Any] = self.blocks
        return [block.mixing.mixer.start(room) for block in blocks]


def build(
    spec: ModelSpec,
    *,
    ops: Ops | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> HybridLM:
    """Return the model of `spec` with weights drawn from `seed`, in fp32 on `device`.

    `ops` None takes the fastest implementation for the device (`hybrid.ops.best_for`). A weight
    depends on the seed and its own name and shape alone, so two models share the initial weights
    of the parts they share.
    """
    ops = backends.best_for(torch.device(device)) if ops is None else ops
    with torch.device("meta"):
        model = HybridLM(spec, ops)
    model.to_empty(device=device)
    if spec.tied:
        model.head.weight = model.embed.weight  # to_empty gives every name memory of its own
    initialise(model, spec, seed)
    return model
