"""Names, seeds and numbers that people give: refused when a design is made, or kept apart."""

import math
import string
from collections.abc import Callable
from dataclasses import replace

import pytest

from ablations.tuned import Comparison
from hybrid.generate import Choice
from hybrid.model import build
from hybrid.spec import MLP, ModelSpec, Rope
from hybrid.units import parse_memory
from sweeps import catalog, results
from sweeps.plans.objectives import Constraint, Objective, bits_per_byte, cache_bytes
from sweeps.plans.search import Hunt
from sweeps.sweep import Sweep
from sweeps.trial import file_names, records, weights
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Label
from sweeps.tuning import Rates
from tests import tiny_search, tiny_sweep
from tests.commands import assert_one_sentence, invoke
from tests.models import HYBRID, SPECS, tiny
from tests.test_record import STEP, complete

SWEEP, SEARCH = tiny_sweep.SWEEP, tiny_search.SWEEP
ONE = {"smoke": (0,)}


def sweep(**changes) -> Sweep:
    small = {"arms": ("a", "b"), "seeds": ONE, "scales": {"smoke": 2}}
    return replace(SWEEP, **{**small, **changes})


def scale(name: str, seeds: tuple = (0,)) -> dict:
    return {"seeds": {name: seeds}, "scales": {name: 2}}


# Names


BAD_ARMS = {
    "dense/moe": "must not have '/'",
    "a\\b": "must not have",
    "a\nb": r"must not have '\\n'",
    "a\0": "must not have",
    "a*": r"must not have '\*'",
    "[x]": r"must not have '\['",
    "half \ud800": "must not have",
    "": "not empty",
    " a": "no blank at its ends",
    "b" * 240: "may have 255",
    "ü" * 120: "may have 255",  # 240 bytes
}


@pytest.mark.parametrize(("arm", "said"), BAD_ARMS.items())
def test_an_arm_that_is_no_part_of_a_file_name_is_refused(arm, said):
    with pytest.raises(ValueError, match=said) as raised:
        sweep(arms=("x", arm))
    assert str(raised.value).startswith("Sweep 'tiny': arm")


PAIRS = [("1:0", "1to0"), ("a", "a"), ("é", "e\u0301"), ("A", "a"), ("straße", "STRASSE")]


@pytest.mark.parametrize("pair", PAIRS)
def test_two_arms_that_are_one_file_name_are_refused(pair):
    with pytest.raises(ValueError, match=r"given twice|make one file name"):
        sweep(arms=pair)


GOOD_ARMS = ("n2 K1 e1", "1:0", "two of n, equal shape lr 0.001", "50%", "a#b", "größe", "-1", ".5")


def test_arms_that_file_systems_take_are_taken_and_stay_apart():
    made = sweep(arms=GOOD_ARMS)
    ids = {file_names.run_id("tiny", "smoke", arm, 0, "0" * 8) for arm in made.arms}
    assert len(ids) == len(GOOD_ARMS)
    assert file_names.run_id("ratio", "cpu", "1:0", 3, "3f9c2a1b") == "ratio-cpu-1to0-s3-3f9c2a1b"


def test_committed_run_ids_are_what_their_rows_make():
    """Except for the hash, which is of the spec and the recipe."""
    folders = results.sweeps(results.PUBLISHED)
    assert folders
    for record in [r for folder in folders for r in records.read(folder)]:
        head, _, digest = record.run_id.rpartition("-")
        made = file_names.run_id(record.sweep, record.scale, record.arm, record.seed, digest)
        assert made == record.run_id, head


@pytest.mark.parametrize(
    "name", ["", "../evil", "a/b", "-x", ".x", "a@b", "a:b", "x.py", "bench", "Eval", "a\tb", "a "]
)
def test_a_name_that_is_no_folder_of_a_sweep_is_refused(name):
    for design, kind in ((SWEEP, "Sweep: name"), (SEARCH, "Search: name")):
        with pytest.raises(ValueError, match=kind):
            replace(design, name=name)
    with pytest.raises(ValueError, match="Label: sweep"):
        Label(sweep=name)


