"""The planner, the seed's formulas beside exact counts, and the page made of them."""

from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from hybrid import docs, law_grids, laws, report
from hybrid.cost import Weights
from hybrid.devices import DEVICES
from hybrid.plan import Budget, find_member, front, members, standing
from hybrid.plan_report import plan_sheet
from hybrid.presets import JAMBA_TINY_DEV, JAMBA_V0_1, LLAMA_2_7B
from hybrid.published import FIGURE_2_CONTEXT, FIGURE_2_RATIOS
from hybrid.spec import Layer, Mamba

ROOT = Path(__file__).parents[1]
A100 = DEVICES["a100-80gb-sxm"]
RELEASED = Budget(
    memory=80 * 10**9,
    context=262_144,
    batch=1,
    weights=Weights.INT8,
    chunk=8192,
    min_active=12 * 10**9,
    min_attention=4,
)


@pytest.fixture(scope="module")
def family():
    return members(JAMBA_V0_1, RELEASED, A100)


@pytest.fixture(scope="module")
def fitting(family):
    return [member for member in family if member.fits]


# ---- plan ----------------------------------------------------------------------------------------


def test_the_released_model_is_found_in_its_family(family):
    own = find_member(family, JAMBA_V0_1)
    assert own is not None
    assert (own.ratio, own.moe, own.spec) == ((1, 7), (16, 2, 2), JAMBA_V0_1)
    assert len({member.spec for member in family}) == len(family)


def test_what_fits_meets_every_limit(family, fitting):
    assert 0 < len(fitting) < len(family)
    for member in fitting:
        assert member.need.total <= RELEASED.memory
        assert member.active >= 12 * 10**9
        assert member.attention_layers >= 4
    cheap = [replace(m, budget=replace(RELEASED, max_flops=41 * 10**9)) for m in fitting]
    assert {m.fits for m in cheap} == {True, False}
    assert all(m.flops <= 41 * 10**9 for m in cheap if m.fits)


def test_no_member_of_the_front_is_beaten_and_every_other_is(fitting):
    best = front(fitting)
    for member in fitting:
        beaten = any(other.beats(member) for other in fitting)
        assert beaten == (member not in best)
    assert [m.params for m in best] == sorted((m.params for m in best), reverse=True)


def test_jambas_choice_is_on_the_front_of_its_own_constraints(family, fitting):
    own = find_member(family, JAMBA_V0_1)
    where = standing(own, fitting)
    assert where.fits
    assert where.beaten_by == ()
    assert own in front(fitting)
    assert where.ranks["cache"] == 1
    assert where.beats > where.of / 2


def test_without_asking_for_attention_arithmetic_wants_none():
    budget = replace(RELEASED, min_attention=None)
    family = members(JAMBA_V0_1, budget, A100)
    fitting = [member for member in family if member.fits]
    assert {member.ratio for member in front(fitting)} == {(0, 1)}
    where = standing(find_member(family, JAMBA_V0_1), fitting)
    assert {member.ratio for member in where.beaten_by} == {(1, 15), (0, 1)}


def test_a_plan_says_what_is_nearest_where_nothing_fits():
    tight = replace(RELEASED, memory=10**9)
    with pytest.raises(ValueError, match=r"no setting .* least memory is that of .* of 1 GB"):
        plan_sheet("jamba", JAMBA_V0_1, tight, A100, top=3)


def test_a_model_outside_its_family_is_said_to_be():
    base = replace(JAMBA_TINY_DEV, layers=JAMBA_TINY_DEV.layers[1:] + JAMBA_TINY_DEV.layers[:1])
    budget = replace(RELEASED, min_active=None, min_attention=None)
    assert "not a member" in " ".join(plan_sheet("turned", base, budget, A100, top=3).notes)


def test_a_family_needs_heads_and_a_width():
    mixer_only = replace(JAMBA_V0_1, layers=(Layer(mixer=Mamba(), feed_forward=None),))
    with pytest.raises(ValueError, match="no attention layer to take heads from"):
        members(mixer_only, RELEASED, A100)
    attention = Layer(mixer=LLAMA_2_7B.layers[0].mixer, feed_forward=None)
    with pytest.raises(ValueError, match="no feed-forward to take a width from"):
        members(replace(LLAMA_2_7B, layers=(attention,)), RELEASED, A100)


# ---- laws ----------------------------------------------------------------------------------------


def verdict(found: list[laws.Verdict], law: str, quantity: str) -> laws.Verdict:
    (one,) = (v for v in found if (v.law, v.quantity) == (law, quantity))
    return one


