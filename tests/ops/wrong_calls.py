"""Makes calls of ops and of decoders that are wrong in one place or two, and says what became of
each.

As a program it makes many of them in a process of its own, since a kernel that believes a wrong
size may end it: `python -m tests.ops.wrong_calls fuzz`, or `... triton` for the contract of
Triton's kernels in its interpreter. Letters are those of `hybrid/__init__.py`.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hybrid import generate, steps
from hybrid.graph_steps import GraphSteps
from hybrid.model import HybridLM, build
from hybrid.ops import CPU, REFERENCE, Ops
from tests.models import SPECS, VOCAB

ERRORS = (ValueError, TypeError, IndexError)
ELSEWHERE = "this kernel takes"  # an implementation may refuse more dtypes than the reference
SEED = 11
Call = tuple[str, Callable[[], Any]]


def right_calls(seed: int) -> dict[str, list[Any]]:
    """Return right arguments of every op, of sizes that the seed draws."""
    sizes, draws = random.Random(seed), torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws)

    B, T, E, N, W = 2, sizes.randint(2, 9), sizes.choice([5, 16, 20]), sizes.randint(2, 5), 3
    H, G, P, V = 4, 2, sizes.choice([4, 8]), 11
    x, key = draw(B, T, E), draw(B, T, N)
    heads, keys = draw(B, T, H, P), draw(B, T, G, N)
    floats = torch.float32
    return {
        "attend": [draw(B, T, H, P), draw(B, T + 3, G, P), draw(B, T + 3, G, P), None],
        "conv": [x, draw(E, W), draw(E), draw(B, W - 1, E)],
        "scan": [x, x, draw(E), -draw(E, N).abs(), key, key, draw(E), x, draw(B, E, N)],
        "ssd": [
            heads, draw(B, T, H), draw(H), -draw(H).abs(), keys, keys, draw(H), draw(B, H, P, N)
        ],
        "norm": [x, draw(E), 1e-5, floats],
        "norms": [x, draw(E), [2, E - 2], 1e-5, floats],
        "silu_and_mul": [draw(B, T, 2 * E)],
        "grouped": [draw(6, 8), draw(3, 16, 8), torch.tensor([1, 0, 5])],
        "cross_entropy": [draw(3, V), torch.tensor([V - 1, -100, 0])],
    }  # fmt: skip


def changes(value: Any) -> Iterator[Any]:
    """Yield what may stand in the place of a right argument, some of it right as well."""
    yield from ("a word", 3.5, None)
    if isinstance(value, Tensor):
        for dim in range(value.dim()):
            if (size := value.shape[dim]) == 0:
                continue
            yield from (value.narrow(dim, 0, size - 1), value.narrow(dim, 0, 0))
            yield torch.cat([value, value], dim)
            yield value.select(dim, 0)
            yield value.narrow(dim, 0, 1)  # which torch would broadcast
        yield from (value[None], value.flatten(), value.tolist(), value.float().numpy())
        kinds = (torch.int64, torch.int16, torch.bool, torch.bfloat16, torch.float64, torch.float32)
        yield from (value.to(kind) for kind in kinds if kind is not value.dtype)
        if value.dtype is torch.int64 and value.numel():
            yield from (value - 1, value + 1, value - 7, value + 1000, value.roll(1))
    elif isinstance(value, list):
        yield from ([], [value[0]], [-2, value[1] + 4], [0, sum(value)], [value[0], 2.0])
        yield [*value, 1]
    elif value is None:
        yield from (0, -1, 2, True)
    elif isinstance(value, torch.dtype):
        yield from (torch.int64, torch.bool)


def changed_calls(seed: int, ops: tuple[str, ...]) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield (a description, the op, its arguments), each with one argument changed."""
    for op, right in right_calls(seed).items():
        for place, value in enumerate(right if op in ops else []):
            if type(value) is float:  # eps: any number is one
                continue
            for number, change in enumerate(changes(value)):
                given = [change if i == place else x for i, x in enumerate(right)]
                yield f"{op}, argument {place}, change {number}", op, given


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the error that it raises."""
    try:
        return call()
    except Exception as error:
        return error


def copies(arguments: list[Any], recorded: bool) -> list[Any]:
    """Return arguments of a call's own: cross entropy writes into the logits."""
    made = [x.clone() if isinstance(x, Tensor) else x for x in arguments]
    for x in made:
        if recorded and isinstance(x, Tensor) and x.dtype.is_floating_point:
            x.requires_grad_()
    return made


def called(kernel: Callable[..., Any], arguments: list[Any], recorded: bool) -> Any:
    with torch.set_grad_enabled(recorded):
        return kernel(*copies(arguments, recorded))


