"""The device that was asked for is the one that is taken, or an error says what there is."""

from dataclasses import replace

import pytest
import torch

from hybrid.model import build
from sweeps.trial.device import choose_device
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Label
from sweeps.trial.run import run_id
from sweeps.workers.jobs import resolved
from tests.models import SPECS


@pytest.fixture
def two_gpus(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("asked", "taken"),
    [("auto", "cuda"), ("cuda", "cuda"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu",) * 2],
)
def test_a_job_runs_on_what_was_asked_for(two_gpus, asked: str, taken: str) -> None:
    assert resolved(Engine(device=asked, ops="torch")).device == taken
    assert str(choose_device(asked)) == taken


@pytest.mark.parametrize("asked", ["cuda:2", "cuda:7"])
def test_a_gpu_that_is_not_there_is_refused(two_gpus, asked: str) -> None:
    with pytest.raises(ValueError, match=rf"device='{asked}': torch sees 2 CUDA devices"):
        resolved(Engine(device=asked))


@pytest.mark.parametrize("asked", ["", "gpu", "cpu:0", "cpu:1", "cuda:", "cuda:-1", "cuda:01"])
def test_what_is_no_device_is_refused(two_gpus, asked: str) -> None:
    with pytest.raises(ValueError, match="must be auto, cpu, cuda or cuda:N"):
        choose_device(asked)


def test_which_gpu_it_was_is_no_part_of_a_runs_name(two_gpus) -> None:
    label = Label(sweep="s", scale="t", arm="a")
    recipe = replace(Recipe(steps=1, batch=1, tokens=8, lr=1e-3), precision=Precision.FP32)
    names = {
        run_id(SPECS["hybrid"], recipe, label=label, engine=Engine(device=device, ops="torch"))
        for device in ("cuda", "cuda:0", "cuda:1")
    }
    assert len(names) == 1


def test_a_gpu_is_not_there_without_any() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="sees no CUDA device here"):
        choose_device("cuda:1")
    build(SPECS["mixer-mamba"], device=choose_device("auto"))
