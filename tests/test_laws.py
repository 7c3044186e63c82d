"""Laws that hold for every kind of layer, on every implementation of the ops."""

import pytest
import torch
from torch import Tensor

from hybrid import cost, ops
from hybrid.generate import cache_bytes
from hybrid.model import HybridLM, build
from hybrid.spec import ModelSpec
from tests.models import SPECS, VOCAB

TOKENS = 12


@pytest.fixture(params=ops.ALL.values(), ids=ops.ALL)
def backend(request) -> ops.Ops:
    return request.param


@pytest.fixture(params=SPECS.values(), ids=SPECS)
def spec(request) -> ModelSpec:
    return request.param


@pytest.fixture
def model(spec, backend) -> HybridLM:
    return build(spec, ops=backend)


def ids(batch: int = 2) -> Tensor:
    return torch.randint(VOCAB, (batch, TOKENS), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cut", [1, 7])
def test_the_future_never_reaches_the_past(model, cut):
    altered = ids()
    altered[:, cut:] = (altered[:, cut:] + 1) % VOCAB
    before, after = model(ids()).logits_BTV, model(altered).logits_BTV
    torch.testing.assert_close(before[:, :cut], after[:, :cut])
    assert not torch.allclose(before[:, cut:], after[:, cut:])


@pytest.mark.parametrize("pieces", [[1] * TOKENS, [4, 1, 1, 6], [11, 1], [1, 11]])
def test_decoding_in_pieces_equals_one_pass(model, pieces):
    whole = model(ids()).logits_BTV
    cache, parts = None, []
    for piece in ids().split(pieces, dim=1):
        output = model(piece, cache)
        cache = output.cache
        parts.append(output.logits_BTV)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_predicted_parameters_equal_allocated_ones(spec, model):
    assert cost.params(spec) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("tokens", [1, 4, TOKENS])
def test_predicted_cache_equals_the_one_held(spec, model, tokens):
    with torch.no_grad():
        cache = model(ids()[:, :tokens]).cache
    assert cost.cache_bytes(spec, batch=2, tokens=tokens, itemsize=4) == cache_bytes(cache)


def test_same_seed_same_weights_bit_for_bit(spec, model, backend):
    again, other = build(spec, ops=backend), build(spec, ops=backend, seed=1)
    assert torch.equal(model(ids()).logits_BTV, again(ids()).logits_BTV)
    assert not torch.equal(model(ids()).logits_BTV, other(ids()).logits_BTV)


def test_saved_and_loaded_is_equal(spec, model, backend, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = build(spec, ops=backend, seed=1)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(model(ids()).logits_BTV, other(ids()).logits_BTV)


def test_every_parameter_has_a_gradient(model):
    output = model(ids())
    balance = sum((r.probability_X * r.load_X).sum() for r in output.routings)
    loss = torch.nn.functional.cross_entropy(output.logits_BTV.flatten(0, 1), ids().flatten())
    (loss + balance).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_backends_agree_on_logits_and_gradients(spec, backend):
    def logits_and_gradients(chosen: ops.Ops):
        model = build(spec, ops=chosen)
        logits = model(ids()).logits_BTV
        logits.square().mean().backward()
        return logits, {name: p.grad for name, p in model.named_parameters()}

    logits, gradients = logits_and_gradients(backend)
    true_logits, true_gradients = logits_and_gradients(ops.REFERENCE)
    torch.testing.assert_close(logits, true_logits, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients, true_gradients, rtol=1e-3, atol=1e-7)
