"""Rows of a benchmark come back, and stand in table and page."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from sweeps.bench import page, record, table
from sweeps.bench.limits import LimitRow
from sweeps.bench.profile import PartRow
from sweeps.bench.reckon import shares, timed
from sweeps.bench.record import Row, Status
from sweeps.bench.setting import Phase
from tests.bench.samples import ROOF, setting_of
from tests.commands import invoke


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


@pytest.mark.parametrize("prefix", ["", "profile-", "limits-"])
def test_two_benchmarks_of_one_second_have_names_of_their_own(prefix, monkeypatch):
    monkeypatch.setattr(record.provenance, "now_utc", lambda: "2026-01-01T12:00:00+00:00")
    first, second = (record.origin(setting_of(), "a test", prefix).run_id for _ in range(2))
    assert first != second
    assert first.startswith(f"{prefix}20260101T120000-")


@pytest.mark.parametrize("name", ["limits-of-a-gpu", "profile-before", "x"])
def test_the_columns_of_a_file_say_of_which_kind_it_is_not_its_name(name, made_up, tmp_path):
    path = record.write([replace(row, run_id=name) for row in made_up], tmp_path)
    assert record.kind_of(path, (PartRow, LimitRow, Row)) is Row
    assert list(page.read_all(path.parent)) == [Row]


def test_a_file_of_no_kind_is_named(tmp_path):
    path = tmp_path / "other.parquet"
    pd.DataFrame({"x": [1]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"other\.parquet has the columns of none of Row"):
        record.kind_of(path, (Row,))
    path.write_text("no Parquet")
    with pytest.raises(ValueError, match=r"other\.parquet is no file of records"):
        record.kind_of(path, (Row,))


COMMANDS = (
    "bench --phases train --no-peers --no-memory --ops reference",
    "profile --steps 1 --ops reference",
    "limits --max-batch 1",
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_what_was_measured_is_shown_though_it_cannot_be_written(command, tmp_path, monkeypatch):
    def full(rows, folder):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(record, "write", full)
    done = invoke(f"{command} --smoke --device cpu --ratio 0:1 --results {tmp_path}")
    assert done.exit_code == 2
    assert "No space left" in done.stderr
    assert re.search(r"train|scan", done.stdout), done.output


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
