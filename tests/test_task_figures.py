"""Figures of tasks and of attention heads from made-up rows: what is drawn is what they say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sweeps.show import figures, heads, heat, tasks

TEST = "test_task_accuracy"
SHARES = {"length 16 pairs 2": (1.0, 0.8), "length 16 pairs 8": (0.5, 0.3)}


def rows(**columns) -> pd.DataFrame:
    """Return a complete trial for each value of the columns, which are as long as each other."""
    trials = pd.DataFrame(columns)
    return trials.assign(arm="a", seed=range(len(trials)), outcome="complete")


def answered() -> pd.DataFrame:
    trials = rows(**{f"{TEST}.{probe}": shares for probe, shares in SHARES.items()})
    failed = trials.assign(seed=9, outcome="failed")
    return pd.concat([trials, failed])


def cells(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


def test_a_probe_is_read_by_its_settings():
    assert tasks.settings("length 32 name tokens 2 depth 0.25") == {
        "length": 32,
        "name tokens": 2,
        "depth": 0.25,
    }
    for probe in ("length 32 free", "pairs", "32 pairs"):
        with pytest.raises(ValueError, match="names with a number each"):
            tasks.settings(probe)


def test_answers_have_a_row_for_each_complete_trial_and_probe():
    seen = tasks.answers(answered(), TEST)
    assert list(seen["share"]) == [1.0, 0.8, 0.5, 0.3]
    assert list(seen["pairs"]) == [2, 2, 8, 8]


def test_answers_that_were_not_measured_are_an_error():
    with pytest.raises(LookupError, match="no complete trial has task_accuracy"):
        tasks.answers(answered(), "task_accuracy")


def test_answers_by_pairs_show_means_and_every_seed():
    figure = tasks.against(tasks.answers(answered(), TEST), ("a", "absent"), "pairs", chance=0.25)
    (axes,) = figure.axes
    drawn = [list(np.ravel(line.get_ydata())) for line in axes.lines]
    assert [1.0, 0.8] in drawn
    assert any(np.allclose(y, (0.9, 0.4)) for y in drawn if len(y) == 2)
    assert any(np.allclose(y, 0.25) for y in drawn)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "8"]


def test_a_needle_map_has_the_mean_of_seeds_in_its_cell():
    shares = {"length 16 needles 2 depth 0.0": (1.0, 0.5), "length 32 needles 2 depth 0.5": (0, 0)}
    trials = rows(**{f"{TEST}.{probe}": share for probe, share in shares.items()})
    figure = tasks.depths(tasks.answers(trials, TEST), ("a",))
    assert cells(figure) == [["0.75", "0.00"]]  # the two others were not measured
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0%", "50%"]


def scored() -> pd.DataFrame:
    return rows(
        **{
            "head_prefix_matching.layer 4 head 0": (0.9, 0.1),
            "head_prefix_matching.layer 4 head 1": (0.2, 0.7),
            "head_prefix_matching.layer 10 head 1": (0.3, 0.4),
        }
    )


def test_heads_are_mapped_by_layer_and_seed():
    scores = heads.scores(scored(), heads.PREFIX)
    figure = heads.maps(scores, "prefix matching")
    assert cells(figure) == [["0.90", "0.20", "0.30"], ["0.10", "0.70", "0.40"]]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["4", "10"]
    assert heads.best(scores).to_numpy().tolist() == [[0.9, 0.3], [0.7, 0.4]]


def test_heads_of_another_name_and_no_heads_are_errors():
    with pytest.raises(ValueError, match="'head 1', not as in 'layer 4 head 0'"):
        heads.scores(rows(**{"head_copying.head 1": (0.1,)}), heads.COPYING)
    with pytest.raises(LookupError, match="no complete trial has head_copying"):
        heads.scores(scored(), heads.COPYING)
    with pytest.raises(LookupError, match="no complete trial has heads_removed_accuracy"):
        heads.removed(scored())


def test_removal_has_a_line_for_each_seed_and_the_mean():
    shares = {"top": (0.2, 0.4), "none": (0.9, 1.0), "random": (0.8, 0.9)}
    figure = heads.removed(rows(**{f"{heads.REMOVED}.{k}": v for k, v in shares.items()}))
    (axes,) = figure.axes
    drawn = [list(np.ravel(line.get_ydata())) for line in axes.lines]
    assert drawn[:2] == [[0.9, 0.8, 0.2], [1.0, 0.9, 0.4]]
    assert any(np.allclose(y, (0.95, 0.85, 0.3)) for y in drawn if len(y) == 3)


def test_attention_names_every_token():
    weights = pd.DataFrame(np.eye(3), index=list("abc"), columns=list("abc"))
    axes = heads.attention(weights, "layer 4 head 0").axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b", "c"]
    assert np.array_equal(axes.images[0].get_array(), np.eye(3))


def test_letters_are_white_on_dark_cells_and_black_on_pale_ones():
    axes = Figure().subplots()
    heat.draw(axes, pd.DataFrame([[0.0, 1.0, np.nan]]), "title")
    assert [text.get_color() for text in axes.texts] == ["black", "white"]


def test_thirty_six_lines_look_different():
    looks = {figures.look(index) for index in range(36)}
    assert len(looks) == 36


@pytest.mark.parametrize(
    ("values", "said"),
    [((0.2, 3.0), ["0.2", "0.5", "1", "2"]), ((1000, 30_000), ["1,000", "2,000"])],
)
def test_a_short_logarithmic_axis_is_written_in_numbers(values, said):
    axes = Figure().subplots()
    axes.plot(values, values)
    axes.set_yscale("log")
    figures.spell_out(axes.yaxis)
    axes.figure.draw_without_rendering()
    texts = [tick.get_text() for tick in axes.get_yticklabels()]
    assert [text for text in texts if text in said] == said
    assert not any("10^" in text for text in texts)


def test_a_long_logarithmic_axis_keeps_its_powers():
    axes = Figure().subplots()
    axes.plot((1, 1e18), (1, 1e18))
    axes.set_yscale("log")
    figures.spell_out(axes.yaxis)
    axes.figure.draw_without_rendering()
    assert any("10^" in tick.get_text() for tick in axes.get_yticklabels())
