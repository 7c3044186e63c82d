"""Arithmetic against the published models and against allocated tensors."""

import pytest
import torch

from hybrid import cost, ops
from hybrid.fit import fit
from hybrid.jamba import jamba
from hybrid.model import HybridLM
from hybrid.presets import PRESETS
from hybrid.spec import MLP, Attention, Layer, Mamba, ModelSpec

# Total and active parameters: the models' released configurations; the round figures are in
# Table 1 of the Jamba paper (arXiv 2403.19887).
PUBLISHED = {
    "llama-2-7b": (6_738_415_616, 6_738_415_616, 524_288),
    "llama-2-13b": (13_015_864_320, 13_015_864_320, 819_200),
    "llama-2-70b": (68_976_648_192, 68_976_648_192, 327_680),
    "mistral-7b": (7_241_732_096, 7_241_732_096, 131_072),
    "mixtral-8x7b": (46_702_792_704, 12_879_925_248, 131_072),
    "jamba-v0.1": (51_570_323_328, 12_110_311_296, 16_384),
    "jamba-tiny-dev": (318_688_640, 167_693_696, 1_024),
}


@pytest.mark.parametrize("name", PRESETS)
def test_published_counts(name):
    total, active, cache_bytes_per_token = PUBLISHED[name]
    spec = PRESETS[name]
    assert (cost.params(spec), cost.active_params(spec)) == (total, active)
    grown = [cost.cache_bytes(spec, batch=1, tokens=t, itemsize=2) for t in (100, 101)]
    assert grown[1] - grown[0] == cache_bytes_per_token


@pytest.mark.parametrize("name", PRESETS)
def test_published_models_allocate_what_is_counted(name):
    with torch.device("meta"):
        model = HybridLM(PRESETS[name], ops.REFERENCE)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name][0]


def of_ratio(ratio, hidden: int) -> ModelSpec:
    return jamba(
        vocab=512,
        width=64,
        hidden=hidden,
        blocks=1,
        l=8,
        ratio=ratio,
        attention=Attention(heads=4, kv_heads=2),
    )


@pytest.mark.parametrize("ratio", [(1, 0), (1, 1), (1, 3), (0, 1)])
def test_fit_meets_the_target_within_the_tolerance(ratio):
    target = cost.params(of_ratio((1, 7), 160))
    found = cost.params(fit(lambda hidden: of_ratio(ratio, hidden), cost.params, target))
    assert abs(found - target) <= 0.01 * target
    assert cost.params(of_ratio(ratio, 160)) != target  # there was something to solve


def test_fit_takes_the_roundest_width():
    def spec(hidden: int) -> ModelSpec:
        layer = Layer(mixer=Mamba(), feed_forward=MLP(hidden=hidden))
        return ModelSpec(vocab=64, width=16, layers=(layer,))

    exact = fit(spec, cost.params, cost.params(spec(192)), tolerance=0.0)
    loose = fit(spec, cost.params, cost.params(spec(192 + 3)), tolerance=0.1)
    assert exact == loose == spec(192)


def test_fit_says_how_near_it_came():
    target = 1000  # less than the embeddings alone
    with pytest.raises(ValueError, match=r"nearest to target=1,000 is .* wanted within 1.0%"):
        fit(lambda hidden: of_ratio((1, 7), hidden), cost.params, target)
