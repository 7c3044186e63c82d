"""A decay branch equals the run of its length, its trunk the run without: to the last bit."""

import contextlib
import json
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from hybrid import codec
from sweeps.sweep import Point
from sweeps.trial import checkpoint, records, run_folder, weights
from sweeps.trial.checkpoint import Checkpoints
from sweeps.trial.data.streams import pinned
from sweeps.trial.engine import Engine, Parallel
from sweeps.trial.recipe import WSD, OptimizerName, Precision, Recipe
from sweeps.trial.record import Label, Outcome, Record, RecordNotWritten
from sweeps.trial.run import run
from sweeps.trial.train import Step, learning_rate
from sweeps.workers.process import run_in_process
from tests.models import SPECS
from tests.test_process import trial_processes

HERE = Engine(device="cpu")
SPEC = replace(SPECS["hybrid"], vocab=300)
WEIGHTS = dict[str, torch.Tensor]
ENDS = (5, 6)  # the second leaves the trunk while the first would still decay


class CutOff(BaseException):
    """As sudden as a kill to the code that runs, and the test lives on."""


@pytest.fixture
def recipe(source) -> Recipe:
    return Recipe(
        source=source,
        steps=9,
        batch=2,
        tokens=16,
        lr=3e-3,
        schedule=WSD(warmup_steps=2, decay_fraction=0.4, branches=ENDS),
        precision=Precision.FP32,
        valid_tokens=64,
        measure_test=True,
        contexts=(8,),
    )


class Seen:
    """What a run and its branches leave. `folder` has the checkpoint."""

    def __init__(self, recipe: Recipe, folder: Path | None = None):
        self.curve: list[Step] = []
        self.weights: WEIGHTS = {}
        self.branches: dict[int, tuple[Record, Sequence[Step], WEIGHTS]] = {}
        self.record: Record | None = None
        checkpoints = folder and Checkpoints(folder=folder, every_seconds=0)
        with contextlib.suppress(CutOff):
            self.record = run(
                SPEC,
                recipe,
                engine=HERE,
                watch=self.watch,
                keep=self.keep,
                keep_branch=self.keep_branch,
                checkpoints=checkpoints,
            )

    def watch(self, step: Step) -> None:
        self.curve.append(step)

    def keep(self, model) -> None:
        self.weights = copied(model)

    def keep_branch(self, record: Record, curve: Sequence[Step], model) -> None:
        self.branches[len(curve)] = record, curve, copied(model)


def copied(model) -> WEIGHTS:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(first: WEIGHTS, second: WEIGHTS) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def exact(curve: Sequence[Step]) -> list[dict]:
    """Return all of a curve but the clock."""
    return [{k: v for k, v in asdict(step).items() if k != "seconds"} for step in curve]


def assert_same(seen: Seen, whole: Seen) -> None:
    assert exact(seen.curve) == exact(whole.curve)
    assert equal(seen.weights, whole.weights)
    assert seen.record.valid_bits_per_byte == whole.record.valid_bits_per_byte
    assert seen.record.test_bits_per_byte == whole.record.test_bits_per_byte


def assert_same_branch(found, other) -> None:
    (record, curve, trained), (record_2, curve_2, trained_2) = found, other
    assert record.run_id == record_2.run_id
    assert exact(curve) == exact(curve_2)
    assert equal(trained, trained_2)
    for name in ("valid_bits_per_byte", "test_bits_per_byte", "train_tokens", "recipe", "outcome"):
        assert getattr(record, name) == getattr(record_2, name), name


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_a_branch_is_the_run_of_its_length_and_the_trunk_a_run_without(recipe, optimizer, batch):
    recipe = replace(recipe, optimizer=optimizer, batch=batch)
    seen = Seen(recipe)
    assert seen.record.outcome is Outcome.COMPLETE, seen.record.error
    assert list(seen.branches) == list(ENDS)
    assert_same(seen, Seen(replace(recipe, schedule=replace(recipe.schedule, branches=()))))
    for end, (record, curve, trained) in seen.branches.items():
        alone = Seen(recipe.branch(end))
        assert exact(curve) == exact(alone.curve)
        assert equal(trained, alone.weights)
        for name in (
            "run_id",
            "recipe",
            "spec",
            "seed",
            "train_tokens",
            "train_nats_per_token",
            "grad_norm_max",
            "valid_bits_per_byte",
            "test_bits_per_byte",
            "activation_max",
            "expert_load",
            "tokenizer_sha256",
        ):
            assert getattr(record, name) == getattr(alone.record, name), name
        assert record.train_tokens == end * batch * recipe.tokens
        known = replace(recipe, source=pinned(recipe.source))
        assert codec.loads(Recipe, record.recipe) == known.branch(end)
        assert (record.branch_of, alone.record.branch_of) == (seen.record.run_id, None)
        assert record.outcome is Outcome.COMPLETE
        assert record.decode_ms is None
    assert seen.record.train_tokens == 9 * batch * recipe.tokens


