"""One trial end to end, on a small text: what it records, and how it fails."""

import errno
import json
from dataclasses import replace

import pytest
import torch

from hybrid import cost
from hybrid.cost import Weights
from sweeps.trial import attempt as attempt_module
from sweeps.trial import parallel
from sweeps.trial import run as run_module
from sweeps.trial.data.streams import OtherText
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import MachineError, Outcome
from sweeps.trial.run import run, run_id
from sweeps.trial.train import Step
from tests.models import SPECS

SPEC = replace(SPECS["hybrid"], vocab=300)


@pytest.fixture
def recipe(source) -> Recipe:
    return Recipe(
        source=source,
        steps=4,
        batch=4,
        tokens=32,
        lr=3e-3,
        precision=Precision.FP32,
        valid_tokens=512,
        contexts=(16, 40),
    )


def test_a_record_holds_what_was_seen(recipe):
    seen: list[Step] = []
    record = run(SPEC, recipe, engine=Engine(device="cpu"), watch=seen.append)
    assert record.outcome is Outcome.COMPLETE, record.error
    assert record.error is None
    assert record.params == cost.params(SPEC)
    assert record.train_tokens == seen[-1].tokens == 4 * 4 * 32
    assert record.train_nats_per_token == seen[-1].nats_per_token
    assert list(record.valid_bits_per_byte) == ["text"]
    assert 1 < record.valid_bits_per_byte["text"] < 8
    assert record.train_tokens_per_s > 0
    assert set(record.decode_ms) == set(record.prefill_tokens_per_s) == {16, 40}
    assert record.cache_bytes == {
        c: cost.cache_bytes(SPEC, batch=1, tokens=c, itemsize=4) for c in (16, 40)
    }
    assert record.train_peak_bytes >= record.baseline_bytes > 0
    assert (record.ops, record.precision, record.device) == ("cpu", "fp32", "cpu")
    assert json.loads(record.recipe)["source"]["path"].endswith("tale.txt")
    loads = torch.tensor(record.expert_load)
    torch.testing.assert_close(loads.sum(dim=1), torch.tensor([2.0, 2.0]))


def test_same_seed_same_losses_bit_for_bit(recipe):
    first, second = (run(SPEC, recipe, engine=Engine(device="cpu")) for _ in range(2))
    other = run(SPEC, replace(recipe, seed=1), engine=Engine(device="cpu"))
    assert first.run_id == second.run_id != other.run_id
    assert first.valid_bits_per_byte == second.valid_bits_per_byte != other.valid_bits_per_byte


def test_training_lowers_the_held_out_loss(recipe):
    few, many = (run(SPEC, replace(recipe, steps=s), engine=Engine(device="cpu")) for s in (1, 60))
    assert many.valid_bits_per_byte["text"] < few.valid_bits_per_byte["text"] - 0.5


def test_a_loss_that_is_not_finite_is_an_outcome(recipe):
    record = run(SPEC, replace(recipe, lr=1e30, steps=20, warmup=0.0), engine=Engine(device="cpu"))
    assert record.outcome is Outcome.DIVERGED
    assert "the training loss of step" in record.error
    assert record.valid_bits_per_byte is None
    assert record.train_tokens < 20 * 4 * 32


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("boom"), Outcome.FAILED),
        (MemoryError(), Outcome.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), Outcome.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Outcome.OUT_OF_MEMORY),
    ],
)
def test_what_goes_wrong_inside_is_an_outcome(recipe, monkeypatch, error, outcome):
    def broken(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(parallel, "build", broken)
    record = run(SPEC, recipe, engine=Engine(device="cpu"))
    assert record.outcome is outcome
    assert type(error).__name__ in record.error


def test_ctrl_c_comes_out(recipe):
    def interrupt(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SPEC, recipe, engine=Engine(device="cpu"), watch=interrupt)


def test_a_missing_text_is_an_error_that_says_where(recipe):
    lost = replace(recipe, source=replace(recipe.source, path="nowhere.txt"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        run(SPEC, lost, engine=Engine(device="cpu"))


NO_ROOM = OSError(errno.ENOSPC, "No space left on device")
BUSY = RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")


@pytest.mark.parametrize("error", [NO_ROOM, BUSY, ModuleNotFoundError("pip"), OtherText("changed")])
def test_what_a_machine_lacks_is_no_outcome(recipe, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(attempt_module, "open_material", fail)
    with pytest.raises(MachineError, match="cannot run on this machine: "):
        run(SPEC, recipe, engine=Engine(device="cpu"))


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), RuntimeError("no")])
def test_what_a_trial_does_wrong_is_its_outcome(recipe, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(attempt_module, "open_material", fail)
    outcome = run(SPEC, recipe, engine=Engine(device="cpu")).outcome
    assert outcome is (Outcome.OUT_OF_MEMORY if isinstance(error, MemoryError) else Outcome.FAILED)


def test_a_wrong_device_is_an_error(recipe):
    with pytest.raises(ValueError, match="device='tpu' must be auto, cpu, cuda"):
        run(SPEC, recipe, engine=Engine(device="tpu"))


def test_run_ids_depend_on_what_decides_the_result(recipe):
    label = run_module.SINGLE
    base = run_id(SPEC, recipe, label=label, engine=Engine(device="cpu"))
    assert base == run_id(SPEC, recipe, label=label, engine=Engine(device="cpu"))
    assert base != run_id(SPEC, replace(recipe, lr=1e-3), label=label, engine=Engine(device="cpu"))
    assert base != run_id(
        replace(SPEC, tied=True), recipe, label=label, engine=Engine(device="cpu")
    )


@pytest.mark.parametrize("measure_test", [False, True])
def test_experts_in_8_bits_are_measured_where_the_recipe_asks(recipe, measure_test):
    asked = replace(recipe, measure_int8=True, measure_test=measure_test)
    record = run(SPEC, asked, engine=Engine(device="cpu"))
    assert record.outcome is Outcome.COMPLETE, record.error
    whole = record.test_bits_per_byte if measure_test else record.valid_bits_per_byte
    assert record.int8_bits_per_byte != whole
    assert record.int8_bits_per_byte == pytest.approx(whole, rel=0.01)
    assert record.expert_bytes == cost.expert_bytes(SPEC, Weights.FP32)
    counted = cost.expert_bytes(SPEC, Weights.INT8) + cost.expert_scale_bytes(SPEC)
    assert record.int8_expert_bytes == counted
    assert set(record.int8_decode_ms) == set(record.decode_ms)
    plain = run(SPEC, replace(asked, measure_int8=False), engine=Engine(device="cpu"))
    assert plain.valid_bits_per_byte == record.valid_bits_per_byte
    assert (plain.int8_bits_per_byte, plain.int8_decode_ms) == (None, None)
    assert (plain.expert_bytes, plain.int8_expert_bytes) == (None, None)


def test_8_bits_need_experts(recipe):
    without = replace(SPECS["mixer-mamba"], vocab=300)
    record = run(without, replace(recipe, measure_int8=True), engine=Engine(device="cpu"))
    assert record.outcome is Outcome.FAILED
    assert "measure_int8=True needs a model with experts" in record.error
