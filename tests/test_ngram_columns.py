"""A text run's record holds n-gram baselines, judged on the tokens that the model is judged on."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sweeps.trial.data import ngram_baselines
from sweeps.trial.data.documents import Split
from sweeps.trial.data.ngram_baselines import BigramTable
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.tasks import Mqar, Probe
from sweeps.trial.engine import Engine
from sweeps.trial.events import Stop
from sweeps.trial.material import open_material
from sweeps.trial.measure import held_out_loss
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Outcome
from sweeps.trial.run import run
from tests.models import SPECS

VOCAB = 320
VALID = [
    f"bits_per_byte_{name}" for name in ("unigram", "bigram", "bigram_domain", "bigram_windows")
]
TEST = [f"test_{name}" for name in VALID]


@pytest.fixture
def recipe(source) -> Recipe:
    return Recipe(
        source=source,
        steps=2,
        batch=2,
        tokens=16,
        lr=1e-3,
        valid_tokens=640,
        contexts=(8,),
        measure_test=True,
    )


class AsModel:
    """A bigram table where a model is expected."""

    embed = SimpleNamespace(weight=torch.zeros(1))

    def __init__(self, table: BigramTable) -> None:
        every = np.arange(table.vocab)
        p_VV = np.stack([table.bigram(np.full(table.vocab, v), every) for v in every])
        self.logits_VV = torch.from_numpy(np.log(p_VV))

    def eval(self) -> None:
        pass

    def __call__(self, ids_BT):
        return SimpleNamespace(logits_BTV=self.logits_VV[ids_BT], routings=())


@pytest.mark.parametrize("split", [Split.VALID, Split.TEST])
def test_a_model_that_is_the_table_reaches_what_the_table_reaches(recipe, split):
    tokens = open_tokens(recipe.source, VOCAB)
    table = BigramTable(VOCAB, ngram_baselines._all_pairs(tokens))
    loss = held_out_loss(AsModel(table), tokens, "text", recipe, Precision.FP32, split)
    known = open_material(recipe.source, vocab=VOCAB, tokens=16).known(recipe)
    column = (VALID if split is Split.VALID else TEST)[1]
    assert known[column]["text"] == pytest.approx(loss.bits_per_byte, rel=1e-5)


def test_the_test_split_is_read_only_where_the_recipe_asks(recipe):
    material = open_material(recipe.source, vocab=VOCAB, tokens=16)
    both, one = material.known(recipe), material.known(replace(recipe, measure_test=False))
    assert set(both) - set(one) == set(TEST)
    assert {name: both[name] for name in VALID} == {name: one[name] for name in VALID}


def test_of_one_domain_both_tables_of_all_text_are_one(recipe):
    known = open_material(recipe.source, vocab=VOCAB, tokens=16).known(recipe)
    assert known["bits_per_byte_bigram_domain"] == known["bits_per_byte_bigram"]
    assert known["bits_per_byte_bigram_windows"]["text"] > known["bits_per_byte_bigram"]["text"]


def test_a_run_that_was_stopped_has_them_too(recipe):
    def stop(event) -> None:
        raise Stop("enough")

    spec = replace(SPECS["hybrid"], vocab=VOCAB)
    record = run(spec, recipe, engine=Engine(device="cpu"), watch=stop)
    assert record.outcome is Outcome.PRUNED
    assert all(getattr(record, name)["text"] > 0 for name in [*VALID, *TEST])


def test_a_run_on_tasks_has_none(recipe):
    probe = Probe(task=Mqar(pairs=2), length=16)
    tasks = Synthetic(tasks=(Mqar(pairs=2),), probes=(probe,))
    assert open_material(tasks, vocab=64, tokens=16).known(replace(recipe, source=tasks)) == {}