def cut_after_saves(monkeypatch, saves: int) -> None:
    """Let a run be cut off right after it has saved so often."""
    plain, left = checkpoint.Checkpointer.save, [saves]

    def save(self, *arguments) -> None:
        plain(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            raise CutOff

    monkeypatch.setattr(checkpoint.Checkpointer, "save", save)


@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_a_run_cut_off_after_each_of_its_saves_equals_one_that_was_not(
    recipe, optimizer, tmp_path, monkeypatch
):
    recipe = replace(recipe, optimizer=optimizer)
    steps_of_branches = sum(end - recipe.schedule.decay_start(end) for end in ENDS)
    saves = recipe.steps + steps_of_branches + len(ENDS)
    whole, branches, cuts = Seen(recipe), {}, 0
    while cuts <= saves:
        with monkeypatch.context() as patch:
            cut_after_saves(patch, 1)
            seen = Seen(recipe, tmp_path)
        for end, found in seen.branches.items():
            assert_same_branch(found, whole.branches[end])
        branches |= seen.branches
        if seen.record is not None:
            break
        cuts += 1
    assert cuts == saves
    assert branches.keys() == whole.branches.keys()
    assert_same(seen, whole)
    assert seen.record.resumed_steps[-1] == recipe.steps


def test_a_run_cut_off_between_record_and_checkpoint_ends_the_branch_again(recipe, tmp_path):
    whole, first = Seen(recipe), Seen.__new__(Seen)
    first.curve, first.branches = [], {}

    def keep_and_die(record, curve, model) -> None:
        first.keep_branch(record, curve, model)
        raise CutOff

    kept = Checkpoints(folder=tmp_path / "checkpoint", every_seconds=0)
    with pytest.raises(CutOff):
        run(SPEC, recipe, engine=HERE, keep_branch=keep_and_die, checkpoints=kept)
    again = Seen(recipe, tmp_path / "checkpoint")
    assert list(first.branches) == [5]
    assert list(again.branches) == [5, 6]
    for end, found in {**again.branches, **first.branches}.items():
        assert_same_branch(found, whole.branches[end])
    assert_same(again, whole)


def rewrite(path: Path, change) -> None:
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["checkpoint"])
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(about, tensors)
    save_file(tensors, path, {"checkpoint": json.dumps(about)})


DAMAGES = {
    "no state of the branch": lambda about, tensors: tensors.pop(
        "branch.adamw.exp_avg.norm.weight"
    ),
    "no curve of the branch": lambda about, tensors: tensors.pop("branch.curve.lr"),
    "no state of the trunk": lambda about, tensors: tensors.pop("model.norm.weight"),
    "one too many": lambda about, tensors: tensors.update({"branch.more": torch.ones(3)}),
    "a branch that is not said": lambda about, tensors: about.update(branch=None),
    "a branch that is not there": lambda about, tensors: [
        tensors.pop(name) for name in list(tensors) if name.startswith("branch.")
    ],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_checkpoint_in_a_branch_that_does_not_fit_is_set_aside(
    recipe, tmp_path, monkeypatch, caplog, damage
):
    with monkeypatch.context() as patch:
        cut_after_saves(patch, 4)  # three steps of the trunk, one of the first branch
        Seen(recipe, tmp_path)
    assert branch_in(tmp_path / checkpoint.FILE) == 5
    rewrite(tmp_path / checkpoint.FILE, damage)
    anew = Seen(recipe, tmp_path)
    assert "the run starts anew" in caplog.text
    assert anew.record.resumed_steps == []
    assert list(anew.branches) == list(ENDS)


def test_a_record_that_cannot_be_written_comes_out(recipe):
    def refuse(record, curve, model) -> None:
        raise RecordNotWritten("the disk is full")

    with pytest.raises(RecordNotWritten, match="the disk is full"):
        run(SPEC, recipe, engine=HERE, keep_branch=refuse)


def test_branches_need_somewhere_to_go(recipe):
    with pytest.raises(ValueError, match=r"branches=\(5, 6\) needs keep_branch"):
        run(SPEC, recipe, engine=HERE)


def test_a_branch_may_diverge_and_the_trunk_goes_on(recipe, monkeypatch):
    plain = learning_rate

    def rate(mine: Recipe, step: int) -> float:
        return 1e30 if mine.steps == 6 else plain(mine, step)

    monkeypatch.setattr("sweeps.trial.train.learning_rate", rate)
    seen = Seen(recipe)
    assert [seen.branches[end][0].outcome for end in ENDS] == [Outcome.COMPLETE, Outcome.DIVERGED]
    assert "the training loss of step" in seen.branches[6][0].error
    assert seen.record.outcome is Outcome.COMPLETE


def test_the_rate_is_stable_and_falls_to_zero(recipe):
    recipe = replace(recipe, steps=20, lr=1.0)
    recipe = replace(recipe, schedule=WSD(warmup_steps=4, branches=(10,)))
    rates = [learning_rate(recipe, step) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:17] == [1.0] * 13
    assert rates[17:] == [0.75, 0.5, 0.25]
    branch = [learning_rate(recipe.branch(10), step) for step in range(10)]
    assert branch[:8] == rates[:8]
    assert branch[8:] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"warmup_steps": -1}, "warmup_steps=-1 must be a whole number"),
        ({"warmup_steps": 1.5}, "warmup_steps=1.5 must be a whole number"),
        ({"decay_fraction": -0.1}, "decay_fraction=-0.1 must lie in 0..1"),
        ({"decay_fraction": 0.0, "branches": (5,)}, r"branches=\(5,\) are decays"),
        ({"branches": (6, 5)}, r"branches=\(6, 5\) must increase"),
        ({"branches": (5, 5)}, r"branches=\(5, 5\) must increase"),
        ({"branches": (0.5,)}, r"branches=\(0.5,\) must be a tuple of whole"),
        ({"branches": (9,)}, "the branch 9 would begin at step 7.*end before steps=9"),
        ({"branches": (2,)}, "the branch 2 would begin at step 1; it must begin at step 2"),
        ({"warmup_steps": 8}, "warmup_steps=8 must end before the decay begins, at step 7 of 9"),
    ],
)
def test_a_wrong_schedule_says_why(recipe, schedule, message):
    with pytest.raises(ValueError, match=message):
        replace(recipe, schedule=WSD(**{"warmup_steps": 2, **schedule}))