@pytest.mark.parametrize("name", ["", "a/b", "-x", "a@b", "a:b"])
def test_a_scale_that_is_no_option_is_refused(name):
    with pytest.raises(ValueError, match="Sweep 'tiny': scale"):
        sweep(**scale(name))
    with pytest.raises(ValueError, match="Label: scale"):
        Label(scale=name)


@pytest.mark.parametrize("name", ["small-long", "my scale", "v1.5"])
def test_a_scale_may_have_hyphens_blanks_and_dots(name):
    assert list(sweep(**scale(name)).scales) == [name]


def test_scale_and_arm_are_not_glued_into_one_name_twice():
    with pytest.raises(ValueError, match="scale and arm: 'a-b-c' is given twice"):
        sweep(arms=("c", "b-c"), seeds={"a": (0,), "a-b": (0,)}, scales={"a": 1, "a-b": 1})


def test_a_label_is_checked_for_trials_that_no_sweep_asks_for():
    with pytest.raises(ValueError, match="Label: arm"):
        Label(arm="a/b")


def test_the_longest_arm_can_be_written_and_a_longer_one_is_refused(tmp_path):
    other = len(file_names.run_id("tiny", "smoke", "", 0, "0" * 8)) + file_names.GLUED
    arm = "x" * (file_names.MOST_BYTES - other)
    sweep(arms=(arm,))
    with pytest.raises(ValueError, match="may have 255"):
        sweep(arms=(arm + "x",))
    run_id = file_names.run_id("tiny", "smoke", arm, 0, "0" * 8)
    record = replace(complete(), run_id=run_id, attempt=999)
    records.write(record, [STEP], tmp_path)
    weights.save(build(HYBRID), weights.path_of(record, tmp_path))
    assert [r.run_id for r in records.read(tmp_path)] == [run_id]
    too_long = replace(record, run_id=run_id + "x")
    with pytest.raises(OSError, match="File name too long"):
        weights.save(build(HYBRID), weights.path_of(too_long, tmp_path))


# Designs


BAD_DESIGNS = {
    "no arms": ({"arms": ()}, "at least one name"),
    "arms in one word": ({"arms": "ab"}, "must be a tuple"),
    "no seeds": (scale("smoke", ()), "at least one seed"),
    "a seed alone": ({"seeds": {"smoke": 3}}, "must be a tuple of at least one seed"),
    "a seed twice": (scale("smoke", (0, 0)), "must be distinct"),
    "a seed below 0": (scale("smoke", (-1,)), "whole number from 0"),
    "a seed beyond int64": (scale("smoke", (2**63,)), "whole number from 0"),
    "a seed that is no number": (scale("smoke", (True,)), "whole number from 0"),
    "a scale without seeds": ({"seeds": {"cpu": (0,)}}, r"seeds is for \['cpu'\]"),
    "no scales": ({"seeds": {}, "scales": {}}, "at least one scale"),
}


@pytest.mark.parametrize(("changes", "said"), BAD_DESIGNS.values(), ids=BAD_DESIGNS)
def test_an_empty_or_doubled_sweep_is_refused(changes, said):
    with pytest.raises(ValueError, match=said) as raised:
        sweep(**changes)
    assert str(raised.value).startswith("Sweep 'tiny'")


def named(name: str) -> Objective:
    return replace(bits_per_byte(), name=name)


