"""Records reach the disk whole or not at all, and come back equal.

One file: columns, files and failures of the disk share the made-up records.
"""

import errno
import os
from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweeps import docs, results
from sweeps.trial import records, shelf
from sweeps.trial.columns import VERSION_KEY, Change
from sweeps.trial.engine import Engine
from sweeps.trial.parquet import NotOurs, parse
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import CHANGES, COLUMNS, SCHEMA, Label, Outcome, Record, RecordNotWritten
from sweeps.trial.run import not_run, refused
from sweeps.trial.train import Step
from tests.models import SPECS

ROOT = Path(__file__).parents[1]
STEP = Step(step=0, tokens=32, nats_per_token=3.5, balance=2.0, grad_norm=0.5, lr=1e-3, seconds=0.1)


def failed(seed: int = 0) -> Record:
    recipe = Recipe(steps=1, batch=1, tokens=4, lr=1e-3, seed=seed)
    label = Label(sweep="s", scale="smoke", arm="1:7")
    record = not_run(SPECS["hybrid"], recipe, label=label, engine=Engine(device="cpu"))
    return replace(record, started_utc="2026-01-01T00:00:00+00:00")  # one call equals the next


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


def complete_on_tasks(seed: int = 0) -> Record:
    accuracy = {"length 64 pairs 4": 0.75}
    return replace(complete(seed), valid_bits_per_byte=None, task_accuracy=accuracy)


def test_records_survive_the_disk(tmp_path):
    both = [complete(0), failed(1), complete_on_tasks(2)]
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
    def full_disk(table, file, **options):
        file.write(b"PAR1 half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(RecordNotWritten, match=f"into {tmp_path}: No space left"):
        records.write(complete(), [STEP], tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_record_that_fails_leaves_no_curve_either(tmp_path, monkeypatch):
    whole = pq.write_table

    def full_after_the_curve(table, file, **options):
        if table.schema.equals(SCHEMA):
            raise OSError("No space left on device")
        whole(table, file, **options)

    monkeypatch.setattr(pq, "write_table", full_after_the_curve)
    with pytest.raises(RecordNotWritten, match="No space left"):
        records.write(complete(), [STEP], tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "empty": lambda data: b"",
    "not Parquet": lambda data: b"not parquet",
    "another arm": lambda data: data.replace(b"1:7", b"1:6", 1),  # only a checksum can tell
}


def settle(path: Path) -> None:
    """Make a file look as if nobody were still copying it here."""
    earlier = path.stat().st_mtime - 60
    os.utime(path, (earlier, earlier))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named_and_set_aside_and_the_rest_is_read(tmp_path, damage):
    bad = records.write(complete(0), [STEP], tmp_path)
    records.write(complete(1), [STEP], tmp_path)
    damaged = damage(bad.read_bytes())
    bad.write_bytes(damaged)
    settle(bad)
    aside = tmp_path / "aside" / "trials" / bad.name
    said = rf"{bad.name} is left out: it cannot be read \(.*\); it now lies in {aside}"
    with pytest.warns(UserWarning, match=said):
        assert [r.seed for r in records.read(tmp_path)] == [1]
    assert aside.read_bytes() == damaged
    assert [r.seed for r in records.read(tmp_path)] == [1]  # without another warning
    records.write(complete(0), [STEP], tmp_path)  # its name is free for the trial done again
    bad.write_bytes(damaged)
    settle(bad)
    with pytest.warns(UserWarning, match="is left out"):
        records.read(tmp_path)
    assert len(shelf.set_aside(tmp_path)) == 2


def test_a_file_still_being_copied_here_is_left_where_it_is(tmp_path):
    whole = records.write(complete(), [STEP], tmp_path)
    data = whole.read_bytes()
    whole.write_bytes(data[:1000])
    (whole.parent / f".{whole.name}.0.tmp").write_bytes(data[:1000])  # a writer's, never looked at
    ledger = records.Ledger(tmp_path)
    with pytest.warns(UserWarning, match="only just been changed, so it stays for now"):
        assert ledger.records() == []
    whole.write_bytes(data)
    assert ledger.records() == [complete()]
    assert len(list(whole.parent.iterdir())) == 2


def test_a_folder_that_cannot_be_written_to_is_read_all_the_same(tmp_path, monkeypatch):
    bad = records.write(complete(0), [STEP], tmp_path)
    records.write(complete(1), [STEP], tmp_path)
    bad.write_bytes(b"not parquet")
    settle(bad)

    def read_only(*paths):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "rename", read_only)
    ledger = records.Ledger(tmp_path)
    with pytest.warns(UserWarning, match=r"cannot be moved \(Read-only file system\)"):
        assert [r.seed for r in ledger.records()] == [1]
    assert [r.seed for r in ledger.records()] == [1]  # and is not read or warned of again
    assert bad.exists()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda table: table.drop_columns(["seed"]), "of another kind: it has no column seed"),
        (
            lambda table: pa.table({"x": [1]}),
            "of another kind: it has no column active_params, arm",
        ),
        (lambda table: changed(table, "seed", pa.array(["0"])), "seed is string, not int64"),
        (
            lambda table: changed(table, "arm", pa.array([None], pa.string())),
            "arm must not be null",
        ),
        (
            lambda table: changed(table, "outcome", pa.array(["won"])),
            "'won' is not a valid Outcome",
        ),
    ],
)
def test_a_foreign_parquet_file_is_named_and_the_rest_is_read(tmp_path, wrong, reason):
    records.write(complete(1), [STEP], tmp_path)
    foreign = tmp_path / "trials" / "foreign.parquet"
    pq.write_table(wrong(records.trial_shelf(tmp_path).look()[0].content), foreign)
    settle(foreign)
    with pytest.warns(UserWarning, match=rf"foreign.parquet is left out: .*{reason}"):
        assert [r.seed for r in records.read(tmp_path)] == [1]
    assert (tmp_path / "aside" / "trials" / "foreign.parquet").exists()


