"""Prepared steps of decoding against the model's own, for every kind of layer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid import generate, layers, steps
from hybrid.graph_steps import GraphSteps
from hybrid.model import build
from hybrid.ops import CPU, REFERENCE, Ops, reference
from hybrid.ops.cpu import attention_step_kernels as kernels
from hybrid.ops.cpu.lane_math import LOG2_E
from hybrid.ops.cpu.lanes import LANES
from hybrid.ops.cpu.run import run, whole
from tests.models import SPECS, VOCAB

PROMPT, MORE = 7, 9


def ids(batch: int, tokens: int) -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return torch.randint(VOCAB, (batch, tokens), generator=draws)


def logits_of(taker: steps.Steps, ids_BT: Tensor) -> Tensor:
    return torch.stack([taker.step(ids_B) for ids_B in ids_BT.unbind(1)], dim=1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", SPECS)
def test_steps_continue_a_prompt_as_the_model_does(name: str, batch: int) -> None:
    model, ids_BT = build(SPECS[name], ops=CPU), ids(batch, PROMPT + MORE)
    with torch.inference_mode():
        whole = model(ids_BT).logits_BTV[:, PROMPT:]
    _, cache = generate.prefill(model, ids_BT[:, :PROMPT])
    taker = steps.prepare(model, cache)
    assert isinstance(taker, steps.CpuSteps)
    for _ in range(2):  # the cache it started from is as it was
        found = logits_of(steps.prepare(model, cache), ids_BT[:, PROMPT:])
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    eager = logits_of(steps.EagerSteps(model, cache), ids_BT[:, PROMPT:])
    torch.testing.assert_close(eager, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mixer-attention_rope", "mixer-attention_window_rope", "hybrid"])
def test_steps_outlast_a_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PAGE", 4)
    model, ids_BT = build(SPECS[name], ops=CPU), ids(1, 40)
    with torch.inference_mode():
        whole = model(ids_BT).logits_BTV[:, 1:]
    _, cache = generate.prefill(model, ids_BT[:, :1])
    found = logits_of(steps.prepare(model, cache), ids_BT[:, 1:])
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_steps_in_bfloat16_are_near(name: str) -> None:
    model, ids_BT = build(SPECS[name], ops=CPU), ids(1, PROMPT + MORE)
    with torch.inference_mode():
        whole = model(ids_BT).logits_BTV[:, PROMPT:]
    with torch.autocast("cpu", torch.bfloat16):
        _, cache = generate.prefill(model, ids_BT[:, :PROMPT])
        found = logits_of(steps.prepare(model, cache), ids_BT[:, PROMPT:])
    torch.testing.assert_close(found, whole, rtol=0.1, atol=0.05 * whole.abs().max().item())


def attended(q_BHP: Tensor, memory: list[Any], low: int, high: int, piece: int) -> Tensor:
    """Return what the kernels add to a stream of zeros, with the identity as projection."""
    B, H, P = q_BHP.shape
    q = np.zeros((B, H, whole(P)), np.float32)
    q[:, :, :P] = q_BHP * float(LOG2_E) / P**0.5
    pieces, stream = -(-(high - low) // piece), np.zeros((B, H * P), np.float32)
    parts = np.full((B, pieces, H, whole(P) + LANES), np.nan, np.float32)
    identity = np.eye(H * P, whole(H * P), dtype=np.float32)
    run(kernels.attend_pieces, B * pieces, 1, q, *memory, low, high, piece, parts)
    kernels.attention_end(stream, identity, P, parts)
    return torch.from_numpy(stream).view(B, H, P)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("H", "K", "P"), [(4, 2, 32), (3, 1, 20), (2, 2, 16), (8, 2, 6)])
def test_pieces_of_the_past_make_one_softmax(
    H: int, K: int, P: int, batch: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where tokens end within lanes or fours, and what lies around them is not a number."""
    draws = torch.Generator().manual_seed(4)
    q_BHP = 3 * torch.randn(batch, H, P, generator=draws)
    k, v = (torch.randn(batch, 75, K, P, generator=draws).to(dtype) for _ in range(2))
    for low, high in [(0, 1), (0, 15), (0, 16), (3, 21), (0, 32), (7, 75)]:
        hidden = torch.ones(75, dtype=torch.bool)
        hidden[low:high] = False
        memory = [steps._pages(x.masked_fill(hidden[:, None, None], float("nan"))) for x in (k, v)]
        seen = (x[:, low:high].float() for x in (k, v))
        whole_BHP = reference.attend(q_BHP[:, None], *seen, None)[:, 0]
        found = attended(q_BHP, memory, low, high, 16)
        torch.testing.assert_close(found, whole_BHP, rtol=1e-5, atol=1e-6)
        with monkeypatch.context() as patch:
            patch.setattr("hybrid.ops.cpu.run.INLINE", 0)
            assert attended(q_BHP, memory, low, high, 16).equal(found)  # on several threads
        torch.testing.assert_close(attended(q_BHP, memory, low, high, 64), found)


