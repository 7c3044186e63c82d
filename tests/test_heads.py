"""What is said of attention heads is what their layer does; taking one out changes nothing else."""

from dataclasses import replace

import pytest
import torch

from hybrid.layers.attention import Attention as AttentionLayer
from hybrid.model import build
from hybrid.ops import ALL
from hybrid.spec import Attention, Layer, ModelSpec, stack
from sweeps.trial import heads
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.tasks import Cycle, Mqar, Probe
from sweeps.trial.engine import Engine
from sweeps.trial.heads import Head
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Outcome
from sweeps.trial.run import run
from tests.models import HYBRID, MIXERS, SPECS, VOCAB

ATTENTIONS = {name: x for name, x in MIXERS.items() if isinstance(x, Attention)}
N = 8  # tokens that come twice
IDS_BT = heads.repeated(VOCAB, 2 * N)
TWO_LAYERS = ModelSpec(
    vocab=VOCAB,
    width=16,
    layers=stack("MAMA", M=HYBRID.layers[0], A=Layer(mixer=MIXERS["attention"], feed_forward=None)),
)
PROBES = (Probe(task=Mqar(pairs=2), length=16), Probe(task=Cycle(longest=4), length=12))
RECIPE = Recipe(
    source=Synthetic(tasks=(Mqar(pairs=2),), probes=PROBES),
    steps=2,
    batch=4,
    tokens=16,
    lr=1e-3,
    seed=7,
    precision=Precision.FP32,
    valid_tokens=256,
    contexts=(8,),
    measure_heads=True,
)
CPU = Engine(device="cpu")


# ---- what a head looks at ------------------------------------------------------------------------