def test_the_formulas_are_those_of_the_seed():
    assert laws.moe_cost(16, 2, 2) == 16
    assert laws.expert_budget(16, 2) == 32
    assert (laws.memory_share(4), laws.throughput_share(4)) == (0.25, 4)
    assert laws.least_cost([(8, 1, 1), (4, 2, 4), (16, 1, 16)], budget=15) == (4, 2, 4)
    with pytest.raises(ValueError, match="no setting has n K <= 1"):
        laws.least_cost([(8, 1, 1)], budget=1)


def test_the_rank_correlation_is_scipys():
    pairs = [(1.0, 3.0), (2.0, 3.0), (2.0, 1.0), (5.0, 9.0), (4.0, 2.0)]
    found = laws.judge(law="a", quantity="b", pairs=pairs)
    assert found.rank_correlation == pytest.approx(stats.spearmanr(pairs).statistic)


@pytest.mark.parametrize(
    ("pairs", "error", "text"),
    [
        ([(1, 5), (2, 10), (3, 15)], 0.0, "right order, right size"),
        ([(1, 1), (2, 8), (3, 27)], 2.0, "right order, wrong size"),
        ([(1, 3), (2, 2), (3, 1)], 2.0, "wrong direction, wrong size"),
        ([(1, 1), (3, 1.05), (2, 1.1)], None, "misleading order, wrong size"),
    ],
)
def test_a_verdict_follows_from_its_numbers(pairs, error, text):
    found = laws.judge(law="a", quantity="b", pairs=pairs)
    assert found.text == text
    if error is not None:
        assert found.worst_error == pytest.approx(error)


def test_a_verdict_needs_numbers():
    with pytest.raises(ValueError, match="2 pairs; at least 3"):
        laws.judge(law="a", quantity="b", pairs=[(1, 1), (2, 2)])
    with pytest.raises(ValueError, match="every value must be above 0"):
        laws.judge(law="a", quantity="b", pairs=[(1, 1), (2, 2), (3, 0)])


def test_the_seeds_cost_charges_unused_experts_and_leaves_out_their_width():
    found = law_grids.moe_verdicts()
    compute = "FLOPs of the MoE layers"
    widths = "FLOPs of the MoE layers, width F varied"
    assert verdict(found, "(n/e) K", compute).text == "misleading order, wrong size"
    assert verdict(found, "K/e", compute).text == "right order, right size"
    assert verdict(found, "K/e", widths).text == "misleading order, wrong size"
    assert verdict(found, "(K/e) F", widths).worst_error < 0.01
    held = verdict(found, "n/e", "parameters of the experts")
    assert held.worst_error == pytest.approx(0, abs=1e-12)


def test_the_seeds_optimum_is_the_least_setting_whatever_the_budget():
    least = (min(law_grids.EXPERTS), min(law_grids.TOP_KS), max(law_grids.PERIODS))
    assert set(law_grids.optima().values()) == {least}
    cheaper, allowed = law_grids.place_of_jamba()
    assert 0 < cheaper < allowed


def test_more_mamba_layers_save_cache_but_not_weights():
    found = law_grids.mamba_verdicts()
    cached = "keys and values at 256k"
    assert verdict(found, "1/m", cached).text == "right order, wrong size"
    assert verdict(found, "L - m", cached).worst_error == pytest.approx(0, abs=1e-12)
    assert verdict(found, "1/m", "weights and cache at 1k").text.startswith("wrong direction")
    assert verdict(found, "m", "decoding bound at 256k").text.startswith("right order")
    assert verdict(found, "m", "decoding bound at 1k").text.startswith("wrong direction")


def test_cost_is_a_sum_over_layers():
    for found in law_grids.layer_verdicts():
        assert found.worst_error == pytest.approx(0, abs=1e-12)


# ---- what is shown -------------------------------------------------------------------------------


def test_figure_2_is_near_only_where_a_prompt_is_read_at_once():
    """Cache alone gives twelve times the paper's context; working memory is what limits it.

    Even so neither ratio of the paper comes out: what it ran is not what our layers hold.
    """
    alone, at_once = (report.figure_2_contexts(chunk) for chunk in (0, None))
    assert alone["jamba-v0.1"] > 10 * FIGURE_2_CONTEXT
    assert at_once["jamba-v0.1"] == pytest.approx(FIGURE_2_CONTEXT, rel=0.2)
    llama = at_once["jamba-v0.1"] / at_once["llama-2-70b"]
    mixtral = at_once["jamba-v0.1"] / at_once["mixtral-8x7b"]
    assert 0.8 < llama / FIGURE_2_RATIOS["llama-2-70b"] < 0.95
    assert 1 < mixtral < 0.7 * FIGURE_2_RATIOS["mixtral-8x7b"]


def test_the_counts_show_no_difference():
    assert {row[-1] for row in report.counts().rows} == {"0"}


def test_the_page_is_current():
    text = (ROOT / docs.PAGE).read_text()
    assert text == docs.page(), f"{docs.PAGE} is stale: run `python -m hybrid docs`"