@pytest.mark.parametrize("field", ["warmup", "final_lr"])
def test_what_belongs_to_the_cosine_is_refused(recipe, field):
    with pytest.raises(ValueError, match=f"{field}=0.5 is of the cosine"):
        replace(recipe, **{field: 0.5})


def test_branches_of_several_processes_are_refused(recipe, monkeypatch):
    from sweeps.trial.attempt import Attempt

    attempt = Attempt.__new__(Attempt)
    attempt.recipe, attempt.engine = recipe, Engine(device="cpu", parallel=Parallel.DDP)
    with pytest.raises(ValueError, match=r"parallel=ddp must be none with branches"):
        attempt._require_possible()


def test_the_next_attempt_at_a_run_is_free_or_not_needed(recipe, tmp_path):
    record = replace(Seen(recipe).branches[5][0], outcome=Outcome.FAILED, valid_bits_per_byte=None)
    assert records.next_attempt(record.run_id, tmp_path) == 0
    records.write(record, [], tmp_path)
    assert records.next_attempt(record.run_id, tmp_path) == 1
    records.write(replace(record, outcome=Outcome.PRUNED, attempt=1), [], tmp_path)
    assert records.next_attempt(record.run_id, tmp_path) is None


def branch_in(path: Path) -> int | None:
    """Return the branch that a checkpoint lies in."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["checkpoint"])["branch"]
    except (OSError, SafetensorError):  # not there yet
        return None


def test_a_process_killed_within_a_branch_goes_on_in_it(recipe, tmp_path):
    schedule = WSD(warmup_steps=2, decay_fraction=0.5, branches=(40, 80))
    point = Point(arm="h", seed=0, spec=SPEC, recipe=replace(recipe, steps=90, schedule=schedule))
    label = Label(sweep="tiny", scale="smoke", arm="h")
    whole = run_in_process(point, label, HERE, tmp_path / "whole", lambda event: None)

    def kill(event: Step) -> None:
        """Kill the process once its checkpoint lies in the second branch."""
        if event.step == schedule.decay_start(80) - 1:
            while branch_in(home.checkpoint / checkpoint.FILE) != 80:
                time.sleep(0.001)
            trial_processes()[0].send_signal(signal.SIGKILL)

    folder = tmp_path / "killed"
    home = run_folder.folder_of(whole.run_id, 0, folder)
    dead = run_in_process(point, label, HERE, folder, kill, checkpoint_seconds=0, keep_weights=True)
    assert dead.outcome is Outcome.CRASHED
    assert branch_in(home.checkpoint / checkpoint.FILE) == 80
    assert [r.branch_of for r in records.read(folder)].count(whole.run_id) == 1
    again = replace(label, attempt=1)
    last = run_in_process(point, again, HERE, folder, lambda event: None, keep_weights=True)
    assert last.resumed_steps == [40]
    assert last.valid_bits_per_byte == whole.valid_bits_per_byte
    found, expected = (
        {r.train_tokens: r for r in records.read(place) if r.branch_of == whole.run_id}
        for place in (folder, tmp_path / "whole")
    )
    assert sorted(found) == sorted(expected) == [40 * 32, 80 * 32]
    for tokens, record in found.items():
        assert record.run_id == expected[tokens].run_id
        assert (record.attempt, record.outcome) == (0, Outcome.COMPLETE)
        assert record.test_bits_per_byte == expected[tokens].test_bits_per_byte
        assert weights.path_of(record, folder).exists()
    curves = records.read_curves(folder).to_pandas().groupby("run_id")["step"].agg(list)
    assert all(curves[r.run_id] == list(range(r.train_tokens // 32)) for r in found.values())