@pytest.mark.parametrize("ops", ALL)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_what_is_looked_at_times_the_values_is_what_the_layer_returns(name, ops):
    model = build(SPECS[f"mixer-{name}"], seed=3, ops=ALL[ops])
    mixer = model.blocks[0].mixing.mixer
    returned = []
    mixer.register_forward_hook(lambda module, given, output: returned.append(output[0]))
    with torch.inference_mode(), heads.looking(model) as looked:
        model.hidden(IDS_BT)
    weight_BHTS, v_BSKP = looked[0]
    H, K = mixer.config.heads, mixer.config.kv_heads
    mixed_BHTP = weight_BHTS @ v_BSKP.repeat_interleave(H // K, dim=2).transpose(1, 2)
    y_BTD = mixer.out(mixed_BHTP.transpose(1, 2).flatten(2))
    torch.testing.assert_close(y_BTD, returned[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weight_BHTS.sum(dim=-1), torch.ones_like(weight_BHTS[..., 0]))


def test_tokens_come_twice_and_only_twice():
    assert IDS_BT.shape == (heads.SEQUENCES, 2 * N)
    assert torch.equal(IDS_BT[:, :N], IDS_BT[:, N:])
    assert all(len(set(row.tolist())) == N for row in IDS_BT)
    assert torch.equal(IDS_BT, heads.repeated(VOCAB, 2 * N + 1))
    assert heads.repeated(5, 2 * N).shape == (heads.SEQUENCES, 10)


def test_an_induction_head_matches_prefixes_and_an_even_one_does_not():
    T = 2 * N
    induction_TS = torch.zeros(T, T)
    for t in range(N, T):
        induction_TS[t, t - N + 1] = 1
    induction_TS[:N, 0] = 1
    even_TS = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]
    before_TS = torch.eye(T).roll(-1, dims=1)  # a head that looks at the token before
    found_BH = heads.prefix_matching(torch.stack([induction_TS, even_TS, before_TS])[None])
    expected = sum(1 / seen for seen in range(N + 1, T + 1)) / N
    assert found_BH[0].tolist() == pytest.approx([1.0, expected, 0.0])


def one_layer(heads_: int = 1) -> ModelSpec:
    """Return a model as wide as its vocabulary, whose tokens can be told apart without a rest."""
    attention = Attention(heads=heads_, kv_heads=1)
    layer = Layer(mixer=attention, feed_forward=None)
    return ModelSpec(vocab=16, width=16, layers=(layer,))


def copier(sign: float) -> torch.nn.Module:
    """Return a model whose one head writes `sign` times the token that it looks at."""
    model = build(one_layer(), seed=0)
    one_DD = torch.eye(16)
    with torch.no_grad():
        model.embed.weight.copy_(one_DD)
        model.head.weight.copy_(one_DD)
        mixer = model.blocks[0].mixing.mixer
        mixer.qkv.weight.copy_(torch.cat([0 * one_DD, 0 * one_DD, one_DD]))
        mixer.out.weight.copy_(sign * one_DD)
    return model


def test_a_copying_head_scores_one_and_its_opposite_nothing():
    ids_BT = heads.repeated(16, 2 * N)
    even = sum(1 / seen for seen in range(N + 1, 2 * N + 1)) / N
    for sign, copying in ((1.0, 1.0), (-1.0, 0.0)):
        found = heads.head_scores(copier(sign), ids_BT, Precision.FP32)
        assert found[Head(0, 0)].copying == pytest.approx(copying)
        assert found[Head(0, 0)].prefix_matching == pytest.approx(even)


def test_scores_do_not_depend_on_how_many_sequences_are_looked_at_together(monkeypatch):
    model = build(HYBRID, seed=1)
    whole = heads.head_scores(model, IDS_BT, Precision.FP32)
    monkeypatch.setattr(heads, "PAIRS", 3 * IDS_BT.shape[1] ** 2)
    parts = heads.head_scores(model, IDS_BT, Precision.FP32)
    assert list(whole) == heads.heads_of(model) == list(parts)
    for head, scores in whole.items():
        assert scores == pytest.approx(parts[head], rel=1e-4)
        assert 0 <= scores.prefix_matching < 1  # 0 in a window that does not reach so far
        assert 0 <= scores.copying <= 1


# ---- without some --------------------------------------------------------------------------------


def mixed(model: torch.nn.Module) -> torch.Tensor:
    """Return what the heads of the first attention layer give to its output projection."""
    (mixer, *_) = [x for x in model.modules() if isinstance(x, AttentionLayer)]
    seen = []
    hook = mixer.out.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    with torch.inference_mode():
        model.hidden(IDS_BT)
    hook.remove()
    return seen[0].unflatten(-1, (mixer.config.heads, mixer.head_width))


def test_removing_heads_changes_only_them_and_only_meanwhile():
    model = build(TWO_LAYERS, seed=2)
    whole_BTHP = mixed(model)
    with heads.without(model, [Head(1, 2), Head(3, 0)]):
        left_BTHP = mixed(model)
    assert left_BTHP[:, :, 2].abs().max() == 0 < whole_BTHP[:, :, 2].abs().min()
    others = [0, 1, 3]
    assert torch.equal(left_BTHP[:, :, others], whole_BTHP[:, :, others])
    assert torch.equal(mixed(model), whole_BTHP)


def test_the_best_are_removed_and_as_many_others_at_random():
    prefix = {Head(1, i): x for i, x in enumerate((0.1, 0.9, 0.2, 0.3))}
    prefix |= {Head(3, i): x for i, x in enumerate((0.8, 0.4, 0.5, 0.6))}
    asked = []

    def accuracy(removed) -> float:
        asked.append(set(removed))
        return len(asked) / 10

    found = heads.removals(prefix, 7, accuracy)
    assert asked[0] == {Head(1, 1), Head(3, 0)}
    assert len(asked) == 1 + heads.DRAWS
    assert all(len(others) == 2 and not others & asked[0] for others in asked[1:])
    assert len(set(map(frozenset, asked[1:]))) > 1
    assert found == {"top": 0.1, "random": pytest.approx(0.4)}
    again = list(asked[1:])
    asked.clear()
    heads.removals(prefix, 7, accuracy)
    assert asked[1:] == again
    assert list(heads.removals({Head(0, 0): 0.5}, 7, accuracy)) == ["top"]


def noting(asked: list[set[Head]]):
    """Return an accuracy that notes which heads are removed."""

    def accuracy(removed) -> float:
        asked.append(set(removed))
        return len(asked) / 10

    return accuracy


def test_all_induction_heads_are_removed_and_as_many_others():
    scores = (0.1, 0.9, 0.2, 0.3, 0.25, 0.05, 0.0, 0.26)
    prefix = {Head(1 + i // 4, i % 4): score for i, score in enumerate(scores)}
    above = {Head(1, 1), Head(1, 3), Head(2, 3)}
    asked: list[set[Head]] = []
    found = heads.induction_removals(prefix, 7, noting(asked))
    assert asked[0] == above
    assert len(asked) == 1 + heads.DRAWS
    assert all(len(others) == 3 and not others & above for others in asked[1:])
    assert found == {"above": 0.1, "others": pytest.approx(0.4)}
    again: list[set[Head]] = []
    heads.induction_removals(prefix, 7, noting(again))
    assert again == asked


@pytest.mark.parametrize(
    ("scores", "keys"),
    [
        ((0.1, 0.25), None),
        ((0.3, 0.4), None),
        ((0.3, 0.4, 0.1), ["above"]),
        ((0.3, 0.1, 0.2), ["above", "others"]),
    ],
)
def test_nothing_is_compared_without_heads_on_both_sides(scores, keys):
    prefix = {Head(0, i): score for i, score in enumerate(scores)}
    found = heads.induction_removals(prefix, 0, noting([]))
    assert (found and list(found)) == keys


# ---- in a record ---------------------------------------------------------------------------------


@pytest.mark.parametrize("measure_test", [False, True])
def test_a_record_holds_every_head_where_the_recipe_asks(measure_test):
    record = run(TWO_LAYERS, replace(RECIPE, measure_test=measure_test), engine=CPU)
    assert record.outcome is Outcome.COMPLETE, record.error
    names = [f"layer {layer} head {place}" for layer in (1, 3) for place in range(4)]
    assert list(record.head_prefix_matching) == list(record.head_copying) == names
    assert list(record.heads_removed_accuracy) == ["none", "top", "random"]
    shares = record.test_task_accuracy if measure_test else record.task_accuracy
    mean = sum(shares.values()) / len(shares)
    assert record.heads_removed_accuracy["none"] == pytest.approx(mean)
    assert record.induction_heads_removed_accuracy is None  # no head of two steps is above


def test_a_record_has_the_accuracy_without_induction_heads(monkeypatch):
    scores = run(TWO_LAYERS, RECIPE, engine=CPU).head_prefix_matching
    ranked = sorted(scores.values())
    monkeypatch.setattr(heads, "THRESHOLD", (ranked[-3] + ranked[-4]) / 2)
    record = run(TWO_LAYERS, RECIPE, engine=CPU)
    found = record.induction_heads_removed_accuracy
    assert list(found) == ["none", "above", "others"]
    assert found["none"] == record.heads_removed_accuracy["none"]


def test_nothing_is_measured_without_attention_or_where_nobody_asks():
    for spec, recipe in (
        (replace(SPECS["mixer-mamba"]), RECIPE),
        (TWO_LAYERS, replace(RECIPE, measure_heads=False)),
    ):
        record = run(spec, recipe, engine=CPU)
        assert record.outcome is Outcome.COMPLETE, record.error
        assert record.head_prefix_matching is record.head_copying is None
        assert record.heads_removed_accuracy is None


def test_heads_are_measured_on_tasks_alone():
    with pytest.raises(ValueError, match="measure_heads=True is for tasks"):
        Recipe(steps=1, batch=1, tokens=8, lr=1e-3, measure_heads=True)
    with pytest.raises(ValueError, match="measure_heads=1 must be True or False"):
        replace(RECIPE, measure_heads=1)
