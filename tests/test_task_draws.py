"""Draws of tasks under every reading of a prompt, and the floor of guessing.

Published tasks keep their draws, names and JSON.
"""

import hashlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid import codec
from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import Source, Stage, Synthetic
from sweeps.trial.data.synthetic import KINDS, accuracy, answer, draw, floor, score_keys, scores
from sweeps.trial.data.synthetic.kind import UNSCORED, other_than
from sweeps.trial.data.tasks import (
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
    probes_of,
)

Reader = Callable[[Task, list[int], bool], int]  # task, tokens read, last -> the answer


def followers(tokens: list[int], key: tuple[int, ...]) -> list[int]:
    """Return what followed each place of the key before the last token, in order."""
    n = len(key)
    return [tokens[i + n] for i in range(len(tokens) - n) if tuple(tokens[i : i + n]) == key]


def pick(found: list[int], last: bool) -> int:
    return found[-1 if last else 0]


def look_up(task: Task, tokens: list[int], last: bool) -> int:
    return pick(followers(tokens, (tokens[-1],)), last)


def by_name(task: Phonebook, tokens: list[int], last: bool) -> int:
    start = max(i for i, token in enumerate(tokens) if token == 0) + 1
    return pick(followers(tokens, tuple(tokens[start:])), last)


def by_class(task: FewShot, tokens: list[int], last: bool) -> int:
    labels = task.classes * task.synonyms
    shots = zip(tokens[0:-1:2], tokens[1::2], strict=True)
    same = [label for item, label in shots if (item - tokens[-1]) % task.classes == 0]
    assert tokens[-1] >= labels
    return pick(same, last)


