"""Rows of a benchmark come back, and stand in table and page."""

from dataclasses import replace

import pandas as pd
import pytest

from sweeps.bench import page, record, table
from sweeps.bench.reckon import shares, timed
from sweeps.bench.record import Row, Status
from sweeps.bench.setting import Phase
from tests.bench.samples import ROOF, setting_of


@pytest.fixture
def made_up(monkeypatch) -> list[Row]:
    """Rows with made-up times: ours, a peer three times as slow, one that differs, one absent."""
    setting = setting_of()
    where = record.origin(setting, "python -m sweeps bench")
    base = Row(
        **vars(replace(where, run_id="20260101T000000-1a2b3c4d", machine="A CPU")),
        **vars(ROOF),
        contender="ours (cpu)",
        phase=Phase.TRAIN,
        status=Status.TIMED,
        notes=[],
        baseline="ours (cpu)",
        logits_difference=0.0,
        peak_bytes=3 << 20,
    )
    ours = [[0.010], [0.012], [0.014]]
    slow = [[3 * x for x in r] for r in ours]

    def with_times(row: Row, mine) -> Row:
        found = timed(setting, row.phase, row.context, mine, ours)
        return replace(row, **found, **shares(found, ROOF))

    peer = replace(base, contender="peer", notes=["slow"], logits_difference=2e-7)
    return [
        with_times(base, ours),
        with_times(peer, slow),
        with_times(replace(base, phase=Phase.DECODE, context=1024), ours),
        replace(peer, contender="odd", status=Status.DIFFERS, notes=["logits differ"]),
        replace(peer, contender="gone", status=Status.ABSENT, notes=["pip install gone"]),
    ]


def test_rows_come_back_and_are_written_only_once(made_up, tmp_path):
    path = record.write(made_up, tmp_path)
    assert path == tmp_path / "bench" / "20260101T000000-1a2b3c4d.parquet"
    back = record.read(path, Row)
    pd.testing.assert_frame_equal(back, record.as_frame(made_up))
    assert list(back["contender"]) == ["ours (cpu)", "peer", "ours (cpu)", "odd", "gone"]
    assert back["ratio"].tolist()[:2] == [1.0, pytest.approx(3.0)]
    assert back["median_s"].isna().tolist() == [False, False, False, True, True]
    with pytest.raises(FileExistsError, match="only ever added"):
        record.write(made_up, tmp_path)
    with pytest.raises(ValueError, match="no rows"):
        record.write([], tmp_path)


def test_markdown_shows_times_ratios_and_what_was_not_timed(made_up):
    text = table.as_markdown(record.as_frame(made_up))
    lines = text.splitlines()
    assert lines[0].startswith("| phase | contender | ms (quartiles) | speed | n |")
    assert lines[2].startswith(
        "| train | ours (cpu) | 12 (11 to 13) | 1,333 tokens/s | 3 | 1 | 3 |"
    )
    assert "| train | peer | 36 (33 to 39) | 444 tokens/s | 3 | 3 (3 to 3) |" in text
    assert "| decode at 1,024 | ours (cpu) | 6 (5.5 to 6.5) | 167 tokens/s | 3 |" in text
    assert "% of products |" in lines[2]
    assert "% of bandwidth |" in lines[4]
    assert "| train | odd | differs | - |" in text
    assert "| train | gone | absent | - |" in text
    assert "- gone: pip install gone" in text
    assert "peer 2e-07" in text
    assert "matrix products 1,000 Gflop/s in fp32, copying 10.0 GB/s" in text
    assert "`python -m sweeps bench`" in text
    assert "A CPU" in text


def test_the_page_says_what_was_not_measured_and_keeps_gpus_apart(made_up, tmp_path):
    assert page.page(tmp_path).count("Not measured.") == 5
    record.write(made_up, tmp_path)
    text = page.page(tmp_path)
    assert "## On the CPU\n\n| phase |" in text
    assert "## On a GPU\n\nNot measured." in text
    gpu = [replace(x, device="cuda", machine="A GPU", run_id="20260102T0-gpu") for x in made_up]
    record.write(gpu, tmp_path)
    text = page.page(tmp_path)
    assert "## On A GPU\n\n| phase |" in text
    assert text.count("Not measured.") == 3
