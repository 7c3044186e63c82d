"""Parity with transformers' Jamba, both ways."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors import torch as safetensors_torch

from hybrid import cost, huggingface, ops
from hybrid.generate import sample
from hybrid.layers.moe import Routing, balance_loss
from hybrid.spec import Attention
from tests.huggingface.jambas import HYBRID, SPECS, TOKENS, close, has_router, ids, lm_loss, ours_of
from tests.huggingface.theirs import opened, theirs_of


@pytest.fixture(scope="module", params=SPECS.values(), ids=SPECS)
def pair(request, tmp_path_factory):
    """(spec, our random model, its folder, the same opened with transformers)."""
    folder = tmp_path_factory.mktemp("ours") / "model"
    ours = ours_of(request.param)
    huggingface.save(ours, folder)
    return request.param, ours, folder, opened(folder)


# --- ours opened with theirs


def test_our_model_has_the_same_logits_in_theirs(pair):
    _, ours, _, theirs = pair
    close(ours(ids()).logits_BTV, theirs(ids(), use_cache=False).logits)


def test_our_model_has_the_same_losses_in_theirs(pair):
    spec, ours, _, theirs = pair
    routed = has_router(spec)
    output = theirs(ids(), labels=ids(), use_cache=False, output_router_logits=routed)
    loss = lm_loss(ours, ids())
    if routed:
        balance = huggingface.pooled_balance_loss(ours(ids()).routings)
        close(balance, output.aux_loss)
        loss = loss + theirs.config.router_aux_loss_coef * balance
    close(loss, output.loss)


def test_greedy_decoding_agrees_token_for_token(pair):
    spec, ours, _, theirs = pair
    cached = any(type(layer.mixer) is Attention for layer in spec.layers)  # theirs raises without
    chosen = theirs.generate(ids(), do_sample=False, max_new_tokens=8, use_cache=cached)
    mine = torch.stack([*sample(ours, ids(), tokens=8)], dim=1)
    assert torch.equal(mine, chosen[:, TOKENS:])


def test_single_steps_after_one_prefill_have_the_same_logits(pair):
    spec, ours, _, theirs = pair
    if not any(type(layer.mixer) is Attention for layer in spec.layers):
        return  # their cache raises
    cache, past = None, None
    for piece in ids().split([7] + [1] * (TOKENS - 7), dim=1):
        output = theirs(piece, past_key_values=past, use_cache=True)
        past = output.past_key_values
        logits_BTV, cache, _ = ours(piece, cache)
        close(logits_BTV, output.logits)


def test_both_have_the_parameters_that_were_predicted(pair):
    spec, ours, _, theirs = pair
    assert cost.params(spec) == sum(p.numel() for p in theirs.parameters())
    assert cost.params(spec) == sum(p.numel() for p in ours.parameters())


def test_saved_and_loaded_is_equal_bit_for_bit(pair):
    spec, ours, folder, _ = pair
    again = huggingface.load(folder, ops=ops.REFERENCE)
    assert again.spec == spec
    assert again.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], p) for name, p in ours.state_dict().items())
    assert (again.head.weight is again.embed.weight) == spec.tied
    assert all(p.requires_grad and p.dtype == torch.float32 for p in again.parameters())


def test_the_configuration_comes_back_from_theirs(pair):
    spec, _, folder, theirs = pair
    assert huggingface.spec_of(json.loads((folder / "config.json").read_text())) == spec
    assert huggingface.spec_of(theirs.config.to_dict()) == spec
    assert theirs.config.pad_token_id is None


# --- theirs opened with ours


@pytest.fixture(scope="module", params=SPECS.values(), ids=SPECS)
def their_pair(request, tmp_path_factory):
    """(the spec, their random model, its folder)."""
    folder = tmp_path_factory.mktemp("theirs")
    theirs = theirs_of(request.param)
    theirs.save_pretrained(folder)
    return request.param, theirs, folder


@pytest.mark.parametrize("backend", [ops.REFERENCE, ops.CPU], ids=lambda each: each.name)
def test_their_model_has_the_same_logits_in_ours(their_pair, backend):
    spec, theirs, folder = their_pair
    ours = huggingface.load(folder, ops=backend)
    assert ours.spec == spec
    close(ours(ids()).logits_BTV, theirs(ids(), use_cache=False).logits)


def test_their_tensors_come_back_bit_for_bit(their_pair, tmp_path):
    folder = their_pair[2]
    huggingface.save(huggingface.load(folder), tmp_path / "again")
    files = [path / "model.safetensors" for path in (folder, tmp_path / "again")]
    before, after = map(safetensors_torch.load_file, files)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    their_metadata, our_metadata = (safe_open(x, framework="pt").metadata() for x in files)
    assert our_metadata == their_metadata


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_the_whole_loss_agree(tied, tmp_path):
    spec = replace(HYBRID, tied=tied)
    theirs = theirs_of(spec)
    theirs.save_pretrained(tmp_path / "weights")
    theirs(ids(), labels=ids(), use_cache=False, output_router_logits=True).loss.backward()
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    theirs.save_pretrained(tmp_path / "gradients")
    gradients = dict(huggingface.load(tmp_path / "gradients").named_parameters())

    ours = huggingface.load(tmp_path / "weights", ops=ops.REFERENCE)
    balance = huggingface.pooled_balance_loss(ours(ids()).routings)
    (lm_loss(ours, ids()) + theirs.config.router_aux_loss_coef * balance).backward()
    for name, parameter in ours.named_parameters():
        assert parameter.grad.any()
        close(parameter.grad, gradients[name], allowed=2e-4)


def test_bf16_weights_are_read_as_fp32(tmp_path):
    theirs = theirs_of(HYBRID).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    ours = huggingface.load(tmp_path, ops=ops.REFERENCE)
    assert ours.embed.weight.dtype == torch.float32
    close(ours(ids()).logits_BTV, theirs.float()(ids()).logits)


# --- the pooled balance loss


def test_pooled_and_separate_balance_differ_when_layers_excuse_each_other():
    first = Routing(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
    second = Routing(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert huggingface.pooled_balance_loss((first, second)) == 1
    assert balance_loss((first, second)) == 2
    assert huggingface.pooled_balance_loss((first,)) == balance_loss((first,)) == 2


def test_pooling_needs_routers_of_one_size():
    two = Routing(torch.ones(2), torch.ones(2))
    for routings in [(), (two, Routing(torch.ones(3), torch.ones(3)))]:
        with pytest.raises(ValueError, match="at least one router, all with the same number"):
            huggingface.pooled_balance_loss(routings)