def by_two(task: TwoHop, tokens: list[int], last: bool) -> int:
    middle = pick(followers(tokens, (tokens[-1],)), last)
    values = [x for x in followers(tokens, (middle,)) if x > 2 * (VOCAB - 1) // 3]
    return pick(values, last)


def in_order(task: SelectiveCopy, tokens: list[int], last: bool) -> int:
    return [token for token in tokens if token > 1][tokens.count(1) - 1]


VOCAB = 64
READERS: dict[type, tuple[Task, Reader]] = {
    Recall: (Recall(), look_up),
    Xor: (Xor(), lambda task, tokens, last: tokens[-1] ^ tokens[-2]),
    Mqar: (Mqar(pairs=8, filler=Filler.OTHER), look_up),
    SelectiveCopy: (SelectiveCopy(symbols=5), in_order),
    Induction: (Induction(), look_up),
    Cycle: (Cycle(longest=12), look_up),
    Needle: (Needle(needles=4), look_up),
    Phonebook: (Phonebook(queries=2), by_name),
    FewShot: (FewShot(classes=3, synonyms=4), by_class),
    TwoHop: (TwoHop(chains=6), by_two),
}
ASKED = [task for task, _ in READERS.values()]


def drawn(task: Task, batch: int = 32, length: int = 64, vocab: int = VOCAB):
    return draw(task, seed=3, step=0, split=Split.TRAIN, batch=batch, length=length, vocab=vocab)


def right(task: Task, last: bool) -> float:
    """Return how often the first or the last place of what is looked up has the answer."""
    ids_BT, targets_BT = drawn(task)
    places = (targets_BT != UNSCORED).nonzero().tolist()
    _, read = READERS[type(task)]
    found = [read(task, ids_BT[b, : t + 1].tolist(), last) == targets_BT[b, t] for b, t in places]
    return float(np.mean(found))


def test_every_task_that_the_prompt_decides_has_a_reader():
    decided = {kind for kind, made in KINDS.items() if not made.noisy}
    assert READERS.keys() == decided
    assert all(type(task) is kind for kind, (task, _) in READERS.items())


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("task", ASKED, ids=lambda task: type(task).__name__)
def test_the_first_and_the_last_place_have_the_answer(task, last):
    assert right(task, last) == 1.0


def test_published_fillers_are_decoys_in_a_small_vocabulary():
    published = Mqar(pairs=8)
    assert right(published, last=False) == 1.0
    assert right(published, last=True) < 0.9


def test_fillers_are_uniform_over_all_but_the_keys():
    rng = np.random.default_rng(0)
    avoid_BI = np.tile([4, 0, 5], (200, 1))
    found_BT = other_than(avoid_BI, rng.integers(7 - 3, size=(200, 100)))
    shares = np.bincount(found_BT.ravel(), minlength=7) / found_BT.size
    assert shares[[0, 4, 5]].tolist() == [0, 0, 0]
    assert shares[[1, 2, 3, 6]] == pytest.approx(0.25, abs=0.02)


def test_no_filler_is_a_key_of_the_table():
    ids_BT, targets_BT = drawn(Mqar(pairs=8, filler=Filler.OTHER), length=128)
    for ids_T, targets_T in zip(ids_BT, targets_BT, strict=True):
        keys, filler = ids_T[:16:2], ids_T[16:][targets_T[16:] == UNSCORED]
        assert not set(keys.tolist()) & set(filler.tolist())


# ---- what was published stays ----------------------------------------------------------------


OLD = {  # SHA-256 of ids and targets, drawn before tasks had fields with defaults
    Mqar(pairs=8): "length 64 pairs 8",
    Needle(needles=2, depth=0.5): "length 64 needles 2 depth 0.5",
    FewShot(classes=3, synonyms=4): "length 64 classes 3 synonyms 4",
}


@pytest.mark.parametrize(("task", "name"), OLD.items(), ids=OLD.values())
def test_old_tasks_keep_names_json_and_draws(task, name):
    source = Synthetic(tasks=(task,), probes=(Probe(task=task, length=64),))
    text = codec.dumps(source)
    assert source.probes[0].name == name
    assert "filler" not in text
    assert "curriculum" not in text
    assert codec.loads(Source, text) == source
    ids_BT, targets_BT = drawn(task)
    content = ids_BT.numpy().tobytes() + targets_BT.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == DRAWS[name]


DRAWS = {
    "length 64 pairs 8": "5f378770ce94e963",
    "length 64 needles 2 depth 0.5": "1ae46101f7d5f02a",
    "length 64 classes 3 synonyms 4": "bb123cfd19e8b3a6",
}


def test_the_new_filler_is_named_and_written():
    probe = Probe(task=Mqar(pairs=8, filler=Filler.OTHER), length=64)
    assert probe.name == "length 64 pairs 8 filler other"
    source = Synthetic(tasks=(probe.task,), probes=(probe,))
    assert codec.loads(Source, codec.dumps(source)) == source


# ---- floors ----------------------------------------------------------------------------------


def or_alike(present: int, values: int) -> float:
    """Return the chance that one of several independent values, picked blindly, is right."""
    return 1 / present + (1 - 1 / present) / values


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Recall(), or_alike(16, 32)),
        (Xor(), 1 / 64),
        (Mqar(pairs=8), 1 / 8),
        (Mqar(pairs=8, filler=Filler.OTHER), 1 / 8),
        (SelectiveCopy(symbols=5), or_alike(5, 62)),
        (Induction(), 1 / 62),
        (Cycle(longest=3), 3 / 4),  # periods of 2 and 3, in equal parts
        (Needle(needles=1), 1.0),
        (Needle(needles=2), (1 + or_alike(2, 16)) / 2),  # the second by elimination
        (Needle(needles=4), np.mean([or_alike(n, 16) for n in (4, 3, 2, 1)])),
        (Phonebook(), or_alike(10, 32)),
        (FewShot(classes=3, synonyms=4), None),
        (NoisyFewShot(classes=4, labels=16), None),
        (TwoHop(chains=6), 1 / 6),
    ],
    ids=str,
)
def test_the_floor_is_that_of_guessing_among_the_values_present(task, expected):
    probe = Probe(task=task, length=64)
    found = floor(probe, vocab=VOCAB, batch=64, limit_tokens=64 * 512)
    assert list(found) == score_keys(probe, VOCAB)
    if expected is not None:
        assert found == {probe.name: pytest.approx(expected, abs=0.02)}


