"""The commands `bench` and `profile`, from end to end."""

import pytest

from sweeps.bench import entries, page, record
from sweeps.bench.profile import PartRow
from sweeps.bench.record import Row
from tests.bench.samples import HERE, PEERS
from tests.commands import assert_one_sentence, invoke


def test_the_benchmark_runs_from_end_to_end(tmp_path):
    for name in set(PEERS.values()):
        pytest.importorskip(name)
    result = invoke(f"bench --smoke --no-memory --results {tmp_path}")
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "bench").glob("*.parquet")
    frame = record.read(path, Row)
    assert set(frame["status"]) == {"timed"}, frame[["contender", "phase", "notes"]].to_string()
    assert set(frame["contender"]) == {*HERE, *entries.PEERS}
    timed_phases = frame.groupby("phase")["contender"].count().to_dict()
    whole, ours = len(HERE) + len(entries.PEERS), len(HERE)
    scans = {"scan": ours, "scan-train": ours}
    assert timed_phases == {"train": whole, "prefill": whole, "decode": whole} | scans
    assert (frame["median_s"] > 0).all()
    assert (frame["rounds"] == 2).all()
    assert frame["peak_bytes"].isna().all()
    assert (frame["fraction_of_gemm"].dropna() > 0).all()
    assert (frame["elements_per_s"].notna() == frame["phase"].isin([*scans])).all()
    assert "On the CPU\n\n| phase" in page.page(tmp_path)


def test_the_profile_runs_from_end_to_end(tmp_path):
    result = invoke(f"profile --smoke --steps 1 --label before --results {tmp_path}")
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "bench").glob("profile-*.parquet")
    frame = record.read(path, PartRow)
    assert frame["share"].sum() == pytest.approx(1)
    assert {"matrix products", "scan", "convolution", "attention", "loss"} <= set(frame["part"])
    assert "### before: ours (cpu), commit" in page.page(tmp_path)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("bench --ops cup", "ops='cup' must be one of"),
        ("bench --ratio 1-7", "ratio '1-7' must be two whole numbers"),
        ("bench --device tpu", "device='tpu' must be auto, cpu, cuda"),
        ("bench --rounds 0", "rounds=0 must be an integer of 1 or more"),
        ("profile --steps 0", "steps=0 must be 1 or more"),
    ],
)
def test_what_is_wrong_is_one_sentence(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(command, message, tmp_path)