def changed(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_a_damaged_curve_is_set_aside_without_its_record(tmp_path):
    path = records.write(complete(), [STEP], tmp_path)
    curve = tmp_path / "curves" / path.name
    curve.write_bytes(b"")
    settle(curve)
    with pytest.warns(UserWarning, match="curves.*is left out"):
        assert records.read_curves(tmp_path).num_rows == 0
    assert records.read(tmp_path) == [complete()]


def test_a_file_of_older_code_is_read_with_nulls(tmp_path):
    path = records.write(replace(complete(), matched="width"), [STEP], tmp_path)
    table = pq.read_table(path).drop_columns(["matched", "compiled"]).replace_schema_metadata(None)
    pq.write_table(table, path)
    (record,) = records.read(tmp_path)
    assert record == complete()


def test_a_file_of_newer_code_is_read_without_what_is_new(tmp_path):
    path = records.write(complete(0), [STEP], tmp_path)
    pq.write_table(pq.read_table(path).append_column("energy_j", pa.array([1.0])), path)
    ledger = records.Ledger(tmp_path)
    with pytest.warns(UserWarning, match="columns that this code does not know: energy_j"):
        assert ledger.records() == [complete(0)]
    other = records.write(complete(1), [STEP], tmp_path)
    pq.write_table(pq.read_table(other).append_column("energy_j", pa.array([1.0])), other)
    assert len(ledger.records()) == 2  # said once


def test_a_file_of_newer_code_stays_even_if_nothing_of_it_is_understood(tmp_path):
    path = records.write(complete(), [STEP], tmp_path)
    table = changed(pq.read_table(path), "outcome", pa.array(["won"]))
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"999"}), path)
    settle(path)
    with pytest.warns(UserWarning, match="newer code wrote it, so it stays"):
        assert records.read(tmp_path) == []
    assert path.exists()