def disagreements(ops: Ops, names: tuple[str, ...], seed: int = SEED) -> list[str]:
    """Return where an implementation does not do what the reference does with the same call."""
    found = []
    for name, op, arguments in changed_calls(seed, names):
        for recorded in (False, True):
            wanted = outcome(partial(called, getattr(REFERENCE, op), arguments, recorded))
            given = outcome(partial(called, getattr(ops, op), arguments, recorded))
            if wrong := _difference(given, wanted):
                found.append(f"{name}, gradients {recorded}: {wrong}")
    return found


def _difference(given: Any, wanted: Any) -> str:
    if isinstance(wanted, Exception):
        if not isinstance(wanted, ERRORS):
            return f"the reference raises {wanted!r}"
        return "" if isinstance(given, ERRORS) else f"{given!r:.200} where it is {wanted!r}"
    if isinstance(given, TypeError) and ELSEWHERE in str(given):
        return ""
    if isinstance(given, Exception):
        return f"{given!r} where the reference accepts"
    try:
        tolerances = {torch.bfloat16: 3e-2, torch.float16: 1e-2}
        for one, other in zip(_tensors(given), _tensors(wanted), strict=True):
            tolerance = tolerances.get(one.dtype, 1e-4)
            torch.testing.assert_close(
                one, other, rtol=tolerance, atol=tolerance * 10, equal_nan=True
            )
    except (AssertionError, ValueError) as error:
        return str(error)
    return ""


def _tensors(x: Any) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def wrong_ops(calls: int) -> Iterator[Call]:
    """Yield calls of the CPU's kernels, wrong in two places, that the reference refuses."""
    draws, seeds, names = random.Random(SEED), iter(range(10**6)), tuple(right_calls(0))
    made = 0
    while made < calls:
        right = right_calls(next(seeds))
        op = draws.choice(names)
        arguments = right[op]
        places = [i for i, x in enumerate(arguments) if type(x) is not float]
        places = draws.sample(places, min(2, len(places)))
        for place in places:
            arguments[place] = draws.choice([*changes(arguments[place])])
        recorded = draws.random() < 0.5
        if isinstance(outcome(partial(called, getattr(REFERENCE, op), arguments, False)), ERRORS):
            made += 1
            kernel = getattr(CPU, op)
            yield (
                f"call {made}, {op}, arguments {places}",
                partial(called, kernel, arguments, recorded),
            )


DECODED = ("mixer-mamba", "mixer-mamba2", "mixer-attention", "mixer-attention_window", "hybrid")
WRONG_IDS: dict[str, Any] = {
    "a row less": torch.tensor([1]),
    "a row more": torch.tensor([1, 2, 3]),
    "many rows": torch.arange(VOCAB),
    "no rows": torch.zeros(0, dtype=torch.int64),
    "a column": torch.tensor([[1], [2]]),
    "a row": torch.tensor([[1, 2]]),
    "a number": torch.tensor(1),
    "three extents": torch.ones(2, 1, 1, dtype=torch.int64),
    "negative": torch.tensor([1, -1]),
    "padding": torch.tensor([-100, 1]),
    "the whole vocabulary back": torch.tensor([-VOCAB, 1]),
    "beyond": torch.tensor([VOCAB, 1]),
    "far beyond": torch.tensor([1, 2**40]),
    "far beyond, int32": torch.tensor([1, 2**30], dtype=torch.int32),
    "floats": torch.tensor([1.0, 2.0]),
    "bools": torch.tensor([True, False]),
    "bytes": torch.tensor([1, 2], dtype=torch.uint8),
    "short": torch.tensor([1, 2], dtype=torch.int16),
    "a list": [1, 2],
    "nothing": None,
    "elsewhere": torch.ones(2, dtype=torch.int64, device="meta"),
}


def decoders(model: HybridLM, cache: Any) -> dict[str, Callable[[Any], Any]]:
    """Return every way to take one more token, by name. A refused call leaves it as it was."""
    graphs = GraphSteps(model, cache, 2, lambda run, held: run)
    started = steps.prepare(model, model.start(9))
    started.step(torch.tensor([1, 2]))
    return {
        "prepared": steps.prepare(model, cache).step,
        "eager": steps.EagerSteps(model, cache).step,
        "graphs": graphs.step,
        "started": started.step,
        "decode": lambda ids_B: generate.decode(model, ids_B, cache),
        "model": lambda ids_B: model(ids_B if ids_B is None else ids_B[:, None], cache),
    }