BAD_SEARCHES = {
    "nothing to try": ({"n_trials": {"smoke": 0}}, "n_trials=0 must be an integer of 1"),
    "less than nothing": ({"n_trials": {"smoke": -3}}, "n_trials=-3"),
    "half a trial": ({"n_trials": {"smoke": 2.5}}, "n_trials=2.5"),
    "another scale": ({"n_trials": {"cpu": 2}}, r"n_trials is for \['cpu'\]"),
    "no seeds": ({"seeds": ()}, "at least one seed"),
    "a seed twice": ({"seeds": (1, 1), "rungs": ()}, "must be distinct"),
    "the seed of tuning": ({"seeds": (77,)}, "is for tuning"),
    "no objective": ({"objectives": ()}, "at least one objective"),
    "an objective twice": ({"objectives": (named("a"), named("a"))}, "'a' is given twice"),
    "pairs of one name": (
        {"objectives": tuple(map(named, ("a", "b-c", "a-b", "c")))},
        "pairs of objectives: 'a-b-c' is given twice",
    ),
    "a long objective": ({"objectives": (named("x" * 240),)}, "may have 255"),
    "a rung that is no fraction": ({"rungs": (1.5,)}, "must lie in 0..1"),
    "no margin": ({"margin": math.nan}, "margin=nan"),
    "a slack of nothing": ({"slack": {"speed": 1.0}}, "by names of objectives"),
    "an endless slack": ({"slack": {"cache_bytes": math.inf}}, "must hold finite numbers"),
}


@pytest.mark.parametrize(("changes", "said"), BAD_SEARCHES.values(), ids=BAD_SEARCHES)
def test_an_empty_or_doubled_search_is_refused(changes, said):
    with pytest.raises(ValueError, match=said) as raised:
        replace(SEARCH, **changes)
    assert str(raised.value).startswith("Search 'tiny-search'")


def test_two_constraints_of_one_name_are_refused():
    twice = tuple(
        Constraint(name="same", limit=limit, by_arithmetic=lambda *_: 0.0) for limit in (1, 2)
    )
    with pytest.raises(ValueError, match="constraints: 'same' is given twice"):
        Hunt(
            search=replace(SEARCH, constraints=lambda steps: twice),
            scale="smoke",
            engine=Engine(device="cpu"),
        )


@pytest.mark.parametrize("name", ["a/b", "", "a\nb"])
def test_what_a_search_wants_has_a_name_for_its_figures(name):
    with pytest.raises(ValueError, match="Objective: name"):
        named(name)
    with pytest.raises(ValueError, match="Constraint: name"):
        Constraint(name=name, limit=1.0, by_arithmetic=lambda *_: 0.0)


def test_a_direction_is_one_that_optuna_knows():
    with pytest.raises(ValueError, match="must be minimize or maximize"):
        replace(cache_bytes(), direction="up")


RATES = {"smoke": Rates(grid=(1e-3, 1e-2), seed=77)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tuned_on": sweep(name="other", arms=("a", "c"))}, "must be those of what it is tuned"),
        ({"tuned_on": sweep(name="other", arms=("a",))}, "must be those of what it is tuned"),
        ({"tuned_on": sweep(name="other", **scale("cpu"))}, "tuned_on='other' is for"),
        ({"rates": {"cpu": RATES["smoke"]}}, "rates is for"),
        ({"rates": {"smoke": Rates(grid=(1.0,), seed=0)}}, "seed 0 is for tuning"),
    ],
)
def test_a_comparison_is_tuned_on_its_own_arms_scales_and_other_seeds(changes, said):
    Comparison(sweep=sweep(), rates=RATES, tuned_on=sweep(name="other"))
    with pytest.raises(ValueError, match=said):
        Comparison(**{"sweep": sweep(), "rates": RATES, **changes})


def test_a_point_that_ignores_its_seed_is_refused():
    def careless(arm: str, seed: int, steps: int) -> tuple[ModelSpec, Recipe]:
        return tiny_sweep.point("h", 0, steps)

    wrong = sweep(point=careless, seeds={"smoke": (0, 1)})
    with pytest.raises(ValueError, match="seed 1: the recipe must have this seed, got seed=0"):
        wrong.points("smoke", tiny_sweep.point("h", 0, 1)[1].source)


# Numbers


def recipe(**changes) -> Recipe:
    return Recipe(**{"steps": 1, "batch": 1, "tokens": 8, "lr": 1e-3, **changes})