@pytest.mark.parametrize("name", ["mixer-attention_rope", "mixer-attention_window_rope", "hybrid"])
def test_steps_cross_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PIECE", 16)
    model, ids_BT = build(SPECS[name], ops=CPU), ids(2, 70)
    with torch.inference_mode():
        whole = model(ids_BT).logits_BTV[:, 30:]
    _, cache = generate.prefill(model, ids_BT[:, :30])
    found = logits_of(steps.prepare(model, cache), ids_BT[:, 30:])
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_other_ops_and_large_batches_take_the_models_own_steps() -> None:
    spec = SPECS["hybrid"]
    for model, batch in ((build(spec, ops=REFERENCE), 1), (build(spec, ops=CPU), steps.FEW + 1)):
        _, cache = generate.prefill(model, ids(batch, PROMPT))
        assert isinstance(steps.prepare(model, cache), steps.EagerSteps)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", SPECS)
def test_steps_between_attentions_keep_their_memory(name: str, batch: int) -> None:
    """What CUDA records as graphs, run without one: outputs agree, addresses stay."""
    model, ids_BT = build(SPECS[name], ops=CPU), ids(batch, PROMPT + MORE)
    with torch.inference_mode():
        whole = model(ids_BT).logits_BTV[:, PROMPT:]
    _, cache = generate.prefill(model, ids_BT[:, :PROMPT])
    states: list[Tensor] = []

    def without_graph(run, held):
        states.extend(held)
        return run

    taker = GraphSteps(model, cache, batch, without_graph)
    places = [state.data_ptr() for state in states]
    found = logits_of(taker, ids_BT[:, PROMPT:])
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    assert [state.data_ptr() for state in states] == places


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SPECS)
def test_graphs_continue_a_prompt_as_the_model_does(name: str) -> None:
    model, ids_BT = build(SPECS[name], device="cuda"), ids(2, PROMPT + MORE).cuda()
    with torch.inference_mode():
        whole = model(ids_BT).logits_BTV[:, PROMPT:]
    _, cache = generate.prefill(model, ids_BT[:, :PROMPT])
    taker = steps.prepare(model, cache, graphs=True)
    assert isinstance(taker, GraphSteps)
    found = logits_of(taker, ids_BT[:, PROMPT:])
    torch.testing.assert_close(found, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mixer-mamba", "mixer-attention", "mixer-mamba2", "hybrid"])
@pytest.mark.parametrize("batch", [1, 3])
def test_sequences_that_begin_take_any_number_of_rows(name: str, batch: int) -> None:
    model, ids_BT = build(SPECS[name], ops=CPU), ids(batch, MORE)
    with torch.inference_mode():
        whole = model(ids_BT).logits_BTV
    taker = steps.prepare(model, model.start(MORE))
    torch.testing.assert_close(logits_of(taker, ids_BT), whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=f"ids_B has {batch + 1} rows; the cache holds {batch}"):
        taker.step(torch.zeros(batch + 1, dtype=torch.int64))


def takers(name: str, ops: Ops = CPU) -> dict[str, steps.Steps]:
    model = build(SPECS[name], ops=ops)
    _, cache = generate.prefill(model, ids(2, PROMPT))
    graphs = GraphSteps(model, cache, 2, lambda run, _: run)
    return {
        "prepared": steps.prepare(model, cache),
        "eager": steps.EagerSteps(model, cache),
        "graphs": graphs,
    }


@pytest.mark.parametrize("way", ["prepared", "eager", "graphs"])
@pytest.mark.parametrize("name", ["mixer-mamba", "mixer-attention"])
def test_steps_name_what_is_wrong_with_ids(name: str, way: str) -> None:
    taker = takers(name)[way]
    with pytest.raises(ValueError, match=r"ids_BT? has 3 rows; the cache holds 2"):
        taker.step(torch.tensor([1, 2, 3]))
    with pytest.raises(IndexError, match=r"ids_BT? holds -1; token ids lie in 0\.\.31"):
        taker.step(torch.tensor([1, -1]))
    with pytest.raises(IndexError, match=r"ids_BT? holds 32; token ids lie in 0\.\.31"):
        taker.step(torch.tensor([32, 1]))
    with pytest.raises(TypeError, match=r"ids_B is torch\.float32; token ids are"):
        taker.step(torch.ones(2))
    # A refused step changes nothing.
    again = takers(name)[way].step(torch.tensor([1, 2]))
    assert taker.step(torch.tensor([1, 2])).equal(again)


def test_a_feed_forward_without_a_kernel_takes_the_models_own_steps(monkeypatch) -> None:
    model = build(SPECS["mixer-mamba"], ops=CPU)
    _, cache = generate.prefill(model, ids(1, PROMPT))
    assert isinstance(steps.prepare(model, cache), steps.CpuSteps)
    monkeypatch.delitem(steps.FEED_FORWARDS, layers.MLP)
    assert isinstance(steps.prepare(model, cache), steps.EagerSteps)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("room", [0, 1, 50])
@pytest.mark.parametrize("name", ["mixer-mamba", "mixer-mamba2", "mixer-attention", "hybrid"])
def test_a_prompt_can_be_continued_outside_inference_mode(
    name: str, room: int, recorded: bool
) -> None:
    model, ids_BT = build(SPECS[name], ops=CPU), ids(2, PROMPT + MORE)
    whole = model(ids_BT).logits_BTV[:, PROMPT:]
    logits_BV, cache = generate.prefill(model, ids_BT[:, :PROMPT], room=room)
    decoded_BV, longer = generate.decode(model, ids_BT[:, PROMPT], cache)
    with torch.set_grad_enabled(recorded):
        for start, found in ((PROMPT, cache), (PROMPT + 1, longer)):
            rest = model(ids_BT[:, start:], found).logits_BTV
            torch.testing.assert_close(rest, whole[:, start - PROMPT :], rtol=1e-4, atol=1e-5)
    if recorded:
        rest.sum().backward()
        weight = torch.ones_like(logits_BV, requires_grad=True)
        (weight * logits_BV * decoded_BV).sum().backward()


def test_a_branch_of_no_sequences_is_refused() -> None:
    for name in ("mixer-mamba", "mixer-attention"):
        model = build(SPECS[name], ops=CPU)
        _, cache = generate.prefill(model, ids(1, PROMPT))
        for ways in (0, -1):
            with pytest.raises(ValueError, match=f"branch: ways is {ways}; it must be 1 or more"):
                generate.branch(cache, ways)
            with pytest.raises(ValueError, match="branch: ways"):
                cache[0].branch(ways)
    with pytest.raises(ValueError, match="branch: ways"):
        generate.branch([None], 0)


def test_loss_wants_a_target_for_each_id() -> None:
    model, ids_BT = build(SPECS["hybrid"], ops=CPU), ids(2, 8)
    for wrong_BT in (ids_BT[:, :4], ids(2, 9), ids(4, 4)):
        with pytest.raises(ValueError, match="loss: target_BT has shape"):
            model.loss(ids_BT, wrong_BT)
    with pytest.raises(TypeError, match=r"target_n is torch\.float32"):
        model.loss(ids_BT, ids_BT.float())
    with pytest.raises(IndexError, match=r"target \d+ must lie in 0\.\.31"):
        model.loss(ids_BT, ids_BT + VOCAB)
