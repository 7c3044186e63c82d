"""A run that was cut off goes on as if nothing had happened, to the last bit."""

import contextlib
import json
import logging
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sweeps.trial import run as run_module
from sweeps.trial.checkpoint import FILE, Checkpoints
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Outcome, Record
from sweeps.trial.run import run
from sweeps.trial.train import Step
from tests.disks import fill, make_room, mounted
from tests.models import SPECS

HERE = Engine(device="cpu")
SPEC = replace(SPECS["hybrid"], vocab=300)
STEPS = 12


class CutOff(BaseException):
    """As sudden as a kill to the code that runs, and the test lives on."""


@pytest.fixture
def recipe(source) -> Recipe:
    return Recipe(
        source=source,
        steps=STEPS,
        batch=4,
        tokens=32,
        lr=3e-3,
        precision=Precision.FP32,
        valid_tokens=256,
        contexts=(8,),
    )


class Seen:
    """What a run shows, its weights included; `cut_at` is the step after which it is cut off."""

    def __init__(self, recipe: Recipe, folder: Path | None = None, cut_at: int | None = None):
        self.curve: list[Step] = []
        self.cut_at = cut_at
        self.record: Record | None = None
        self.weights: dict[str, torch.Tensor] = {}
        checkpoints = folder and Checkpoints(folder=folder, every_seconds=0)
        with contextlib.suppress(CutOff):
            self.record = run(
                SPEC, recipe, engine=HERE, watch=self.watch, keep=self.keep, checkpoints=checkpoints
            )

    def watch(self, step: Step) -> None:
        self.curve.append(step)
        if step.step == self.cut_at:
            raise CutOff

    def keep(self, model) -> None:
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}


def exact(curve: list[Step]) -> list[dict]:
    """Everything of a curve but the clock."""
    return [{k: v for k, v in asdict(step).items() if k != "seconds"} for step in curve]


def assert_same_run(seen: Seen, whole: Seen) -> None:
    assert exact(seen.curve) == exact(whole.curve)
    assert seen.weights.keys() == whole.weights.keys()
    assert all(torch.equal(seen.weights[name], p) for name, p in whole.weights.items())
    assert seen.record.valid_bits_per_byte == whole.record.valid_bits_per_byte


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_run_cut_off_several_times_equals_one_that_was_not(recipe, tmp_path, precision):
    recipe = replace(recipe, precision=precision, batch=2, tokens=8)  # bf16 may be emulated
    whole = Seen(recipe)
    assert whole.record.resumed_steps == []
    for cut_at in (0, 4, 5, STEPS - 1):
        Seen(recipe, tmp_path, cut_at)
    last = Seen(recipe, tmp_path)
    assert_same_run(last, whole)
    assert last.record.resumed_steps == [1, 5, 6, STEPS]
    assert last.record.train_tokens == whole.record.train_tokens


def test_the_seconds_before_an_interruption_count(recipe, tmp_path):
    first = Seen(recipe, tmp_path, cut_at=5)
    last = Seen(recipe, tmp_path)
    assert [s.seconds for s in last.curve[:6]] == [s.seconds for s in first.curve]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def not_safetensors(path: Path) -> None:
    path.write_bytes(b"not safetensors" * 1000)


def rewritten(path: Path, change) -> None:
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["checkpoint"])
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(about, tensors)
    save_file(tensors, path, {"checkpoint": json.dumps(about)})


def older(path: Path) -> None:
    rewritten(path, lambda about, tensors: about.update(format=0))


def plain_weights(path: Path) -> None:
    save_file(load_file(path), path)


def another_shape(path: Path) -> None:
    rewritten(path, lambda about, tensors: tensors.update({"model.norm.weight": torch.ones(3)}))


def one_missing(path: Path) -> None:
    rewritten(path, lambda about, tensors: tensors.pop("adamw.exp_avg.norm.weight"))


def one_too_many(path: Path) -> None:
    rewritten(path, lambda about, tensors: tensors.update(more=torch.ones(3)))


def a_curve_with_a_gap(path: Path) -> None:
    rewritten(path, lambda about, tensors: about.update(next_step=3))