def test_the_floor_of_few_shot_tasks_is_by_score():
    task = FewShot(classes=3, synonyms=4)
    found = floor(Probe(task=task, length=64), vocab=VOCAB, batch=64, limit_tokens=64 * 256)
    assert list(found.values()) == [
        pytest.approx(1 / 3, abs=0.02),
        pytest.approx(1 / 3, abs=0.02),
        pytest.approx(1.0),
    ]


# ---- few shots with errors -------------------------------------------------------------------


def by_shots(task: NoisyFewShot, length: int) -> list[float]:
    """Return the accuracy of the best guess by shots, from one shot on."""
    probe = Probe(task=task, length=length)
    ids_BT, targets_BT = drawn(task, batch=4000, length=length, vocab=128)
    scored_BT = targets_BT != UNSCORED
    best_n = answer(task, ids_BT)[scored_BT]
    logits_nV = torch.nn.functional.one_hot(best_n, 128).float()
    found = scores(probe, ids_BT, targets_BT, logits_nV)
    assert [key.split(" shots ")[1] for key in found] == [str(1 + i) for i in range(len(found))]
    return [x.double().mean().item() for x in found.values()]


@pytest.mark.parametrize("labels", [16, 64])
def test_one_shot_tells_half_and_more_shots_tell_more(labels):
    found = by_shots(NoisyFewShot(classes=4, labels=labels), length=8 * 9)
    assert len(found) == 8
    assert 0.45 < found[0] < 0.55
    assert found[1] == pytest.approx(found[0], abs=0.03)  # of two that differ either may be right
    assert all(more > less + 0.01 for less, more in pairwise(found[1:5]))
    assert found[7] > 0.9


def test_shown_labels_are_right_as_often_as_the_task_says_and_wrong_ones_differ():
    task = NoisyFewShot(classes=4, labels=16, right=0.7)
    ids_BT, targets_BT = drawn(task, batch=2000, length=65, vocab=128)
    shown, due = ids_BT[:, 9::2], targets_BT[:, 8:-1:2]
    assert (shown == due).double().mean().item() == pytest.approx(0.7, abs=0.01)
    assert accuracy(answer(task, ids_BT), targets_BT) > 0.8


# ---- curricula and two look-ups --------------------------------------------------------------


def test_the_stages_of_a_curriculum_come_one_after_the_other():
    one, two, more = Needle(needles=1), Needle(needles=2), Needle(needles=3)
    source = Synthetic(
        tasks=(two, more),
        probes=probes_of(two, 32),
        curriculum=(Stage(tasks=(one,), end=2), Stage(tasks=(one, two), end=5)),
    )
    assert [source.task(step) for step in range(8)] == [one, one, one, two, one, more, two, more]
    assert source.all_tasks == (one, one, two, two, more)
    assert [probe.length for probe in source.probes] == [32, 64, 128]
    assert codec.loads(Source, codec.dumps(source)) == source


def test_a_key_is_never_next_to_its_value():
    ids_BT, targets_BT = drawn(TwoHop(chains=6), batch=200)
    for ids_T, targets_T in zip(ids_BT.tolist(), targets_BT.tolist(), strict=True):
        pairs = set(pairwise(ids_T))
        asked = {(k, v) for k, v in zip(ids_T, targets_T, strict=True) if v != UNSCORED}
        assert len(asked) == 6
        assert not asked & pairs


def test_one_look_up_in_place_of_two_is_always_wrong():
    ids_BT, targets_BT = drawn(TwoHop(chains=6))
    once_BT: Tensor = torch.from_numpy(KINDS[Mqar].answer(None, ids_BT.numpy()))
    assert accuracy(once_BT, targets_BT) == 0
