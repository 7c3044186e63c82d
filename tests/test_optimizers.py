"""The optimisers of a training run: who moves which weights, at which rate, and how they go on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hybrid import codec, cost
from hybrid.layers import MoE
from hybrid.model import HybridLM, build
from hybrid.spec import Init, ModelSpec
from sweeps import results
from sweeps.trial import records
from sweeps.trial.engine import Engine, Parallel
from sweeps.trial.optimizers import build_optimizer
from sweeps.trial.recipe import WSD, OptimizerName, Precision, Recipe
from sweeps.trial.state import copied, put_back, tensors_of
from sweeps.trial.train import train
from tests.models import SPECS, VOCAB

ROOT = Path(__file__).parents[1]
MUON = Recipe(steps=4, batch=4, tokens=8, lr=1e-2, optimizer=OptimizerName.MUON)
HYBRID = SPECS["hybrid"]


def random_tokens(step: int):
    draws = torch.Generator().manual_seed(step)
    ids_BT = torch.randint(VOCAB, (4, 9), generator=draws)
    return ids_BT[:, :-1], ids_BT[:, 1:]


def trained(spec: ModelSpec, recipe: Recipe) -> HybridLM:
    model = build(spec)
    list(train(model, build_optimizer(model, recipe), random_tokens, recipe, Precision.FP32))
    return model


def same(model: HybridLM, other: HybridLM) -> bool:
    both = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in both)


@pytest.mark.parametrize("name", SPECS)
def test_muon_moves_the_matrices_inside_layers_and_adamw_the_rest(name):
    model = build(SPECS[name])
    optimizer = build_optimizer(model, MUON)
    wanted = {
        f"blocks.{path}.{own}"
        for path, module in model.blocks.named_modules()
        if isinstance(module, nn.Linear | MoE)
        for own, _ in module.named_parameters()
    }
    assert optimizer.matrices.keys() == wanted
    assert optimizer.named.keys() == dict(model.named_parameters()).keys() - wanted


@pytest.mark.parametrize("name", SPECS)
def test_the_state_of_an_optimizer_is_what_arithmetic_counts(name):
    model = build(SPECS[name])
    sizes = {"batch": 4, "tokens": 8, "itemsize": 4}
    for recipe, muon in ((MUON, True), (replace(MUON, optimizer=OptimizerName.ADAMW), False)):
        optimizer = build_optimizer(model, recipe)
        list(train(model, optimizer, random_tokens, recipe, Precision.FP32))
        state = sum(x.numel() for x in optimizer.tensors().values() if x.ndim > 0)
        counted = cost.training_bytes(SPECS[name], **sizes, muon=muon)
        assert 4 * state == counted.optimizer
        with_branches = cost.training_bytes(SPECS[name], **sizes, muon=muon, branches=True)
        assert with_branches.trunk == counted.weights + counted.optimizer
        assert with_branches.total == counted.total + with_branches.trunk
        assert counted.trunk == 0


def test_each_expert_is_moved_as_a_matrix_of_its_own():
    """By torch's Muon on one expert alone, of the gradient of this step."""
    model = build(SPECS["feed_forward-moe"])
    experts = model.blocks[0].feeding.feed_forward.gate_up_XFD
    before = experts.detach().clone()
    draws = torch.Generator().manual_seed(0)
    experts.grad = torch.randn(experts.shape, generator=draws)
    optimizer = build_optimizer(model, MUON)
    optimizer.set_lr(0.5 * MUON.lr)
    optimizer.step()
    for x in range(len(before)):
        alone = nn.Parameter(before[x].clone())
        alone.grad = experts.grad[x].clone()
        torch.optim.Muon(
            [alone], lr=0.5 * MUON.lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ).step()
        assert torch.equal(experts[x], alone)
    assert not torch.equal(experts, before)


def test_an_update_of_muon_is_as_large_as_one_of_adamw():
    """Root mean square 0.2 of the rate, within what five Newton-Schulz iterations leave."""
    model = build(replace(HYBRID, width=64))
    recipe = replace(MUON, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, recipe)
    draws = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draws)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if name in optimizer.matrices:
            moved = (parameter - before[name]).square().mean().sqrt().item()
            assert 0.1 < moved / recipe.lr < 0.3, name