DAMAGES = [
    half,
    nothing,
    not_safetensors,
    older,
    plain_weights,
    another_shape,
    one_missing,
    one_too_many,
    a_curve_with_a_gap,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_checkpoint_that_does_not_fit_is_set_aside(recipe, tmp_path, caplog, damage):
    recipe = replace(recipe, steps=3)
    Seen(recipe, tmp_path, cut_at=1)
    damage(tmp_path / FILE)
    anew = Seen(recipe, tmp_path)
    assert anew.record.outcome is Outcome.COMPLETE
    assert anew.record.resumed_steps == []
    assert exact(anew.curve) == exact(Seen(recipe).curve)
    assert "the run starts anew" in caplog.text
    assert (tmp_path / f"{FILE}.set-aside").exists()


def test_a_checkpoint_of_another_run_is_set_aside(recipe, tmp_path, caplog):
    Seen(recipe, tmp_path, cut_at=1)
    other = Seen(replace(recipe, lr=1e-3, steps=3), tmp_path)
    assert other.record.resumed_steps == []
    assert "is of another run" in caplog.text


def test_what_a_killed_process_half_wrote_is_cleared(recipe, tmp_path):
    scratch = tmp_path / f".{FILE}.0123.tmp"
    scratch.write_bytes(b"half")
    Seen(replace(recipe, steps=1), tmp_path)
    assert not scratch.exists()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    with mounted(tmp_path / "small", "1m") as folder:
        yield folder


def test_a_full_disk_costs_checkpoints_and_not_the_run(recipe, small_disk, caplog):
    fill(small_disk, leave_bytes=16_384)
    full = Seen(replace(recipe, steps=3), small_disk)
    assert full.record.outcome is Outcome.COMPLETE
    assert exact(full.curve) == exact(Seen(replace(recipe, steps=3)).curve)
    warned = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert ["no checkpoint after step" in r.getMessage() for r in warned] == [True] * 3
    assert [p.name for p in small_disk.iterdir()] == ["filler"]


def test_a_checkpoint_survives_a_disk_that_fills_up_later(recipe, small_disk):
    whole = Seen(recipe)
    Seen(recipe, small_disk, cut_at=4)
    fill(small_disk, leave_bytes=4096)
    Seen(recipe, small_disk, cut_at=8)  # can write none: the one after step 4 stays
    make_room(small_disk)
    last = Seen(recipe, small_disk)
    assert_same_run(last, whole)
    assert last.record.resumed_steps == [5]


def test_the_speeds_may_come_first_and_change_nothing(recipe):
    events: list = []
    recipe = replace(recipe, steps=3)
    record = run(SPEC, recipe, engine=HERE, watch=events.append, cheap_first=True)
    plain = Seen(recipe)
    assert events[0].decode_ms == record.decode_ms
    assert exact(events[1:]) == exact(plain.curve)
    assert record.valid_bits_per_byte == plain.record.valid_bits_per_byte
    assert record.cache_bytes == plain.record.cache_bytes


@pytest.mark.parametrize("cheap_first", [False, True])
def test_a_stopped_run_is_pruned_and_keeps_what_was_measured(recipe, cheap_first):
    def watch(event) -> None:
        if isinstance(event, Step) and event.step == 4:
            raise run_module.Stop("worse than the median at step 4")

    record = run(SPEC, recipe, engine=HERE, watch=watch, cheap_first=cheap_first)
    assert record.outcome is Outcome.PRUNED
    assert record.outcome.settled
    assert record.error == "worse than the median at step 4"
    assert record.train_tokens == 5 * 4 * 32
    assert record.train_nats_per_token > 1
    assert record.train_peak_bytes > 0
    assert record.valid_bits_per_byte is None
    assert (record.decode_ms is not None) == cheap_first


@pytest.mark.slow
def test_cut_off_at_random_steps(recipe, tmp_path):
    recipe = replace(recipe, steps=40)
    whole = Seen(recipe)
    draws = random.Random(0)
    at = 0
    while at < 39:
        at = min(39, at + draws.randint(0, 5))
        Seen(recipe, tmp_path, cut_at=at)
        at += 1
    assert_same_run(Seen(recipe, tmp_path), whole)