def wrong_steps() -> Iterator[Call]:
    """Yield steps with wrong ids, after a right one and before."""
    for name in DECODED:
        for ops in (CPU, REFERENCE):
            model = build(SPECS[name], ops=ops)
            _, cache = generate.prefill(model, torch.arange(10).view(2, 5), room=4)
            for way, step in decoders(model, cache).items():
                for what, ids_B in WRONG_IDS.items():
                    if way == "model" and what == "a list":  # which has no columns to take
                        continue
                    yield f"{name}, {ops.name}, {way}, {what}", partial(step, ids_B)


def wrong_caches() -> Iterator[Call]:
    """Yield caches of other models and sizes, and what goes with a cache and does not fit it."""
    prompt, ids_B = torch.arange(10).view(2, 5), torch.tensor([1, 2])
    made = {name: build(SPECS[name], ops=CPU) for name in SPECS}
    kept = {name: generate.prefill(model, prompt) for name, model in made.items()}
    for name in DECODED:
        model, (logits_BV, cache) = made[name], kept[name]
        odd = {other: found for other, (_, found) in kept.items() if _differs(cache, found)}
        odd |= {"a state less": cache[:-1], "a state more": [*cache, None], "none": []}
        odd |= {f"state {i}, {what}": found for i, what, found in _changed_states(cache)}
        for what, wrong in odd.items():
            yield f"{name}, prepare, {what}", lambda m=model, c=wrong: steps.prepare(m, c)
            yield f"{name}, model, {what}", lambda m=model, c=wrong: m(ids_B[:, None], c)
        for what, logits in {
            "a row less": logits_BV[1:],
            "a row more": logits_BV.expand(2, -1).repeat(2, 1)[:3],
            "a token less": logits_BV[:, 1:],
            "one extent": logits_BV[0],
        }.items():
            yield (
                f"{name}, go_on, {what}",
                lambda m=model, x=logits, c=cache: [*generate.go_on(m, x, c, tokens=1)],
            )
        for ways in (0, -1, 2.0, None):
            yield f"{name}, branch {ways}", lambda c=cache, w=ways: generate.branch(c, w)
        for what in ({"chunk": 0}, {"chunk": -4}, {"room": -1}, {"room": 1.5}):
            yield (
                f"{name}, prefill {what}",
                lambda m=model, w=what: generate.prefill(m, prompt, **w),
            )


def _differs(cache: Any, other: Any) -> bool:
    shapes = [
        [None if x is None else [t.shape[2:] for t in x.tensors()] for x in c]
        for c in (cache, other)
    ]
    kinds = [[type(x) for x in c] for c in (cache, other)]
    return shapes[0] != shapes[1] or kinds[0] != kinds[1]


def _changed_states(cache: Any) -> Iterator[tuple[int, str, Any]]:
    for i, state in enumerate(cache):
        for what, changed in _changed(state):
            yield i, what, [changed if j == i else x for j, x in enumerate(cache)]
        if len(cache) > 1:
            yield i, "of more rows", [state.branch(2) if j == i else x for j, x in enumerate(cache)]


def _changed(state: Any) -> Iterator[tuple[str, Any]]:
    yield "a word", "word"
    if hasattr(state, "kept"):
        yield "more than there is", state._replace(kept=state.k.x_BCKP.shape[1] + 1)
        yield "less than nothing", state._replace(kept=-1)
        yield "no values", state._replace(v=None)
        return
    yield (
        "longer tail",
        state._replace(tail_BLE=torch.cat([state[0], state[0], state[0][:, :1]], 1)),
    )
    yield "narrow", state._replace(h_BEN=state.h_BEN[:, 1:])
    yield "of whole numbers", state._replace(h_BEN=state.h_BEN.long())


def fuzz(calls: int) -> dict[str, Any]:
    """Return how many calls were refused, and which were not, or not as they should be."""
    refused, wrong = 0, []
    for made in (wrong_ops(calls), wrong_steps(), wrong_caches()):
        for name, call in made:
            print(name, file=sys.stderr)  # the last is what a signal ended
            found = outcome(call)
            if isinstance(found, ERRORS):
                refused += 1
            else:
                wrong.append(f"{name}: {found!r:.200}")
    return {"refused": refused, "wrong": wrong}


def triton() -> Ops:
    from hybrid.ops import GPU

    return GPU["triton"]()


if __name__ == "__main__":
    torch.set_num_threads(1)
    done = {
        "fuzz": lambda: fuzz(int(sys.argv[2])),
        "triton": lambda: disagreements(triton(), ("conv", "scan")),
    }
    print(json.dumps(done[sys.argv[1]]()))
