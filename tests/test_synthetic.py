"""Laws that every task obeys, what each one asks, and a trial on tasks from end to end.

One file: the laws run over all tasks, which are listed once.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ablations import rows
from ablations.figures import losses
from ablations.rows import NotRun
from hybrid import codec
from hybrid.spec import ModelSpec
from sweeps import results
from sweeps.plans.grid import Grid, held_out_value
from sweeps.plans.objectives import bits_per_byte, task_error
from sweeps.show import table
from sweeps.show.progress import held_out as held_out_line
from sweeps.sweep import Sweep
from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import PackagedText, Source, Stage, Synthetic, TextFile, on_text
from sweeps.trial.data.synthetic import (
    KINDS,
    accuracy,
    answer,
    chance,
    draw,
    few_shot,
    held_out,
    phonebook,
    scores,
)
from sweeps.trial.data.synthetic.kind import UNSCORED, distinct
from sweeps.trial.data.tasks import (
    MQAR_HARDER,
    MQAR_PUBLISHED,
    Cycle,
    FewShot,
    Filler,
    Induction,
    Mqar,
    Needle,
    NoisyFewShot,
    Phonebook,
    Probe,
    Recall,
    SelectiveCopy,
    Task,
    TwoHop,
    Xor,
)
from sweeps.trial.engine import Engine
from sweeps.trial.material import open_material
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Label, Outcome
from sweeps.trial.run import not_run, run
from tests.models import SPECS

TASKS: dict[str, tuple[Task, int]] = {  # each kind, and the least length it can have
    "recall": (Recall(), 4),
    "xor": (Xor(), 2),
    "mqar": (Mqar(pairs=3), 12),
    "selective copy": (SelectiveCopy(symbols=3), 6),
    "induction": (Induction(), 3),
    "cycle": (Cycle(longest=3), 4),
    "needle": (Needle(needles=3), 11),
    "needle at a depth": (Needle(needles=3, depth=0.5), 11),
    "one needle": (Needle(needles=1, depth=1.0), 3),
    "phonebook": (Phonebook(name_tokens=2, number_tokens=3, queries=2), 22),
    "few-shot": (FewShot(classes=3, synonyms=4), 7),
    "noisy few-shot": (NoisyFewShot(classes=3, labels=6), 7),
    "two hops": (TwoHop(chains=3), 15),
    "mqar without decoys": (Mqar(pairs=3, filler=Filler.OTHER), 12),
}
VOCAB = 16
every_task = pytest.mark.parametrize(("task", "least"), TASKS.values(), ids=TASKS)
DECIDED = {name: x for name, x in TASKS.items() if not KINDS[type(x[0])].noisy}
decided_task = pytest.mark.parametrize(("task", "least"), DECIDED.values(), ids=DECIDED)


def drawn(task: Task, step: int = 0, split: Split = Split.TRAIN, **sizes: int):
    given = {"batch": 16, "length": 33, "vocab": VOCAB} | sizes
    return draw(task, seed=1, step=step, split=split, **given)


# ---- laws ----------------------------------------------------------------------------------------


def test_every_kind_is_under_these_laws():
    assert {type(task) for task, _ in TASKS.values()} == set(KINDS)


@decided_task
def test_the_answer_is_always_right(task, least):
    for length in (least, least + 1, least + 2, 33, 64):
        for vocab in (VOCAB, 64, 256):
            ids_BT, targets_BT = drawn(task, step=length, length=length, vocab=vocab)
            assert ids_BT.shape == targets_BT.shape == (16, length)
            assert ids_BT.dtype == targets_BT.dtype == torch.int64
            assert 0 <= ids_BT.min() <= ids_BT.max() < vocab
            assert accuracy(answer(task, ids_BT), targets_BT) == 1.0


@every_task
def test_every_sequence_has_as_many_scored_positions(task, least):
    for length in (least, 33, 64):
        _, targets_BT = drawn(task, length=length)
        counts_B = (targets_BT != UNSCORED).sum(dim=1)
        assert counts_B.min() == counts_B.max() > 0


@every_task
def test_the_answer_never_looks_ahead(task, least):
    ids_BT, targets_BT = drawn(task)
    answer_BT = answer(task, ids_BT)
    for seen in range(1, 34):
        scored_B = targets_BT[:, seen - 1] != UNSCORED
        last_B = answer(task, ids_BT[:, :seen])[:, -1]
        assert torch.equal(last_B[scored_B], answer_BT[scored_B, seen - 1])


@every_task
def test_the_present_token_alone_gives_no_more_than_chance(task, least):
    """The best table from present token to answer, fitted to the data that it is scored on."""
    ids_BT, targets_BT = drawn(task, batch=6_000, length=max(least, 14))
    counts = torch.zeros(VOCAB, VOCAB)
    scored_BT = targets_BT != UNSCORED
    pair = (ids_BT[scored_BT], targets_BT[scored_BT])
    counts.index_put_(pair, torch.ones(len(pair[0])), accumulate=True)
    best = counts.max(dim=1).values.sum() / counts.sum()
    assert best.item() == pytest.approx(chance(task, VOCAB), abs=0.03)


@every_task
def test_a_batch_is_a_function_of_its_arguments(task, least):
    first = drawn(task, step=2)
    assert all(map(torch.equal, first, drawn(task, step=2)))
    others = [
        drawn(task, step=3),
        drawn(task, step=2, split=Split.VALID),
        drawn(task, step=2, split=Split.TEST),
        draw(task, seed=2, step=2, split=Split.TRAIN, batch=16, length=33, vocab=VOCAB),
    ]
    for other in others:
        assert not torch.equal(first[0], other[0])


def test_no_two_splits_seeds_or_steps_share_a_draw():
    """Of so many tokens that no two sequences are alike by chance."""
    rows = [
        tuple(row)
        for split in Split
        for seed in range(4)
        for step in range(4)
        for row in draw(Xor(), seed=seed, step=step, split=split, batch=4, length=32, vocab=256)[
            0
        ].tolist()
    ]
    assert len(set(rows)) == len(rows) == 3 * 4 * 4 * 4


def test_held_out_draws_are_the_same_for_all_and_no_more_than_asked_for():
    probe = Probe(task=Mqar(pairs=2), length=16)
    found = list(held_out(probe, split=Split.VALID, vocab=VOCAB, batch=3, limit_tokens=16 * 8 + 15))
    assert [len(ids_BT) for ids_BT, _ in found] == [3, 3, 2]
    assert (
        len(next(held_out(probe, split=Split.TEST, vocab=VOCAB, batch=3, limit_tokens=1))[0]) == 1
    )
    train = drawn(probe.task, batch=3, length=16)[0]
    assert not torch.equal(found[0][0], train)


@pytest.mark.parametrize(
    ("task", "sizes", "message"),
    [
        (Recall(), {"length": 3}, r"Recall\(\): length must be at least 4 .*got 3"),
        (Recall(), {"vocab": 3}, "vocab must be at least 4 .*got 3"),
        (Xor(), {"length": 1}, "length must be at least 2, got 1"),
        (Xor(), {"vocab": 12}, "vocab must be a power of two .*got 12"),
        (Mqar(pairs=4), {"length": 15}, r"Mqar\(pairs=4, .*\): length must be at least 16, got 15"),
        (Mqar(pairs=4), {"vocab": 9}, "vocab must be at least 10, got 9"),
        (SelectiveCopy(symbols=8), {"length": 15}, "length must be at least 16, got 15"),
        (SelectiveCopy(symbols=8), {"vocab": 3}, "vocab must be at least 4 .*got 3"),
        (Induction(), {"length": 2}, "length must be at least 3, got 2"),
        (Induction(), {"vocab": 2}, "vocab must be at least 3 .*got 2"),
        (Needle(needles=4), {"length": 14}, "length must be at least 15, got 14"),
        (Needle(needles=4), {"vocab": 15}, "vocab must be at least 16, got 15"),
        (Phonebook(), {"length": 9}, "length must be at least 10 .*got 9"),
        (Phonebook(), {"vocab": 3}, "vocab must be at least 4 .*got 3"),
        (Phonebook(), {"vocab": 4}, r"vocab must spell 4 names of 2 tokens .*got 4"),
        (FewShot(classes=3, synonyms=4), {"length": 6}, "length must be at least 7, got 6"),
        (FewShot(classes=3, synonyms=4), {"vocab": 14}, "vocab must be at least 15, got 14"),
        (NoisyFewShot(classes=3, labels=8), {"length": 6}, "length must be at least 7, got 6"),
        (NoisyFewShot(classes=3, labels=8), {"vocab": 10}, "vocab must be at least 11, got 10"),
        (TwoHop(chains=3), {"length": 14}, "length must be at least 15, got 14"),
        (TwoHop(chains=3), {"vocab": 9}, "vocab must be at least 10, got 9"),
    ],
)
def test_a_task_that_cannot_be_drawn_says_why(task, sizes, message):
    with pytest.raises(ValueError, match=message):
        drawn(task, **sizes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mqar(pairs=0), "Mqar: pairs=0 must be a whole number of at least 1"),
        (lambda: SelectiveCopy(symbols=1.5), "SelectiveCopy: symbols=1.5"),
        (lambda: Needle(needles=0), "Needle: needles=0"),
        (lambda: Needle(depth=1.5), r"Needle: depth=1.5 must lie in 0\.\.1"),
        (lambda: Phonebook(queries=0), "Phonebook: queries=0"),
        (lambda: FewShot(classes=1, synonyms=2), "classes=1 must be a whole number of at least 2"),
        (lambda: Mqar(pairs=2, filler="some"), "filler='some' must be one of any, other"),
        (lambda: NoisyFewShot(classes=1, labels=4), "classes=1 must be a whole number of at least"),
        (lambda: NoisyFewShot(classes=2, labels=4, right=0.25), "right=0.25 must be above .*0.25"),
        (lambda: NoisyFewShot(classes=2, labels=4, right=1.5), "right=1.5 must be .* at most 1"),
        (lambda: TwoHop(chains=1), "TwoHop: chains=1 must be a whole number of at least 2"),
        (lambda: Probe(task=Xor(), length=0), "Probe: length=0"),
        (lambda: Stage(tasks=(), end=3), r"Stage\.tasks must be a tuple of at least one"),
        (lambda: Stage(tasks=(Xor(),), end=0), "Stage.end=0 must be a whole number of at least 1"),
        (
            lambda: replace(SOURCE, curriculum=(Xor(),)),
            r"Synthetic\.curriculum holds Xor\(\), which is none",
        ),
        (
            lambda: replace(SOURCE, curriculum=(Stage(tasks=(Xor(),), end=3),) * 2),
            r"stages that end at \[3, 3\], each must end after",
        ),
        (lambda: Synthetic(tasks=(), probes=()), r"Synthetic\.tasks must be a tuple of at least"),
        (lambda: Synthetic(tasks=(Xor(),), probes=(Xor(),)), r"Synthetic\.probes holds Xor\(\)"),
        (
            lambda: Synthetic(tasks=(Xor(),), probes=(Probe(task=Xor(), length=8),) * 2),
            "two called 'length 8'",
        ),
    ],
)
def test_a_wrong_task_cannot_exist(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- what single tasks ask -----------------------------------------------------------------------


def test_distinct_numbers_are_a_fair_draw():
    rng = np.random.default_rng(0)
    drawn_BC = distinct(rng, 20_000, 3, 5)
    assert all(len(set(row)) == 3 for row in drawn_BC.tolist())
    for place in range(3):
        shares = np.bincount(drawn_BC[:, place], minlength=5) / 20_000
        assert shares == pytest.approx(0.2, abs=0.015)


def test_recall_scores_keys_that_came_before_with_the_token_that_follows():
    ids_BT, targets_BT = drawn(Recall(), vocab=8)
    scored_BT = targets_BT != UNSCORED
    assert (ids_BT[scored_BT] < 4).all()
    assert (targets_BT[scored_BT] >= 4).all()
    assert torch.equal(targets_BT[:, :-1][scored_BT[:, :-1]], ids_BT[:, 1:][scored_BT[:, :-1]])


@pytest.mark.parametrize(("length", "pairs"), MQAR_PUBLISHED + MQAR_HARDER)
def test_mqar_is_as_published(length, pairs):
    ids_BT, targets_BT = drawn(Mqar(pairs=pairs), length=length, vocab=8192, batch=4)
    scored_BT = targets_BT != UNSCORED
    for ids_T, targets_T, scored_T in zip(ids_BT, targets_BT, scored_BT, strict=True):
        keys, values = ids_T[: 2 * pairs : 2], ids_T[1 : 2 * pairs : 2]
        assert keys.unique().numel() == values.unique().numel() == pairs
        assert 0 < keys.min() <= keys.max() < 4096 <= values.min()
        assert sorted(ids_T[scored_T].tolist()) == sorted(keys.tolist())
        assert sorted(targets_T[scored_T].tolist()) == sorted(values.tolist())


def test_mqar_asks_most_keys_soon():
    _, targets_BT = drawn(Mqar(pairs=4), length=256, vocab=64, batch=256)
    asked = (targets_BT != UNSCORED).nonzero()[:, 1]
    assert asked.min() == 8
    assert asked.double().median() < 8 + (256 - 8) / 4


@pytest.mark.parametrize(("depth", "place"), [(0.0, 1), (0.5, 13), (1.0, 25)])
def test_a_needle_stands_at_its_depth_and_alone_is_scored(depth, place):
    ids_BT, targets_BT = drawn(Needle(needles=3, depth=depth), length=32)
    (asked,) = {int(x) for x in (targets_BT != UNSCORED).nonzero()[:, 1]}
    assert asked == 32 - 5
    assert torch.equal(ids_BT[:, place], ids_BT[:, asked])
    assert torch.equal(ids_BT[:, place + 1], targets_BT[:, asked])


def test_the_names_of_a_phonebook_differ_and_its_length_says_how_many():
    task = Phonebook(name_tokens=2, number_tokens=3, queries=1)
    ids_BT, _ = drawn(task, length=64, vocab=10)
    assert phonebook.entries(task, 64) == 10
    for row in ids_BT.tolist():
        names = [tuple(row[start : start + 2]) for start in range(0, 60, 6)]
        assert len(set(names)) == 10
        assert tuple(row[60:62]) in names


def test_few_shot_labels_are_one_synonym_of_each_class():
    task = FewShot(classes=3, synonyms=4)
    ids_BT, targets_BT = drawn(task, length=31, vocab=64)
    for ids_T, targets_T in zip(ids_BT, targets_BT, strict=True):
        labels, items = ids_T[1::2], ids_T[0::2]
        assert torch.equal(labels // 4, (items[:15] - 12) % 3)
        assert labels.unique().numel() == 3
        assert set(targets_T[targets_T != UNSCORED].tolist()) <= set(labels.tolist())


def test_knowing_the_class_but_not_the_format_is_told_apart():
    """A model that answers with any synonym of the right class is free 1/4, forced 1, mass 1/4."""
    task = FewShot(classes=3, synonyms=4)
    ids_BT, targets_BT = drawn(task, length=31, vocab=64, batch=2_000)
    scored_BT = targets_BT != UNSCORED
    right_n = targets_BT[scored_BT] // 4
    synonyms_nV = (torch.arange(64) // 4 == right_n[:, None]) & (torch.arange(64) < 12)
    noise = torch.rand(synonyms_nV.shape, generator=torch.Generator().manual_seed(0))
    logits_nV = torch.where(synonyms_nV, 20.0, -20.0) + 1e-3 * noise
    found = scores(Probe(task=task, length=31), ids_BT, targets_BT, logits_nV)
    means = {key.removeprefix("length 31 classes 3 synonyms 4 "): x for key, x in found.items()}
    assert means["free"].double().mean().item() == pytest.approx(1 / 4, abs=0.02)
    assert means[few_shot.FORCED].all()
    assert means[few_shot.LEGAL_MASS].mean().item() == pytest.approx(1 / 4, abs=0.02)


# ---- as a source ---------------------------------------------------------------------------------

PROBES = (
    Probe(task=Mqar(pairs=2), length=16),
    Probe(task=Mqar(pairs=2), length=24),
    Probe(task=FewShot(classes=2, synonyms=2), length=12),
)
SOURCE = Synthetic(tasks=(Mqar(pairs=2), FewShot(classes=2, synonyms=2)), probes=PROBES)
RECIPE = Recipe(
    source=SOURCE,
    steps=4,
    batch=8,
    tokens=16,
    lr=3e-3,
    precision=Precision.FP32,
    valid_tokens=512,
    contexts=(16,),
)
SPEC = replace(SPECS["hybrid"], vocab=32)
CPU = Engine(device="cpu")


def test_a_source_of_tasks_survives_json():
    every = tuple(Probe(task=task, length=64 + i) for i, (task, _) in enumerate(TASKS.values()))
    source = Synthetic(tasks=tuple(probe.task for probe in every), probes=every)
    assert codec.loads(Source, codec.dumps(source)) == source
    assert codec.loads(Recipe, codec.dumps(RECIPE)) == RECIPE
    with pytest.raises(ValueError, match="kind='Mqra' must be one of"):
        codec.loads(Source, codec.dumps(source).replace("Mqar", "Mqra"))


def test_a_text_that_is_given_takes_the_place_of_text_alone():
    given = TextFile(path="my.txt")
    assert on_text(PackagedText(), given) == given
    assert on_text(SOURCE, given) == SOURCE
    for own in (PackagedText(), TextFile(path="own.txt"), PackagedText(domains=("books",)), SOURCE):
        assert on_text(own, None) == own


@pytest.mark.parametrize("given", [TextFile(path="my.txt"), PackagedText()])
@pytest.mark.parametrize("own", [TextFile(path="own.txt"), PackagedText(domains=("books",))])
def test_a_text_beside_a_recipes_own_is_refused(own, given):
    with pytest.raises(ValueError, match=r"names its own text.*Leave out --text"):
        on_text(own, given)


def test_a_text_beside_a_recipe_that_names_the_same_is_no_other():
    own = TextFile(path="a.txt", text_sha256="0" * 64)
    assert on_text(own, TextFile(path="b.jsonl", text_sha256="0" * 64)) == own
    with pytest.raises(ValueError, match="names its own text"):
        on_text(own, TextFile(path="a.txt", text_sha256="1" * 64))


def test_tasks_are_trained_on_in_turn():
    material = open_material(SOURCE, vocab=32, tokens=16)
    for step in range(4):
        task = SOURCE.tasks[step % 2]
        expected = draw(task, seed=7, step=step, split=Split.TRAIN, batch=8, length=16, vocab=32)
        found = material.train_batch(seed=7, step=step, batch=8, length=16)
        assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize("tasks", [{"tasks": (Mqar(pairs=20),)}, {"probes": (PROBES[2],)}])
def test_what_does_not_fit_is_known_before_training(tasks):
    small = 4 if "probes" in tasks else 32
    with pytest.raises(ValueError, match=r"must be at least \d+, got"):
        open_material(replace(SOURCE, **tasks), vocab=small, tokens=16)


@pytest.fixture(scope="module")
def record():
    return run(SPEC, replace(RECIPE, measure_test=True), engine=CPU)


def test_a_record_of_tasks_holds_accuracy_and_nothing_of_text(record):
    assert record.outcome is Outcome.COMPLETE, record.error
    few = "length 12 classes 2 synonyms 2"
    keys = ["length 16 pairs 2", "length 24 pairs 2"]
    keys += [f"{few} free", f"{few} forced", f"{few} legal mass"]
    assert list(record.task_accuracy) == list(record.test_task_accuracy) == keys
    assert all(0 <= share <= 1 for share in record.task_accuracy.values())
    assert record.task_accuracy != record.test_task_accuracy
    assert record.valid_bits_per_byte is record.test_bits_per_byte is None
    assert record.tokenizer_sha256 is record.text_sha256 is None
    loads = torch.tensor(record.expert_load)
    torch.testing.assert_close(loads.sum(dim=1), torch.tensor([2.0, 2.0]))


def test_validation_is_the_same_whether_or_not_the_test_is_measured(record):
    again = run(SPEC, RECIPE, engine=CPU)
    assert again.task_accuracy == record.task_accuracy
    assert again.test_task_accuracy is None


def test_a_vocabulary_too_small_is_an_outcome_that_says_so():
    record = run(replace(SPEC, vocab=4), RECIPE, engine=CPU)
    assert record.outcome is Outcome.FAILED
    assert "Mqar(pairs=2, filler=<Filler.ANY: 'any'>): vocab must be at least 6, got 4" in (
        record.error
    )


def test_training_teaches_a_task_and_the_record_shows_it():
    task = Recall()
    source = Synthetic(tasks=(task,), probes=(Probe(task=task, length=16),))
    recipe = replace(
        RECIPE, source=source, steps=150, batch=32, lr=1e-2, weight_decay=0.0, valid_tokens=4096
    )
    record = run(replace(SPECS["mixer-mamba"], vocab=16), recipe, engine=CPU)
    assert record.task_accuracy["length 16"] > chance(task, 16) + 0.2, record.task_accuracy
    assert held_out_value(record) == 1 - record.task_accuracy["length 16"]


def test_what_is_told_of_a_record_of_tasks(record):
    accuracies = list(record.task_accuracy.values())
    error = 1 - sum(accuracies) / len(accuracies)
    assert held_out_value(record) == pytest.approx(error)
    assert task_error().of(record) == pytest.approx(error)
    with pytest.raises(ValueError, match="valid_bits_per_byte was not measured"):
        bits_per_byte().of(record)
    assert held_out_line(record).startswith("share right: length 16 pairs 2 0.")
    trials = pd.DataFrame([results.flatten(record)])
    headings = [column.heading for column in table.columns(trials)]
    assert "length 16 pairs 2, share right" in headings
    assert results.held_out(trials)[0] == "task_accuracy"


# ---- in a sweep and in a design ------------------------------------------------------------------


def point(arm: str, seed: int, scale: float) -> tuple[ModelSpec, Recipe]:
    return SPEC, replace(RECIPE, seed=seed, lr=scale * (1 + ARMS.index(arm)))


ARMS = ("a", "b")
SWEEP = Sweep(
    name="on-tasks",
    question="Does a text that is given leave tasks alone?",
    arms=ARMS,
    seeds={"smoke": (0, 1)},
    scales={"smoke": 1e-3},
    point=point,
    matched=None,
    figure=losses,
)


def rows_of(sweep: Sweep) -> pd.DataFrame:
    label = Label(sweep=sweep.name, scale="smoke")
    found = []
    for p in sweep.points("smoke", TextFile(path="my.txt")):
        known = not_run(p.spec, p.recipe, label=replace(label, arm=p.arm), engine=CPU)
        share = 0.5 + 0.1 * p.seed + 0.2 * ARMS.index(p.arm)
        right = {"length 16 pairs 2": share, "length 24 pairs 2": share - 0.2}
        done = replace(
            known,
            outcome=Outcome.COMPLETE,
            error=None,
            task_accuracy=right,
            test_task_accuracy=right,
        )
        found.append(results.flatten(done))
    return pd.DataFrame(found)


def test_a_sweep_on_tasks_keeps_them_and_asks_for_no_text():
    given = TextFile(path="nowhere.txt")
    assert {p.recipe.source for p in SWEEP.points("smoke", given)} == {SOURCE}
    grid = Grid(sweep=SWEEP, scale="smoke", source=given, engine=CPU)
    assert grid.texts() == set()


def test_rows_of_a_design_on_tasks_are_found_and_ranked_by_errors():
    found = rows.of_design(SWEEP, "smoke", rows_of(SWEEP))
    assert list(found["arm"]) == ["a", "b", "a", "b"]
    right = rows.accuracies(found, rows.TEST_TASKS, "length 16")
    assert right.loc[1, "b"] == pytest.approx(0.8)
    assert rows.accuracies(found, rows.VALID_TASKS, "pairs 2").loc[0, "a"] == pytest.approx(0.4)
    assert rows.to_tune_by(found).loc[0, "a"] == pytest.approx(0.6)
    with pytest.raises(NotRun, match="not every run of on-tasks has a task_accuracy of length 1"):
        rows.accuracies(found, rows.VALID_TASKS, "length 1")
    with pytest.raises(NotRun, match="has a test_bits_per_byte"):
        rows.losses(found, rows.TEST)


def test_another_task_is_not_of_the_design():
    other = replace(RECIPE, source=replace(SOURCE, probes=PROBES[:1]))
    trials = rows_of(
        replace(SWEEP, point=lambda arm, seed, scale: (SPEC, replace(other, seed=seed)))
    )
    with pytest.raises(NotRun, match="4 of 4 runs of on-tasks have no record"):
        rows.of_design(SWEEP, "smoke", trials)


def test_the_figures_of_a_finding_show_accuracy():
    figure = losses(rows_of(SWEEP), ARMS)
    said = " ".join(figure.axes[0].get_ylabel().split())
    assert said == "right answers of held-out draws, share, mean over probes"
    assert figure.get_suptitle() == "black: mean and 95% interval; in colour: 2 seeds"


def test_a_source_of_an_unknown_class_is_told_which_there_are():
    with pytest.raises(TypeError, match=r"must be one of PackagedText, .*Synthetic.*, got 'books'"):
        open_material("books", vocab=32, tokens=16)  # type: ignore[arg-type]
