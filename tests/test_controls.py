"""Positive controls: what they are made of, and that the smallest of tasks is learned by one."""

import pytest

from hybrid.spec import Attention, Init, Mamba, Mamba2
from sweeps.controls import CONTROLS
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.tasks import Probe, Recall
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import WSD, Criterion, Precision, Recipe
from sweeps.trial.run import run

MIXERS = {
    "hybrid 1:1": [Mamba, Attention, Mamba, Attention],
    "hybrid 1:3": [Mamba, Mamba, Attention, Mamba],
    "two layers of attention, RoPE": [Attention, Attention],
    "Mamba-2, state 64": [Mamba2] * 4,
}


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_are_what_they_are_called(name):
    for width in (32, 64):
        spec = CONTROLS[name](256, width)
        mixers = [layer.mixer for layer in spec.layers]
        assert [type(mixer) for mixer in mixers] == MIXERS[name]
        assert (spec.vocab, spec.width, spec.init) == (256, width, Init.FAN_IN)
        positions = [x.positions for x in mixers if isinstance(x, Attention)]
        assert all((x is not None) == ("RoPE" in name) for x in positions)
        assert all(x.d_state == 64 for x in mixers if isinstance(x, Mamba2))


@pytest.mark.slow
def test_a_control_comes_to_its_criterion_and_stops_there():
    task = Recall()
    recipe = Recipe(
        source=Synthetic(tasks=(task,), probes=(Probe(task=task, length=16),)),
        steps=1500,
        batch=32,
        tokens=16,
        lr=4e-3,
        schedule=WSD(warmup_steps=20, decay_fraction=0),
        criterion=Criterion(every=25, accuracy=0.9),
        precision=Precision.FP32,
        valid_tokens=4096,
        contexts=(16,),
    )
    record = run(CONTROLS["hybrid 1:1"](16, 32), recipe, engine=Engine(device="cpu"))
    found = record.tokens_to_accuracy
    assert record.train_tokens < recipe.steps * recipe.batch * recipe.tokens
    assert found[0.5] < found[0.9] < record.train_tokens
    assert record.task_accuracy["length 16"] > 0.85
    assert record.task_floor["length 16"] < 0.5
