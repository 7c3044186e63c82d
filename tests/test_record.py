"""Records reach the disk whole or not at all, and come back equal."""

from dataclasses import fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sweeps import docs, results
from sweeps.trial import record as records
from sweeps.trial.engine import Engine
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import SCHEMA, Label, Outcome, Record, RecordNotWritten
from sweeps.trial.run import not_run, refused
from sweeps.trial.train import Step
from tests.models import SPECS

ROOT = Path(__file__).parents[1]
STEP = Step(step=0, tokens=32, nats_per_token=3.5, balance=2.0, grad_norm=0.5, lr=1e-3, seconds=0.1)


def failed(seed: int = 0) -> Record:
    recipe = Recipe(steps=1, batch=1, tokens=4, lr=1e-3, seed=seed)
    label = Label(sweep="s", scale="smoke", arm="1:7")
    return not_run(SPECS["hybrid"], recipe, label=label, engine=Engine(device="cpu"))


def complete(seed: int = 0) -> Record:
    return replace(
        failed(seed),
        outcome=Outcome.COMPLETE,
        error=None,
        valid_bits_per_byte={"books": 2.0, "web": 2.5},
        decode_ms={64: 0.5},
        cache_bytes={64: 4096},
        expert_load=[[0.5, 1.5], [1.0, 1.0]],
    )


def test_records_survive_the_disk(tmp_path):
    both = [complete(0), failed(1)]
    for record in both:
        path = records.write(record, [STEP], tmp_path)
        assert records.read_one(path) == record
    assert sorted(records.read(tmp_path), key=lambda r: r.seed) == both
    curves = records.read_curves(tmp_path).to_pylist()
    assert [row["run_id"] for row in curves] == sorted(r.run_id for r in both)
    assert curves[0]["nats_per_token"] == 3.5


def test_results_are_only_ever_added_to(tmp_path):
    records.write(complete(), [STEP], tmp_path)
    with pytest.raises(FileExistsError, match="only ever added"):
        records.write(complete(), [STEP], tmp_path)


def test_a_recorded_run_keeps_its_curve(tmp_path):
    records.write(complete(), [STEP], tmp_path)
    with pytest.raises(FileExistsError):
        records.write(failed(), [], tmp_path)
    assert records.read_curves(tmp_path).num_rows == 1


def test_what_a_sampler_chose_stands_in_the_record():
    recipe = Recipe(steps=1, batch=1, tokens=4, lr=1e-3)
    label = Label(trial_params='{"lr": 1e-3}')
    made = refused(SPECS["hybrid"], recipe, "needs 90 GB", label=label, engine=Engine(device="cpu"))
    assert made.trial_params == '{"lr": 1e-3}'
    assert (made.outcome, made.error) == (Outcome.REFUSED, "needs 90 GB")
    assert made.outcome.settled


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(table, file):
        file.write(b"PAR1 half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(RecordNotWritten, match=f"into {tmp_path}: No space left"):
        records.write(complete(), [STEP], tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_record_that_fails_leaves_no_curve_either(tmp_path, monkeypatch):
    whole = pq.write_table

    def full_after_the_curve(table, file):
        if table.schema.equals(SCHEMA):
            raise OSError("No space left on device")
        whole(table, file)

    monkeypatch.setattr(pq, "write_table", full_after_the_curve)
    with pytest.raises(RecordNotWritten, match="No space left"):
        records.write(complete(), [STEP], tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"not parquet"]
)
def test_a_damaged_file_is_named_and_the_rest_is_read(tmp_path, damage):
    bad = records.write(complete(0), [STEP], tmp_path)
    records.write(complete(1), [STEP], tmp_path)
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.warns(UserWarning, match=f"{bad.name} is left out"):
        assert [r.seed for r in records.read(tmp_path)] == [1]


def test_a_foreign_parquet_file_is_named_and_the_rest_is_read(tmp_path):
    records.write(complete(1), [STEP], tmp_path)
    foreign = tmp_path / "trials" / "foreign.parquet"
    pq.write_table(records.read_curves(tmp_path), foreign)
    with pytest.warns(UserWarning, match=r"foreign.parquet is left out"):
        assert [r.seed for r in records.read(tmp_path)] == [1]


def test_a_failure_has_no_score():
    with pytest.raises(ValueError, match="exactly when it is complete"):
        replace(complete(), outcome=Outcome.DIVERGED)
    with pytest.raises(ValueError, match="exactly when it is complete"):
        replace(failed(), outcome=Outcome.COMPLETE)


def test_load_has_one_column_for_each_key(tmp_path):
    records.write(complete(), [STEP], tmp_path / "s")
    trials = results.load("s", folder=tmp_path)
    assert trials["valid_bits_per_byte.web"].tolist() == [2.5]
    assert trials["decode_ms.64"].tolist() == [0.5]
    assert results.keys(trials, "valid_bits_per_byte") == ["books", "web"]
    assert len(results.curves("s", folder=tmp_path)) == 1


def test_nothing_to_load_says_what_there_is(tmp_path):
    records.write(complete(), [STEP], tmp_path / "other")
    with pytest.raises(LookupError, match=r"no records of 's' .* there are: other. Run `python"):
        results.load("s", folder=tmp_path)


def test_every_column_has_a_meaning_and_the_dictionary_is_current():
    assert [f.name for f in fields(Record)] == SCHEMA.names
    assert all(f.metadata["meaning"] for f in fields(Record))
    written = (ROOT / "docs" / "results.md").read_text()
    assert written == docs.columns(), "run `make docs`"