NUMBERS: dict[str, tuple[Callable[[], object], str]] = {
    "seed": (lambda: recipe(seed=2**63), f"seed={2**63}"),
    "tokens": (lambda: recipe(steps=2**40, batch=2**20, tokens=8), "tokens; a record can hold"),
    "context": (lambda: recipe(contexts=(2**63,)), f"contexts={2**63}"),
    "lr": (lambda: recipe(lr=math.inf), "lr=inf"),
    "lr nan": (lambda: recipe(lr=math.nan), "lr=nan"),
    "clip": (lambda: recipe(clip_norm=math.inf), "clip_norm=inf"),
    "decay": (lambda: recipe(weight_decay=math.inf), "weight_decay=inf"),
    "balance": (lambda: recipe(balance=math.inf), "balance=inf"),
    "betas": (lambda: recipe(betas=(0.9, 1.0)), "betas="),
    "betas nan": (lambda: recipe(betas=(math.nan, 0.9)), "betas="),
    "theta": (lambda: Rope(theta=math.inf), "theta=inf"),
    "eps": (lambda: replace(HYBRID, norm_eps=math.inf), "norm_eps=inf"),
    "width": (lambda: MLP(hidden=2**63), f"hidden={2**63}"),
    "temperature": (lambda: Choice(temperature=math.inf), "temperature=inf"),
    "top_k": (lambda: Choice(top_k=2**63), f"top_k={2**63}"),
    "rates": (lambda: Rates(grid=(1e-3, math.inf)), "grid="),
    "rates nan": (lambda: Rates(grid=(math.nan,)), "grid="),
    "rate twice": (lambda: Rates(grid=(1e-3, 1e-3)), "each rate once"),
    "rates seed": (lambda: Rates(grid=(1e-3,), seed=2**63), "Rates: seed"),
    "limit": (lambda: Constraint(name="a", limit=math.nan, early=lambda _: 0.0), "limit=nan"),
    "memory": (lambda: parse_memory("9" * 400 + "GB"), "must be a whole number"),
}


@pytest.mark.parametrize(("make", "said"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_that_no_record_can_hold_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_the_largest_numbers_are_taken():
    assert recipe(seed=2**63 - 1, tokens=2**63 - 1).seed == 2**63 - 1
    Choice(top_k=2**63 - 1)


def test_a_model_of_more_parameters_than_a_record_can_hold_is_no_point():
    layer = replace(SPECS["hybrid"].layers[0], feed_forward=MLP(hidden=2**62))
    wrong = sweep(point=lambda arm, seed, steps: (tiny(layer), recipe(seed=seed)))
    with pytest.raises(ValueError, match="more than a record can hold"):
        wrong.points("smoke", recipe().source)


@pytest.mark.parametrize("value", [2**64, 2**63, -1])
@pytest.mark.parametrize("option", ["--seed", "--top-k"])
def test_an_option_that_no_generator_can_hold_is_named(option, value):
    done = invoke(f"generate nothing {option} {value}")
    assert done.exit_code == 2
    assert option in done.output
    assert "or equal to" in " ".join(done.output.split())


# Files and commands


FILE = string.Template("""\
from dataclasses import replace
from tests.tiny_sweep import SWEEP as TINY

SWEEP = replace(
    TINY, $change
)
""")
CHANGES = ("arms=('a', 'x/y')", "arms=()", "name='../evil'", "seeds={'smoke': (0, 0)}")


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_with_a_wrong_design_is_refused_with_its_line(change, tmp_path, monkeypatch):
    file, stand = tmp_path / "my.py", tmp_path / "stand"
    file.write_text(FILE.substitute(change=change))
    stand.mkdir()
    monkeypatch.chdir(stand)
    for command in ("run", "rebuild", "table", "plot"):
        assert_one_sentence(f"{command} {file} --scale smoke", f"{file}, line 4: Sweep", stand)


def test_the_catalog_is_made_of_valid_designs():
    assert catalog.SWEEPS
    for design in catalog.SWEEPS.values():
        file_names.require_folder_name("name", design.name)
