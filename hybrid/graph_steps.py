"""Decoding on a GPU in a few launches: all that lies between two attentions is one CUDA graph.

A small model's token is many small kernels, and launching each takes longer than running it. A
graph is launched once. What is inside must keep its addresses and shapes: the residual stream and
Mamba's states live in fixed memory and are written in place. Attention, whose keys grow, stays
outside, as the model runs it. Source: torch's documentation, "CUDA semantics", CUDA Graphs.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from hybrid.cache import Cache, require_ids, require_in_vocabulary
from hybrid.layers.mamba import MambaState
from hybrid.model import HybridLM

Part = Callable[[Tensor], Tensor]  # the residual stream (B, 1, D) before and after a sub-layer
Capture = Callable[[Callable[[], None], list[Tensor]], Callable[[], object]]

WARM_UP = 3  # runs before a graph is recorded, as torch advises


def record_graph(run: Callable[[], None], states: list[Tensor]) -> Callable[[], object]:
    """Return what replays `run`; `states`, which running it changes, are as they were."""
    with torch.cuda.device(states[0].device):
        return _record(run, states)


def _record(run: Callable[[], None], states: list[Tensor]) -> Callable[[], object]:
    before = [state.clone() for state in states]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for state, value in zip(states, before, strict=True):
        state.copy_(value)
    return graph.replay


class GraphSteps:
    """A model's steps with everything but attention in graphs; `capture` makes one."""

    @torch.inference_mode()
    def __init__(self, model: HybridLM, cache: Cache, batch: int, capture: Capture = record_graph):
        self.model, device = model, model.embed.weight.device
        self.x_B1D = torch.zeros(batch, 1, model.spec.width, device=device)
        self.logits_BV = torch.zeros(batch, model.spec.vocab, device=device)
        parts: list[tuple[bool, Part, list[Tensor]]] = []
        blocks: Any = model.blocks
        for block, state in zip(blocks, cache, strict=True):
            parts += [_mixing(block.mixing, state), (True, _feeding(block.feeding), [])]
        parts.append((True, self._predict, []))
        self.runs: list[Callable[[], object]] = []
        for fixed, group in groupby(parts, key=lambda part: part[0]):
            members = list(group)
            run = self._through([part for _, part, _ in members])
            states = [state for _, _, held in members for state in held]
            self.runs.append(capture(run, [self.x_B1D, *states]) if fixed else run)

    @torch.inference_mode()
    def step(self, ids_B: Tensor) -> Tensor:
        require_ids("ids_B", ids_B, 1, len(self.x_B1D), self.x_B1D.device)
        try:
            self.x_B1D.copy_(self.model.embed(ids_B[:, None]))
        except IndexError:
            require_in_vocabulary("ids_B", ids_B, self.model.spec.vocab)
            raise
        for run in self.runs:
            run()
        return self.logits_BV.clone()

    def _through(self, parts: list[Part]) -> Callable[[], None]:
        def run() -> None:
            x_B1D = self.x_B1D
            for part in parts:
                x_B1D = part(x_B1D)
            self.x_B1D.copy_(x_B1D)

        return run

    def _predict(self, x_B1D: Tensor) -> Tensor:
        self.logits_BV.copy_(self.model.head(self.model.norm(x_B1D))[:, 0])
        return x_B1D


def _feeding(feeding: Any) -> Part:
    return lambda x_B1D: feeding(x_B1D)[0]


def _mixing(mixing: Any, state: Any) -> tuple[bool, Part, list[Tensor]]:
    """Return (whether it may be in a graph, the mixer with its state, the state's fixed memory)."""
    if isinstance(state, MambaState):
        held = MambaState(*(tensor.clone() for tensor in state))

        def advance(x_B1D: Tensor) -> Tensor:
            y_B1D, new = mixing(x_B1D, held)
            for old, value in zip(held, new, strict=True):
                old.copy_(value)
            return y_B1D

        return True, advance, list(held)

    def go_on(x_B1D: Tensor) -> Tensor:
        nonlocal state
        y_B1D, state = mixing(x_B1D, state)
        return y_B1D

    return False, go_on, []