@pytest.mark.parametrize("name", list(OptimizerName))
def test_a_state_goes_out_and_comes_back_to_the_last_bit(name):
    recipe = replace(MUON, steps=6, optimizer=name)
    whole, model = build(HYBRID), build(HYBRID)
    list(train(whole, build_optimizer(whole, recipe), random_tokens, recipe, Precision.FP32))
    optimizer = build_optimizer(model, recipe)
    steps = train(model, optimizer, random_tokens, recipe, Precision.FP32)
    for _ in range(3):
        next(steps)
    state = copied(tensors_of(model, optimizer))
    next(steps)  # the copy does not follow
    other = build(HYBRID, seed=1)
    fresh = build_optimizer(other, recipe)
    put_back(other, fresh, state)
    list(train(other, fresh, random_tokens, recipe, Precision.FP32, first_step=3))
    assert same(whole, other)


def test_a_state_from_before_the_first_step_comes_back_too():
    model = build(HYBRID)
    optimizer = build_optimizer(model, MUON)
    start = copied(tensors_of(model, optimizer))
    list(train(model, optimizer, random_tokens, MUON, Precision.FP32))
    put_back(model, optimizer, start)
    assert optimizer.tensors().keys() == {x for x in start if x.startswith("muon.")}
    list(train(model, optimizer, random_tokens, MUON, Precision.FP32))
    assert same(model, trained(HYBRID, MUON))


def test_rates_scale_with_the_width_and_the_decay_of_a_step_does_not():
    model = build(replace(HYBRID, init=Init.MUP, width=64))
    recipe = Recipe(steps=4, batch=4, tokens=8, lr=1e-2, lr_base_width=16)
    optimizer = build_optimizer(model, recipe)
    optimizer.set_lr(1.0)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["lr"] * group["weight_decay"])
        for group in optimizer.adamw.param_groups
        for p in group["params"]
    }
    assert found.keys() == set(names.values())
    assert found["head.weight"] == found["blocks.0.mixing.mixer.in_proj.weight"] == (0.25, 0.1)
    assert found["embed.weight"] == (1.0, 0.1)
    assert found["norm.weight"] == found["blocks.0.mixing.mixer.a_log_EN"] == (1.0, 0.0)


def test_what_does_not_go_together_is_refused():
    recipe = replace(MUON, optimizer=OptimizerName.ADAMW, lr_base_width=16)
    with pytest.raises(ValueError, match=r"lr_base_width=16 needs ModelSpec\.init=mup, got normal"):
        build_optimizer(build(HYBRID), recipe)
    with pytest.raises(ValueError, match="lr_base_width=16 is for optimizer=adamw"):
        replace(recipe, optimizer=OptimizerName.MUON)
    with pytest.raises(ValueError, match="optimizer='sgd' must be one of adamw, muon"):
        replace(MUON, optimizer="sgd")
    with pytest.raises(ValueError, match="lr_base_width=0 must be"):
        replace(recipe, lr_base_width=0)


@pytest.mark.parametrize("parallel", [Parallel.DDP, Parallel.FSDP])
def test_muon_of_several_processes_is_refused(parallel):
    from sweeps.trial.attempt import Attempt

    attempt = Attempt.__new__(Attempt)
    attempt.recipe, attempt.engine = MUON, Engine(device="cpu", parallel=parallel)
    with pytest.raises(ValueError, match=f"parallel={parallel} needs optimizer=adamw, got muon"):
        attempt._require_possible()


NEW = ("schedule", "optimizer", "lr_base_width", "test_tokens", "measure_context")


def test_what_is_new_in_a_recipe_is_not_written_at_its_default():
    plain = Recipe(steps=4, batch=4, tokens=8, lr=1e-2)
    assert not set(NEW) & codec.encode(plain).keys()
    assert "init" not in codec.encode(HYBRID)
    full = Recipe(
        steps=10,
        batch=4,
        tokens=64,
        lr=1e-2,
        schedule=WSD(warmup_steps=1, branches=(5,)),
        optimizer=OptimizerName.MUON,
        test_tokens=None,
        measure_context=True,
    )
    assert codec.loads(Recipe, codec.dumps(full)) == full
    assert set(NEW) - codec.encode(full).keys() == {"lr_base_width"}
    spec = replace(HYBRID, init=Init.FAN_IN)
    assert codec.loads(ModelSpec, codec.dumps(spec)) == spec


def test_recipes_of_committed_records_keep_their_text():
    """Those of the last records before the new fields, from which run_ids are hashed."""
    found = [
        record
        for folder in results.sweeps(ROOT / results.PUBLISHED)
        for record in records.read(folder)
        if '"measure_heads"' in record.recipe
    ]
    for record in found:
        assert codec.dumps(codec.loads(Recipe, record.recipe)) == record.recipe
        assert codec.dumps(codec.loads(ModelSpec, record.spec)) == record.spec
    assert found
