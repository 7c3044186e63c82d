"""Trials of one design and trials of others: what a mean may be taken over, and what is said."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sweeps import designs, ratio, results
from sweeps.show import explore, figures, report, table
from sweeps.trial import records
from sweeps.trial.data.sources import PackagedCorpus, PackagedText, TextFile
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.record import Label, Outcome, Record
from sweeps.trial.run import not_run

ROOT = Path(__file__).parents[1]
ARMS = ("1:0", "0:1")
SWEEP = replace(ratio.SWEEP, name="mini", arms=ARMS)
EARLIER, LATER = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"


def with_lr(lr: float):
    """Return the sweep with another learning rate in its recipe."""

    def point(arm, seed, scale):
        spec, recipe = ratio.point(arm, seed, scale)
        return spec, replace(recipe, lr=lr)

    return replace(SWEEP, point=point)


def written(folder: Path, sweep=SWEEP, engine=None, path="a.txt", started=EARLIER, **changes):
    """Write complete records of all points of `sweep`, whose text is at `path`."""
    changes = {"text_sha256": "a" * 64, "tokenizer_sha256": "t", "precision": "fp32"} | changes
    source = TextFile(path=path, text_sha256=changes["text_sha256"])
    for point in sweep.points("smoke", source):
        engine = engine or Engine(device="cpu", ops="cpu")
        label = Label(sweep=sweep.name, scale="smoke", arm=point.arm)
        known = not_run(point.spec, point.recipe, label=label, engine=engine)
        before = records.Ledger(folder / sweep.name).by_run().get(known.run_id, [])
        known = replace(known, attempt=len(before))
        records.write(_complete(known, started, **changes), [], folder / sweep.name)
    return folder / sweep.name


def _complete(known: Record, started: str, **changes) -> Record:
    return replace(
        known,
        outcome=Outcome.COMPLETE,
        error=None,
        started_utc=started,
        valid_bits_per_byte={"books": 2.0},
        train_tokens=1000,
        train_tokens_per_s=1e4,
        train_peak_bytes=2**28,
        baseline_bytes=0,
        prefill_tokens_per_s={64: 2e4},
        decode_ms={64: 1.0},
        cache_bytes={64: 2**14},
        **({"ops": "cpu"} | changes),
    )


def loaded(folder: Path) -> pd.DataFrame:
    return results.load("mini", folder=folder.parent)


def versions(torch: str) -> dict[str, str]:
    return {"python": "3", "torch": torch}


OTHER = {  # what makes trials another design or setting, and a word of what is said of it
    "recipe": ({"sweep": with_lr(0.5)}, "recipe.lr"),
    "text": ({"text_sha256": "b" * 64, "path": "b.txt"}, "text"),
    "engine": ({"ops": "reference", "engine": Engine(device="cpu", ops="reference")}, "ops"),
    "compiled": ({"compiled": "on", "engine": Engine(device="cpu", compile=Compile.ON)}, "compile"),
    "precision": ({"precision": "bf16"}, "precision"),
    "torch": ({"versions": versions("9.9")}, "torch"),
    "device": ({"device": "cuda"}, "device"),
    "tokenizer": ({"tokenizer_sha256": "u"}, "tokenizer"),
}


@pytest.fixture(params=OTHER)
def mixed(request, tmp_path) -> tuple[Path, str]:
    """Return a folder with the sweep, then all of it once more with one thing changed."""
    changes, said = OTHER[request.param]
    written(tmp_path)
    return written(tmp_path, **({"started": LATER} | changes)), said


LOOKS = {
    "by_arm": results.by_arm,
    "summary": lambda trials: explore.summary(trials, ("params",)),
    "paired": lambda trials: explore.paired(trials, "params", over="1:0"),
    "against": lambda trials: explore.against(trials, x="params", y="train_tokens"),
    "ratio": lambda trials: figures.ratio(trials, ARMS),
    "learning_rate": lambda trials: figures.learning_rate(trials, ARMS),
    "moe_grid": lambda trials: figures.moe_grid(trials, ARMS),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_no_mean_is_taken_over_two_designs(look, tmp_path):
    folder = written(tmp_path)
    written(tmp_path, with_lr(0.5), started=LATER)
    look(results.newest(loaded(folder)))
    with pytest.raises(ValueError, match=r"recipe\.lr: .* and 0\.5.*results\.newest"):
        look(loaded(folder))


def test_whatever_differs_is_named_and_the_newest_can_be_had(mixed):
    folder, said = mixed
    trials = loaded(folder)
    with pytest.raises(ValueError, match=said):
        results.by_arm(trials)
    newest = results.newest(trials)
    assert set(newest["started_utc"]) == {LATER}
    assert list(results.by_arm(newest).size()) == [2, 2]


def test_an_arm_on_one_text_and_an_arm_on_another_are_not_compared(tmp_path):
    folder = written(tmp_path, replace(SWEEP, arms=ARMS[:1]))
    written(tmp_path, replace(SWEEP, arms=ARMS[1:]), path="b.txt", text_sha256="b" * 64)
    with pytest.raises(ValueError, match="text"):
        results.by_arm(loaded(folder))
    with pytest.raises(ValueError, match="text"):
        table.as_markdown(loaded(folder), ARMS)


def test_arms_that_a_sweep_trains_on_texts_of_their_own_are_compared(tmp_path):
    folder = written(tmp_path)
    trials = loaded(folder).assign(own_text=lambda rows: rows["arm"])
    trials["text_sha256"] = trials["arm"]
    assert list(results.by_arm(trials).size()) == [2, 2]


def test_the_same_text_by_two_paths_is_one_trial_a_seed(tmp_path):
    folder = written(tmp_path)
    written(tmp_path, path="/elsewhere/a.txt", started=LATER)
    rows = results.by_arm(loaded(folder))
    assert list(rows.size()) == [2, 2]
    assert set(rows.obj["started_utc"]) == {LATER}


def test_a_null_of_older_records_is_what_they_ran_with(tmp_path):
    folder = written(tmp_path)
    path, older = "b.txt", {"compiled": None, "parallel": None, "world_size": None}
    now = {"compiled": "off", "parallel": "none", "world_size": 1}
    written(tmp_path, replace(SWEEP, arms=ARMS), path=path, **now)
    assert list(results.by_arm(loaded(folder)).size()) == [2, 2]
    assert all(loaded(folder)[name].isna().any() for name in older)


def test_a_recipe_of_newer_code_is_a_design_of_its_own(tmp_path):
    trials = loaded(written(tmp_path))
    newer = json.dumps(json.loads(trials["recipe"][0]) | {"later": 1})
    with pytest.raises(ValueError, match=r"recipe\.later"):
        results.by_arm(pd.concat([trials, trials[:1].assign(recipe=newer)]))


def shown(folder: Path, sweep=SWEEP) -> str:
    """Return what `table --markdown` prints of the sweep as it is now."""
    return report.of_sweep(sweep, "smoke", folder).markdown()


def test_the_table_is_of_the_sweep_as_it_is_now(tmp_path):
    folder = written(tmp_path)
    written(tmp_path, with_lr(0.5), started=LATER)
    for sweep in (SWEEP, with_lr(0.5)):  # also the one that did not run last
        assert [shown(folder, sweep).count(f"| {arm} | 2 |") for arm in ARMS] == [1, 1]
        assert "Not shown: 4 trials of another model, recipe or seed" in shown(folder, sweep)
    with pytest.raises(LookupError, match="8 trials of another model"):
        shown(folder, with_lr(0.25))


def test_seeds_that_the_sweep_no_longer_has_are_counted_apart(tmp_path):
    folder = written(tmp_path)
    said = shown(folder, replace(SWEEP, seeds={**SWEEP.seeds, "smoke": (0,)}))
    assert "| 1:0 | 1 |" in said
    assert "Not shown: 2 trials of another model, recipe or seed" in said


def test_a_table_is_of_the_text_that_was_trained_on_last(tmp_path):
    folder = written(tmp_path)
    written(tmp_path, path="b.txt", text_sha256="b" * 64, started=LATER)
    assert [shown(folder).count(f"| {arm} | 2 |") for arm in ARMS] == [1, 1]
    assert "Not shown: 4 trials on another text" in shown(folder)


def test_another_setting_has_rows_of_its_own_and_is_not_drawn(tmp_path):
    folder = written(tmp_path, versions=versions("1.0"))
    written(tmp_path, path="b.txt", versions=versions("2.0"), started=LATER)
    lines = [line for line in shown(folder).splitlines() if line.startswith("| 1:0 | 2 |")]
    assert [line.rsplit("|", 2)[1].strip() for line in lines] == ["torch 2.0", "torch 1.0"]
    found = report.of_sweep(SWEEP, "smoke", folder)
    assert "4 with torch 1.0" in found.left_out
    assert [path.suffix for path in found.draw()] == [".png", ".svg"]


def test_a_plan_shows_its_own_runs_and_says_that_there_are_others(tmp_path):
    from sweeps.plans.grid import Grid
    from sweeps.trial.records import Ledger

    folder = written(tmp_path)
    written(tmp_path, with_lr(0.5), started=LATER)
    engine = Engine(device="cpu", ops="cpu")
    grid = Grid(
        sweep=SWEEP,
        scale="smoke",
        source=TextFile(path="a.txt", text_sha256="a" * 64),
        engine=engine,
    )
    said = report.of_plan(grid, Ledger(folder)).markdown()
    assert "| 1:0 | 2 |" in said
    assert "Not shown: 4 of another design, text or engine" in said


def test_choosing_says_nothing_where_nothing_is_left_out(tmp_path):
    trials = loaded(written(tmp_path))
    found = designs.of_sweep(SWEEP, "smoke", trials)
    assert (len(found.trials), found.left_out) == (4, ())
    assert "Not shown" not in table.as_markdown(found.trials, ARMS, found.left_out)
    assert PackagedText() not in set(found.trials["own_text"])


GROUPED = ('groupby("arm"', 'groupby(\\"arm\\"', "groupby('arm'")
MAY = ("sweeps/results.py", "sweeps/designs.py", "sweeps/show/experts.py")  # the last: of shares


def test_nothing_else_groups_trials_by_the_name_of_an_arm():
    places = [
        p
        for top in ("sweeps", "ablations", "notebooks", "docs", "benchmarks")
        for p in (ROOT / top).rglob("*")
        if p.suffix in (".py", ".md", ".ipynb")
    ]
    wrong = [
        str(path.relative_to(ROOT))
        for path in [ROOT / "README.md", *places]
        if any(word in path.read_text() for word in GROUPED)
    ]
    assert sorted(set(wrong) - set(MAY)) == []


def test_a_table_of_an_arm_leaves_its_decay_branches_out(tmp_path):
    folder = written(tmp_path)
    shown = report.of_sweep(SWEEP, "smoke", folder).markdown()
    written(tmp_path, started=LATER, branch_of="trunk")
    assert report.of_sweep(SWEEP, "smoke", folder).markdown() == shown


def on(source):
    """Return the sweep with another source in its recipe."""

    def point(arm, seed, scale):
        spec, recipe = ratio.point(arm, seed, scale)
        return spec, replace(recipe, source=source)

    return replace(SWEEP, point=point)


BOOKS = PackagedText(domains=("books",))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (PackagedText(), BOOKS),
        (BOOKS, PackagedText()),
        (PackagedText(), PackagedCorpus()),
        (PackagedCorpus(), TextFile(path="a.txt")),
    ],
)
def test_trials_on_another_packaged_text_are_not_the_sweeps(before, now, tmp_path):
    for point in on(before).points("smoke", None):
        label = Label(sweep="mini", scale="smoke", arm=point.arm)
        known = not_run(point.spec, point.recipe, label=label, engine=Engine(device="cpu"))
        columns = {"text_sha256": "a" * 64, "tokenizer_sha256": "t", "precision": "fp32"}
        records.write(_complete(known, EARLIER, **columns), [], tmp_path / "mini")
    trials = results.complete(loaded(tmp_path / "mini"))
    assert len(designs.of_sweep(on(before), "smoke", trials).trials) == len(trials)
    found = designs.of_sweep(on(now), "smoke", trials)
    assert found.trials.empty
    assert "of another model, recipe or seed" in found.left_out[0]
