"""Whether the use of context is seen: by models of which it is known what they look at."""

from dataclasses import replace

import pytest
import torch

from hybrid.model import Output
from sweeps.trial.context import KEPT, context_bits, far_shuffled
from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.tasks import Probe, Recall
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Outcome
from sweeps.trial.run import run
from tests.models import SPECS

VOCAB, T = 300, 64
HERE = Engine(device="cpu")


@pytest.fixture
def recipe(source) -> Recipe:
    return Recipe(
        source=source,
        steps=2,
        batch=4,
        tokens=T,
        lr=1e-3,
        precision=Precision.FP32,
        valid_tokens=1024,
        contexts=(8,),
        measure_context=True,
    )


class Known(torch.nn.Module):
    """A model whose logits `logits_of` makes of the tokens (B, T)."""

    def __init__(self, logits_of):
        super().__init__()
        self.embed, self.logits_of = torch.nn.Embedding(VOCAB, 1), logits_of

    def forward(self, ids_BT):
        return Output(self.logits_of(ids_BT), [], ())


def bits(logits_of, recipe: Recipe) -> dict[str, float]:
    tokens = open_tokens(recipe.source, VOCAB)
    model = Known(logits_of)
    return context_bits(model, tokens, "text", recipe, Precision.FP32, Split.VALID)


def near(ids_BT):
    """Look at the last KEPT tokens alone."""
    logits_BTV = torch.zeros(*ids_BT.shape, VOCAB)
    for back in range(KEPT):
        seen = torch.nn.functional.one_hot(ids_BT, VOCAB).float()
        logits_BTV[:, back:] += seen[:, : ids_BT.shape[1] - back] / (1 + back)
    return logits_BTV


def order(ids_BT):
    """Look at the order of all tokens: the sum of each times its place."""
    places = torch.arange(ids_BT.shape[1]).float()
    mixed_BT = (ids_BT * (1 + places)).cumsum(1) % VOCAB
    return torch.sin(mixed_BT[..., None] * (1 + torch.arange(VOCAB)))


def test_what_looks_at_the_last_tokens_alone_loses_nothing(recipe):
    found = bits(near, recipe)
    assert found["shuffled"] == pytest.approx(found["unshuffled"], rel=1e-6)
    assert found["early"] != found["late"]


def test_what_looks_at_the_order_of_all_is_changed(recipe):
    found = bits(order, recipe)
    assert found["shuffled"] != found["unshuffled"]


@pytest.mark.parametrize(
    ("name", "first", "end"),
    [("early", 8, 16), ("late", 48, 64), ("unshuffled", 63, 64), ("shuffled", 63, 64)],
)
def test_each_number_is_of_its_positions(recipe, name, first, end):
    """A model that is only ever sure, and wrong, elsewhere is as good as a uniform one here."""

    def elsewhere(ids_BT):
        logits_BTV = torch.zeros(*ids_BT.shape, VOCAB)
        logits_BTV[:, :first, 0] = logits_BTV[:, end:, 0] = 50.0
        return logits_BTV

    uniform = bits(lambda ids_BT: torch.zeros(*ids_BT.shape, VOCAB), recipe)
    found = bits(elsewhere, recipe)
    assert found[name] == uniform[name]
    others = {"early", "late"} - {name} if name in ("early", "late") else {"early"}
    assert all(found[other] > 2 * uniform[other] for other in others)


def test_all_but_the_last_tokens_are_put_in_another_order():
    ids_BT = torch.arange(4 * T).view(4, T)
    found = far_shuffled(ids_BT, torch.Generator().manual_seed(0))
    assert torch.equal(found[:, -KEPT:], ids_BT[:, -KEPT:])
    assert torch.equal(found.sort(dim=1).values, ids_BT)
    assert (found[:, :-KEPT] != ids_BT[:, :-KEPT]).float().mean() > 0.9
    again = far_shuffled(ids_BT, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


@pytest.mark.parametrize("measure_test", [False, True])
def test_a_record_has_it_where_the_recipe_asks(recipe, measure_test):
    spec = replace(SPECS["hybrid"], vocab=VOCAB)
    record = run(spec, replace(recipe, measure_test=measure_test), engine=HERE)
    assert record.outcome is Outcome.COMPLETE, record.error
    names = ("early", "late", "unshuffled", "shuffled")
    found = [getattr(record, f"context_{name}_bits_per_byte") for name in names]
    assert [list(x) for x in found] == [["text"]] * 4
    assert all(1 < x["text"] < 12 for x in found)
    plain = run(spec, replace(recipe, measure_context=False), engine=HERE)
    assert plain.valid_bits_per_byte == record.valid_bits_per_byte
    assert plain.context_early_bits_per_byte is None


def test_all_of_the_test_text_is_read_where_the_recipe_asks(recipe):
    recipe = replace(recipe, measure_context=False, measure_test=True)
    spec = replace(SPECS["mixer-attention"], vocab=VOCAB)
    record = run(spec, replace(recipe, test_tokens=None), engine=HERE)
    few = run(spec, recipe, engine=HERE)
    as_valid = run(spec, replace(recipe, test_tokens=recipe.valid_tokens), engine=HERE)
    assert as_valid.test_bits_per_byte == few.test_bits_per_byte
    assert record.test_bits_per_byte != few.test_bits_per_byte
    assert record.valid_bits_per_byte == few.valid_bits_per_byte


def test_context_and_all_of_the_test_are_for_text_of_some_length(recipe):
    with pytest.raises(ValueError, match="measure_context=True needs tokens of 32 or more"):
        replace(recipe, tokens=31)
    task = Synthetic(tasks=(Recall(),), probes=(Probe(task=Recall(), length=8),))
    with pytest.raises(ValueError, match="are for text"):
        replace(recipe, source=task)
    with pytest.raises(ValueError, match="are for text"):
        replace(recipe, source=task, measure_context=False, test_tokens=None)
    with pytest.raises(ValueError, match="test_tokens=-1 must be a whole number"):
        replace(recipe, test_tokens=-1)
