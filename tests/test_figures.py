"""Tables and figures from made-up trials: the numbers shown are those of the rows."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from sweeps import docs, moe_grid, ratio, ratio_lr, results
from sweeps.show import figures, table
from sweeps.show.statistics import interval
from sweeps.trial.data.sources import PackagedText
from sweeps.trial.engine import Engine
from sweeps.trial.record import Label, Outcome
from sweeps.trial.run import not_run


def made_up(sweep=ratio.SWEEP, scale: str = "smoke") -> pd.DataFrame:
    """Return one row for each point of a sweep, with numbers that depend on arm and seed."""
    rows = []
    for index, point in enumerate(sweep.points(scale, PackagedText())):
        label = Label(sweep=sweep.name, scale=scale, arm=point.arm)
        record = not_run(point.spec, point.recipe, label=label, engine=Engine(device="cpu"))
        seen = replace(
            record,
            outcome=Outcome.COMPLETE,
            error=None,
            valid_bits_per_byte={"books": 2.0 + 0.01 * index, "web": 2.5},
            train_tokens=1000,
            train_tokens_per_s=1e4,
            train_peak_bytes=2**28,
            prefill_tokens_per_s={64: 2e4, 128: 3e4},
            decode_ms={64: 1.0, 128: 1.5},
            cache_bytes={64: 2**14, 128: 2**15},
            precision="fp32",
            ops="cpu",
        )
        rows.append(results.flatten(seen))
    return pd.DataFrame(rows)


def test_the_table_shows_means_and_intervals():
    trials = made_up()
    markdown = table.as_markdown(trials, ratio.ARMS)
    values = trials[trials["arm"] == "1:0"]["valid_bits_per_byte.books"]
    mean, half, n = interval(values)
    assert n == 2
    assert f"| 1:0 | 2 | {trials['params'][0]:,} | {mean:.3f} ± {half:.3f} |" in markdown
    assert "decode at 128, ms" in markdown
    assert len(markdown.splitlines()) == 2 + len(ratio.ARMS) + 2


def test_trials_that_failed_are_not_averaged():
    trials = made_up()
    trials.loc[trials["arm"] == "1:0", "outcome"] = "diverged"
    assert "| 1:0 |" not in table.as_markdown(trials, ratio.ARMS)


def test_an_interval_is_students():
    # Two values: t(0.975, 1) = 12.706, standard error 0.5.
    mean, half, n = interval(pd.Series([1.0, 2.0, np.nan]))
    assert (mean, n) == (1.5, 2)
    assert half == pytest.approx(12.706 * 0.5, rel=1e-4)
    assert np.isnan(interval(pd.Series([1.0])).half)


def test_the_ratio_figure_draws_every_seed_and_saves_both_kinds(tmp_path):
    trials = made_up()
    figure = figures.ratio(trials, ratio.ARMS)
    loss = figure.axes[0]
    drawn = sorted(y for line in loss.lines for y in np.ravel(line.get_ydata()))
    for value in trials["valid_bits_per_byte.books"]:
        assert any(np.isclose(value, drawn))
    assert [t.get_text() for t in loss.get_xticklabels()][:2] == ["1:0\n100%", "1:1\n50%"]
    paths = figures.save(figure, tmp_path / "ratio")
    assert [p.name for p in paths] == ["ratio.png", "ratio.svg"]
    assert all(p.stat().st_size > 10_000 for p in paths)


def test_equal_data_gives_equal_files(tmp_path):
    first, again = (
        figures.save(figures.ratio(made_up(), ratio.ARMS), tmp_path / name) for name in "ab"
    )
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


@pytest.mark.parametrize("colour", [*figures.COLOURS, "white", "black"])
def test_letters_can_be_read_on_white(colour):
    written = np.array(figures.ink(colour))
    light = np.where(written <= 0.04045, written / 12.92, ((written + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (light @ figures.LUMINANCE + 0.05) >= 4.5  # as WCAG 2 defines contrast


def test_one_seed_has_no_interval_and_says_so():
    trials = made_up(moe_grid.SWEEP).assign(baseline_bytes=0)
    drawn = figures.moe_grid(trials, moe_grid.SWEEP.arms)
    assert "one seed, no interval" in drawn.get_suptitle()
    assert figures.seeds_said(made_up()) == "2 seeds"


def test_labels_of_lines_that_meet_do_not_overlap():
    figure = figures.ratio(made_up(), ratio.ARMS)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        boxes = [
            text.get_window_extent(renderer) for text in axes.texts if isinstance(text, Annotation)
        ]
        low = sorted((box.y0, box.y1) for box in boxes)
        assert low[0][0] > axes.get_window_extent(renderer).y0 - 3, "over the ticks"
        for (_, top), (bottom, _) in pairwise(low):
            assert bottom > top - 3


def test_the_learning_rate_figure_has_a_line_for_each_ratio():
    figure = figures.learning_rate(made_up(ratio_lr.SWEEP), ratio_lr.SWEEP.arms)
    (axes,) = figure.axes
    assert len(axes.lines) == len(ratio.ARMS)
    assert sorted(axes.lines[0].get_xdata()) == sorted(ratio_lr.RATES)


def test_no_complete_trial_is_an_error_that_says_so():
    trials = made_up()
    trials["outcome"] = "failed"
    with pytest.raises(LookupError, match="at least one complete trial"):
        figures.ratio(trials, ratio.ARMS)


def test_a_readme_without_marks_is_an_error():
    with pytest.raises(ValueError, match="must hold the lines"):
        docs.between("no marks here", "table", docs.TABLE)
