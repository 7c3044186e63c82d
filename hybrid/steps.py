"""One more token, again and again: the step of decoding, prepared once for a model and a cache.

`Steps` is whoever can take a step; `prepare` chooses. Each checks the ids before it
takes one. `EagerSteps` runs the model as ever.
`CpuSteps` keeps its own copy of the state and runs each sub-layer as one kernel, or three, of
`step_kernels.py` and `attention_step_kernels.py` in `hybrid/ops/cpu`. It is for few sequences and
small layers on a CPU, where calling the ordinary operations takes longer than what they compute;
Mamba-2, for which there is no such kernel yet, takes its layer's own step. `GraphSteps`, in
`graph_steps.py`, is for CUDA. The tests hold one against the other.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from hybrid import layers
from hybrid.cache import Cache, require_ids, require_in_vocabulary, rows_of
from hybrid.graph_steps import GraphSteps
from hybrid.layers.keys_values import PAGE, KeysValues
from hybrid.layers.mamba import MambaState, ShortConv
from hybrid.layers.precision import product_dtype
from hybrid.model import Feeding, HybridLM
from hybrid.ops import CPU
from hybrid.ops.cpu import attention_step_kernels as attention
from hybrid.ops.cpu import step_kernels as kernels
from hybrid.ops.cpu.attention_step_kernels import LINE
from hybrid.ops.cpu.lane_math import LOG2_E
from hybrid.ops.cpu.lanes import LANES
from hybrid.ops.cpu.run import flat, run, whole
from hybrid.ops.given import ACTIVATIONS

FEW = 4  # sequences; for more, torch's products read a matrix once for all of them
SMALL = 1 << 22  # parameters of a layer; in larger ones torch's second thread pays
PIECE = 512  # tokens that a thread attends to at a time, whole lanes of them

Part = Callable[[Any, int], None]  # (the residual stream (B, D), tokens seen), which it adds to


class Steps(Protocol):
    """Something that takes one token of each sequence and returns logits for the next."""

    def step(self, ids_B: Tensor) -> Tensor:
        """Return the logits (B, V) after one more token of each sequence.

        Raises TypeError unless ids are int64 or int32, ValueError unless there is one for each
        sequence of the cache, and IndexError for an id outside 0..vocab-1 (on a GPU, a RuntimeError
        of torch's, which may come later).
        """


def prepare(model: HybridLM, cache: Cache, *, graphs: bool = False) -> Steps:
    """Return the fastest steps for a model that goes on from `cache`, which stays as it is.

    `graphs` has a CUDA device record graphs, which takes a moment, and nothing on a CPU. A layer
    without a kernel here (MIXERS, FEED_FORWARDS) takes the model's own call. Raises ValueError for
    a cache that does not fit the model.
    """
    batch = rows_of(model, cache)
    if batch is None:
        return FirstStep(model, cache, graphs)
    if model.ops is CPU and model.embed.weight.is_cpu and _has_kernels(model, batch):
        return CpuSteps(model, cache, batch)
    if graphs and model.embed.weight.is_cuda:
        return GraphSteps(model, cache, batch)
    return EagerSteps(model, cache)


def _has_kernels(model: HybridLM, batch: int) -> bool:
    """Say whether all layers have kernels here, and are so small that these are the faster way."""
    largest = max(sum(p.numel() for p in block.parameters()) for block in model.blocks)
    small = batch <= FEW and largest <= SMALL and model.spec.width % 2 == 0
    weight, blocks = model.embed.weight, cast(Any, model.blocks)
    kinds = {type(block.mixing.mixer) for block in blocks}
    feeds = {type(block.feeding.feed_forward) for block in blocks if _feeds(block)}
    known = kinds <= MIXERS.keys() and feeds <= FEED_FORWARDS.keys()
    return small and known and {weight.dtype, product_dtype(weight)} <= {*ACTIVATIONS}


def _feeds(block: Any) -> bool:
    return isinstance(block.feeding, Feeding)


class FirstStep:
    """The first step of sequences that begin, whose number the cache does not say.

    It is the model's own call. The steps after it are prepared for the cache that it returns.
    """

    def __init__(self, model: HybridLM, cache: Cache, graphs: bool):
        self.model, self.cache, self.graphs = model, cache, graphs
        self.rest: Steps | None = None

    def step(self, ids_B: Tensor) -> Tensor:
        if self.rest is not None:
            return self.rest.step(ids_B)
        first = EagerSteps(self.model, self.cache)
        logits_BV = first.step(ids_B)
        self.rest = prepare(self.model, first.cache, graphs=self.graphs)
        return logits_BV


class EagerSteps:
    """The model's own call, one token long."""

    def __init__(self, model: HybridLM, cache: Cache):
        self.model, self.cache = model, cache

    @torch.inference_mode()
    def step(self, ids_B: Tensor) -> Tensor:
        require_ids("ids_B", ids_B, 1, None, None)
        output = self.model(ids_B[:, None], self.cache)
        self.cache = output.cache
        return output.logits_BTV[:, -1]


class CpuSteps:
    """One kernel a sub-layer, weights kept in the precision of matrix products."""

    @torch.inference_mode()
    def __init__(self, model: HybridLM, cache: Cache, batch: int):
        embed = model.embed.weight
        dtype = product_dtype(embed)
        self.embed, self.seen, self.batch = embed.detach(), _seen(cache), batch
        self.parts: list[Part] = []
        blocks: Any = model.blocks
        for block, state in zip(blocks, cache, strict=True):
            mixing = block.mixing
            self.parts.append(
                MIXERS[type(mixing.mixer)](mixing.mixer, mixing.norm, state, batch, dtype)
            )
            if _feeds(block):
                feed_forward = block.feeding.feed_forward
                prepare_feeding = FEED_FORWARDS[type(feed_forward)]
                self.parts.append(prepare_feeding(feed_forward, block.feeding.norm, dtype))
        self.norm, self.head = _norm(model.norm), _matrix(model.head.weight, dtype)
        self.eps = model.spec.norm_eps

    @torch.inference_mode()
    def step(self, ids_B: Tensor) -> Tensor:
        require_ids("ids_B", ids_B, 1, self.batch, self.embed.device)
        try:
            x = torch.embedding(self.embed, ids_B).float().numpy()
        except IndexError:
            require_in_vocabulary("ids_B", ids_B, len(self.embed))
            raise
        for part in self.parts:
            part(x, self.seen)
        self.seen += 1
        logits = np.empty((len(x), len(self.head)), np.float32)
        kernels.head_step(x, self.norm, self.eps, self.head, logits)
        return torch.from_numpy(logits)


def _attention(
    mixer: layers.Attention, norm: Any, state: KeysValues | None, batch: int, dtype: torch.dtype
) -> Part:
    H, K, P = mixer.config.heads, mixer.config.kv_heads, mixer.head_width
    window, rope = mixer.config.window, mixer.config.positions
    theta = 0.0 if rope is None else float(rope.theta)
    begin = (_norm(norm), norm.eps, _matrix(mixer.qkv.weight, dtype), P)
    out = _matrix(mixer.out.weight, dtype)
    q = np.zeros((batch, H, whole(P)), np.float32)
    state = mixer.start(0) if state is None else state
    kept, empty = state.kept, torch.zeros(batch, 0, K, P, dtype=dtype)
    memory = [_pages(empty if m is None else m.x_BCKP[:, :kept]) for m in (state.k, state.v)]

    def part(x: Any, seen: int) -> None:
        nonlocal kept, memory
        if kept == memory[0].shape[1]:
            memory, kept = _turned_over(memory, kept, window)
        attention.attention_begin(x, *begin, seen, theta, *memory, kept, q)
        kept += 1
        low = 0 if window is None else max(0, kept - window)
        pieces = -(-(kept - low) // PIECE)
        parts = np.empty((batch, pieces, H, whole(P) + LANES), np.float32)
        work = q.size * (kept - low) // 2  # a product takes a quarter of one in a scan
        run(attention.attend_pieces, batch * pieces, work, q, *memory, low, kept, PIECE, parts)
        attention.attention_end(x, out, P, parts)

    return part


def _pages(kept_BSKP: Tensor) -> Any:
    """Return keys or values in memory of their own, heads in whole lanes, with room for a page."""
    B, S, K, P = kept_BSKP.shape
    kept = _array(kept_BSKP)
    pages = _aligned((B, S + PAGE, K, whole(P)), kept.dtype)
    pages[:, :S, :, :P], pages[:, :S, :, P:] = kept, 0
    return pages


def _turned_over(memory: list[Any], kept: int, window: int | None) -> tuple[list[Any], int]:
    """Return larger memory with what may still be looked at, and how many tokens that is."""
    left = kept if window is None else min(kept, window)
    larger = [_aligned((len(x), left + PAGE, *x.shape[2:]), x.dtype) for x in memory]
    for new, old in zip(larger, memory, strict=True):
        new[:, :left] = old[:, kept - left : kept]
    return larger, left


def _aligned(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array that starts with a cache line.

    From numpy, which asks for large pages where there is much to hold; torch does not, and on small
    ones a long cache is read more slowly.
    """
    count = math.prod(shape) * dtype.itemsize
    room = np.empty(count + LINE, np.uint8)
    skip = -room.ctypes.data % LINE
    return room[skip : skip + count].view(dtype).reshape(shape)


def _mamba(
    mixer: layers.Mamba, norm: Any, state: MambaState | None, batch: int, dtype: torch.dtype
) -> Part:
    E, N = mixer.a_log_EN.shape
    conv_EW, conv_bias_E = torch.ones(E, 1), torch.zeros(E)
    short = mixer.short
    if isinstance(short, ShortConv):
        conv_EW, conv_bias_E = short.weight_EW, short.bias_E
    L = conv_EW.shape[1] - 1
    tail_BLE = torch.zeros(batch, L, E) if state is None else state.tail_BLE
    h_BEN = torch.zeros(batch, E, N) if state is None else state.h_BEN
    inner: tuple[Any, ...] = (
        (mixer.dt_norm, mixer.b_norm, mixer.c_norm) if mixer.config.inner_norm else ()
    )
    weights = (
        _norm(norm),
        norm.eps,
        _matrix(mixer.in_proj.weight, dtype),
        _lanes(conv_EW.t()),
        _lanes(conv_bias_E),
        _matrix(mixer.x_proj.weight, dtype),
        np.concatenate([np.zeros(0, np.float32), *(x.weight.detach().numpy() for x in inner)]),
        _matrix(mixer.dt_proj.weight, dtype),
        _lanes(mixer.dt_bias_E),
        _blocks((-torch.exp(mixer.a_log_EN) * float(LOG2_E))[None])[0],
        _lanes(mixer.d_E),
        _matrix(mixer.out_proj.weight, dtype),
        _lanes(tail_BLE).copy(),
        _blocks(h_BEN).copy(),
    )

    def part(x: Any, _seen: int) -> None:
        kernels.mamba_step(x, *weights)

    return part


def _mamba2(
    mixer: layers.Mamba2, norm: Any, state: MambaState | None, _batch: int, dtype: torch.dtype
) -> Part:
    """Take the layer's own step: there is no kernel for it yet."""

    def part(x: Any, _seen: int) -> None:
        nonlocal state
        x_BD = torch.from_numpy(x)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            y_B1D, state = mixer(norm(x_BD[:, None]), state)
        x_BD += y_B1D[:, 0]

    return part


def _mlp(feed_forward: layers.MLP, norm: Any, dtype: torch.dtype) -> Part:
    gate_up, down = feed_forward.gate_up.weight, feed_forward.down.weight
    weights = (_norm(norm), norm.eps, _matrix(gate_up, dtype), _matrix(down, dtype))

    def part(x: Any, _seen: int) -> None:
        kernels.mlp_step(x, *weights)

    return part


def _moe(feed_forward: layers.MoE, norm: Any, dtype: torch.dtype) -> Part:
    no_scales = np.zeros(0, np.float32)
    matrices = (
        _matrix(feed_forward.gate_up_XFD.flatten(0, 1), dtype),
        no_scales,
        _matrix(feed_forward.down_XDF.flatten(0, 1), dtype),
        no_scales,
    )
    return _mixture(feed_forward, norm, matrices)


def _int8_moe(feed_forward: layers.Int8MoE, norm: Any, _dtype: torch.dtype) -> Part:
    gate_up, down = feed_forward.gate_up, feed_forward.down
    matrices = (
        _matrix(gate_up.whole_XFD.flatten(0, 1), torch.int8),
        _array(gate_up.scale_XF.flatten()),
        _matrix(down.whole_XFD.flatten(0, 1), torch.int8),
        _array(down.scale_XF.flatten()),
    )
    return _mixture(feed_forward, norm, matrices)


def _mixture(
    feed_forward: layers.MoE | layers.Int8MoE, norm: Any, matrices: tuple[Any, ...]
) -> Part:
    config = feed_forward.config
    weights = (_norm(norm), norm.eps, _matrix(feed_forward.router_XD, torch.float32), *matrices)

    def part(x: Any, _seen: int) -> None:
        kernels.moe_step(x, *weights, config.top_k, config.renormalise)

    return part


MIXERS: dict[type, Callable[..., Part]] = {
    layers.Attention: _attention,
    layers.Mamba: _mamba,
    layers.Mamba2: _mamba2,
}
FEED_FORWARDS: dict[type, Callable[..., Part]] = {
    layers.MLP: _mlp,
    layers.MoE: _moe,
    layers.Int8MoE: _int8_moe,
}


def _seen(cache: Cache) -> int:
    return max((s.seen for s in cache if isinstance(s, KeysValues)), default=0)


def _array(x: Tensor) -> Any:
    """Return a contiguous array, bfloat16 seen as int16."""
    x = x.detach().contiguous()
    return flat(x).reshape(x.shape)


def _lanes(x: Tensor) -> Any:
    """Return a float32 array whose last extent is filled up to whole lanes with zeros."""
    short = whole(x.shape[-1]) - x.shape[-1]
    return _array(torch.nn.functional.pad(x.detach().float(), [0, short]))


def _norm(module: Any) -> Any:
    return _lanes(module.weight)


def _matrix(weight: Tensor, dtype: torch.dtype) -> Any:
    """Return a matrix in `dtype`, its rows filled up to whole lanes; its own memory if it fits."""
    short = whole(weight.shape[1]) - weight.shape[1]
    weight = weight.detach().to(dtype)
    return _array(torch.nn.functional.pad(weight, [0, short]) if short else weight)


def _blocks(x_BEN: Tensor) -> Any:
    """Return (B, blocks, N, lanes), channels filled up with zeros."""
    B, E, N = x_BEN.shape
    filled = torch.nn.functional.pad(x_BEN.detach().float(), [0, 0, 0, whole(E) - E])
    return _array(filled.view(B, -1, LANES, N).transpose(2, 3))