def test_a_renamed_column_is_found_under_its_old_name_in_older_files(tmp_path):
    path = records.write(complete(), [STEP], tmp_path)
    names = ["arms" if name == "arm" else name for name in SCHEMA.names]
    table = pq.read_table(path).rename_columns(names)
    pq.write_table(table, path)
    columns = COLUMNS
    renaming = Change(version=columns.version + 1, commit="a test's", renamed={"arms": "arm"})
    renamed = replace(columns, changes=(*columns.changes, renaming))
    assert parse(path.read_bytes(), renamed).table["arm"].to_pylist() == ["1:7"]
    with pytest.raises(NotOurs, match="no column arm"):
        parse(path.read_bytes(), columns)


def test_every_file_says_which_version_of_the_columns_it_has(tmp_path):
    path = records.write(complete(), [STEP], tmp_path)
    assert pq.read_schema(path).metadata[VERSION_KEY] == str(CHANGES[-1].version).encode()
    versions = [change.version for change in CHANGES]
    assert versions == sorted(set(versions))
    for change in CHANGES:
        assert set(change.added) <= set(SCHEMA.names)
        assert set(change.renamed.values()) <= set(SCHEMA.names)


@pytest.mark.parametrize("sweep", [p.name for p in results.sweeps(ROOT / results.PUBLISHED)])
def test_what_is_committed_can_be_read_and_is_compacted(sweep):
    folder = ROOT / results.PUBLISHED / sweep
    found = records.read(folder)
    assert records.keys_of(records.read_curves(folder)) == {(r.run_id, r.attempt) for r in found}
    assert not (folder / "trials").exists()


def test_a_ledger_reads_each_file_once(tmp_path, monkeypatch):
    opened: list[int] = []
    monkeypatch.setattr(shelf, "parse", lambda *asked: (opened.append(1), parse(*asked))[1])
    ledger = records.Ledger(tmp_path)
    assert ledger.records() == []
    for seed in range(3):
        records.write(complete(seed), [STEP], tmp_path)
        assert [r.seed for r in ledger.records()] == list(range(seed + 1))
        assert len(opened) == seed + 1
    ledger.records()
    assert len(opened) == 3
    assert [r.seed for r in ledger.by_run()[complete(1).run_id]] == [1]
    assert ledger.by_run()["unknown"] == []


def test_a_failure_has_no_score():
    with pytest.raises(ValueError, match="exactly when it is complete"):
        replace(complete(), outcome=Outcome.DIVERGED)
    with pytest.raises(ValueError, match="exactly when it is complete"):
        replace(failed(), outcome=Outcome.COMPLETE)
    with pytest.raises(ValueError, match="one of valid_bits_per_byte and task_accuracy"):
        replace(complete(), task_accuracy={"length 8": 1.0})


def test_load_has_one_column_for_each_key(tmp_path):
    records.write(complete(), [STEP], tmp_path / "s")
    trials = results.load("s", folder=tmp_path)
    assert trials["valid_bits_per_byte.web"].tolist() == [2.5]
    assert trials["decode_ms.64"].tolist() == [0.5]
    assert results.keys(trials, "valid_bits_per_byte") == ["books", "web"]
    assert len(results.curves("s", folder=tmp_path)) == 1


def test_nothing_to_load_says_what_there_is(tmp_path):
    records.write(complete(), [STEP], tmp_path / "other")
    with pytest.raises(LookupError, match=r"no records of 's' .* there are: other. `python"):
        results.load("s", folder=tmp_path)


def test_every_column_has_a_meaning_and_the_dictionary_is_current():
    assert [f.name for f in fields(Record)] == SCHEMA.names
    assert all(f.metadata["meaning"] for f in fields(Record))
    written = (ROOT / "docs" / "results.md").read_text()
    assert written == docs.columns(), "run `make docs`"
