"""Batches are doubled until memory ends, and what is measured is drawn: with made-up numbers.

One file: table, figure and page are drawn from the same made-up rows.
"""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.text import Annotation

from hybrid import codec, generate
from hybrid.activations import working_bytes
from hybrid.cost import training_bytes
from hybrid.jamba import parse_ratio
from hybrid.model import build
from hybrid.spec import ModelSpec
from sweeps.bench import figure, limits, limits_table, page, peak, record, weigh
from sweeps.bench.limits import Bounds, LimitRow
from sweeps.bench.ours import Ours
from sweeps.bench.record import Row, Status
from sweeps.bench.roof import Roof
from sweeps.bench.setting import Phase, Setting, jamba_style
from sweeps.bench.weigh import Weighed
from sweeps.trial.recipe import Precision
from sweeps.workers import server
from tests.commands import assert_one_sentence, invoke

ROOT = Path(__file__).parents[1]
RATIOS = ("1:0", "1:7", "0:1")
ROOF = Roof(
    gemm_flops_per_s=1e12, copy_bytes_per_s=1e10, exp_cached_per_s=4e9, exp_uncached_per_s=2e9
)


def setting_of(ratio: str = "1:7", **changes) -> Setting:
    spec = jamba_style(ratio=parse_ratio(ratio), width=16, hidden=24, blocks=1, vocab=32)
    usual = Setting(
        spec=spec,
        device=torch.device("cpu"),
        precision=Precision.FP32,
        tokens=8,
        contexts=(12,),
        decode_tokens=2,
        rounds=2,
    )
    return replace(usual, **changes)


def rows_of(monkeypatch, bounds: Bounds, *ratios: str) -> list[LimitRow]:
    """Rows of models that take 100 bytes and 0.1 s for every sequence."""

    def take(setting: Setting, name: str, phase: Phase) -> Weighed:
        n = setting.batch
        return Weighed(status=Status.TIMED, seconds=(0.1 * n, 0.2 * n), peak_bytes=100 * n)

    monkeypatch.setattr(limits, "weigh", take)
    settings = [setting_of(ratio) for ratio in ratios or ("1:7",)]
    return limits.run(settings, "ours (cpu)", bounds, command="limits", say=lambda what: None)


def bounds_of(**changes) -> Bounds:
    return replace(Bounds(memory_bytes=750, max_batch=64, budget_s=60.0), **changes)


# --- doubling


def test_the_batch_is_doubled_until_it_takes_more_than_the_memory_given(monkeypatch):
    rows = rows_of(monkeypatch, bounds_of())
    train = [row for row in rows if row.phase is Phase.TRAIN]
    assert [row.batch for row in train] == [1, 2, 4, 8]
    assert [row.status for row in train] == [Status.TIMED] * 3 + [Status.OUT_OF_MEMORY]
    assert train[-1].notes == ["takes 800 B of 750 B", "a batch of 8 does not fit"]
    assert train[2].notes == []
    assert train[2].tokens_per_s == pytest.approx(4 * 8 / 0.6)
    decode = rows[len(train) :]
    assert [row.batch for row in decode] == [1, 2, 4, 8]
    assert decode[1].tokens_per_s == pytest.approx(2 / 0.3)
    assert {row.context for row in train} == {None}
    assert {row.context for row in decode} == {12}
    assert len({row.run_id for row in rows}) == 1


@pytest.mark.parametrize(
    ("change", "batches", "why"),
    [
        ({"max_batch": 3}, [1, 2], "a batch of 2 is the largest that was asked for"),
        ({"budget_s": 1e-9}, [1], "after a batch of 1 the 1e-09 s given were over"),
    ],
)
def test_the_doubling_also_stops_where_it_is_told_to_and_says_so(monkeypatch, change, batches, why):
    rows = rows_of(monkeypatch, bounds_of(**change))
    train = [row for row in rows if row.phase is Phase.TRAIN]
    assert [row.batch for row in train] == batches
    assert train[-1].notes == [why]


def test_what_fails_ends_the_doubling(monkeypatch):
    monkeypatch.setattr(
        limits, "weigh", lambda *_: Weighed(status=Status.FAILS, note="RuntimeError: no")
    )
    rows = limits.run(
        [setting_of()], "ours (cpu)", bounds_of(), command="limits", say=lambda what: None
    )
    assert [row.status for row in rows] == [Status.FAILS] * 2
    assert rows[0].notes == ["RuntimeError: no", "a batch of 1 fails"]
    assert rows[0].median_s is rows[0].peak_bytes is rows[0].peak_over_estimate is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), Status.OUT_OF_MEMORY),
        (MemoryError(), Status.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Status.OUT_OF_MEMORY),
        (RuntimeError("another"), Status.FAILS),
    ],
)
def test_to_run_out_of_memory_is_an_answer(monkeypatch, error, status):
    def raise_it(*_):
        raise error

    monkeypatch.setattr(weigh, "_measured", raise_it)
    assert weigh._weigh(setting_of(), "ours (cpu)", Phase.TRAIN).status is status


@pytest.mark.parametrize(
    ("exit_code", "status"), [(-signal.SIGKILL, Status.OUT_OF_MEMORY), (1, Status.FAILS)]
)
def test_so_is_a_process_that_was_killed(monkeypatch, exit_code, status):
    def die(*_):
        raise peak.Died(exit_code)

    monkeypatch.setattr(weigh, "in_process", die)
    found = weigh.weigh(setting_of(), "ours (cpu)", Phase.TRAIN)
    assert found.status is status
    assert f"exit code {exit_code}" in str(found.note)


def test_a_process_that_dies_says_how():
    with pytest.raises(peak.Died, match="exit code -9") as caught:
        peak.in_process(signal.raise_signal, signal.SIGKILL)
    assert caught.value.exit_code == -signal.SIGKILL
    assert peak.in_process(len, "four") == 4
    with pytest.raises(ValueError, match="'four'"):  # what it raised, and not only that it did
        peak.in_process(int, "four")


def test_what_is_measured_in_a_process_has_a_trials_heap_and_threads():
    assert peak.in_process(os.getenv, "GLIBC_TUNABLES") == server.HEAP
    assert peak.in_process(os.getenv, "GOMP_SPINCOUNT") == os.environ["GOMP_SPINCOUNT"]


# --- what one batch takes


def test_the_arithmetic_is_that_of_the_cost_model():
    setting = setting_of(batch=4)
    whole = training_bytes(setting.spec, batch=4, tokens=8, itemsize=4, device="cpu").total
    assert weigh.estimate_bytes(setting, Phase.TRAIN) == whole
    model = build(setting.spec)
    weights = 4 * sum(p.numel() for p in model.parameters())
    room = weigh.room(setting)
    ids_BT = torch.zeros(4, 12, dtype=torch.int64)
    held = generate.cache_bytes(generate.prefill(model, ids_BT, room=room)[1])
    working = working_bytes(setting.spec, batch=4, tokens=12, itemsize=4)
    assert weigh.estimate_bytes(setting, Phase.DECODE) == weights + held + working


def test_every_sequence_goes_on_with_a_token_of_its_own():
    setting = setting_of(batch=6, decode_tokens=3)
    contender = Ours(build(setting.spec), "cpu")
    seen = []

    class Watched(Ours):
        def __init__(self):
            self.model = self.module = contender.model

        def ready(self, cache):
            steps = contender.ready(cache)
            step = steps.step
            steps.step = lambda ids_B: seen.append(ids_B) or step(ids_B)
            return steps

    task = weigh.decode_step(Watched(), setting)
    for _ in range(3):
        task.call(task.prepare())
    ids_BT = weigh.prompt(setting, 12, rows=6)
    grown_BT = torch.cat([ids_BT, torch.stack(seen, dim=1)], dim=1)
    with torch.no_grad():
        logits_BTV = contender.logits(grown_BT)
    assert torch.equal(logits_BTV[:, 11:14].argmax(dim=-1), torch.stack(seen, dim=1))


def test_passes_over_the_context_are_of_a_bounded_number_of_tokens():
    assert weigh.chunk(1) == weigh.PASS_TOKENS
    assert weigh.chunk(1024) * 1024 == weigh.PASS_TOKENS
    assert weigh.chunk(1 << 20) == 1


# --- rows, table and page


def test_rows_come_back_and_are_shown(monkeypatch, tmp_path):
    rows = rows_of(monkeypatch, bounds_of(), "1:0", "1:7")
    rows = [replace(row, machine="A CPU") for row in rows]
    path = record.write(rows, tmp_path)
    assert path.name.startswith("limits-")
    frame = record.read(path, LimitRow)
    pd.testing.assert_frame_equal(frame, record.as_frame(rows))
    text = limits_table.as_markdown(frame)
    assert "| 1:0 | train | 4 | 600 (500 to 700) | 53.3 | 400 B |" in text
    assert "| 1:7 | decode at 12 | 8 | out of memory | - | 800 B |" in text
    assert "- 1:7, train: takes 800 B of 750 B; a batch of 8 does not fit" in text
    assert f"1:0 {rows[0].params:,}, 1:7 {rows[-1].params:,}" in text
    shown = page.page(tmp_path)
    assert "## How large a batch fits" in shown
    assert text in shown
    assert "Not measured on a GPU." in shown
    gpu = [replace(row, device="cuda", run_id="limits-20260102T0-gpu") for row in rows]
    record.write(gpu, tmp_path)
    (tmp_path / "bench" / "throughput.png").touch()
    shown = page.page(tmp_path)
    assert "Not measured on a GPU." not in shown
    assert f"![throughput](../results/{tmp_path.name}/bench/throughput.png)" in shown


# --- the figure


def bench_row(ratio: str, run_id: str = "first") -> Row:
    where = replace(record.origin(setting_of(ratio), "bench"), run_id=run_id)
    return Row(
        **vars(where),
        **vars(ROOF),
        contender="ours (cpu)",
        phase=Phase.PREFILL,
        context=1024,
        status=Status.TIMED,
        notes=[],
        baseline="ours (cpu)",
        call_tokens=1024,
        median_s=0.2,
        low_s=0.1,
        high_s=0.4,
    )


@pytest.fixture
def files(monkeypatch, tmp_path) -> list[Path]:
    """Bench files of three ratios and a limits file of two, with made-up times."""
    found = []
    for index, ratio in enumerate(RATIOS):
        base = bench_row(ratio, run_id=f"2026-{index}")
        longer = replace(base, context=4096, call_tokens=4096, median_s=1.0, high_s=1.6)
        peer = replace(base, contender="peer", median_s=9.0)
        decode = replace(base, phase=Phase.DECODE, call_tokens=32)
        lost = replace(decode, context=4096, status=Status.FAILS, median_s=None)
        train = replace(base, phase=Phase.TRAIN, context=None)
        found.append(record.write([base, longer, peer, decode, lost, train], tmp_path))
    rows = rows_of(monkeypatch, bounds_of(), "1:0", "1:7")
    return [*found, record.write(rows, tmp_path)]


def labels(axes) -> list[str]:
    """Return the names of lines, without the marker that stands before each."""
    return [text.get_text()[2:] for text in axes.texts if isinstance(text, Annotation)]


def test_the_figure_has_a_line_and_a_label_for_each_ratio(files, tmp_path):
    drawn = figure.throughput(figure.read(files))
    prefill, decode, batch = drawn.axes
    assert labels(prefill) == labels(decode) == list(RATIOS)
    assert labels(batch) == ["1:0", "1:7"]
    assert list(prefill.lines[0].get_xdata()) == [1024, 4096]
    assert [text.get_text() for text in prefill.get_xticklabels()] == ["1K", "4K"]
    assert list(prefill.lines[0].get_ydata()) == pytest.approx([5120, 4096])
    assert list(decode.lines[0].get_xdata()) == [1024]
    assert list(batch.lines[1].get_xdata()) == [1, 2, 4]
    assert len(prefill.collections) == len(RATIOS)
    band = prefill.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((2560, 40960))
    assert {axes.get_yscale() for axes in drawn.axes} == {"log"}


def test_without_limits_there_are_two_panels(files):
    assert len(figure.throughput(figure.read(files[:2])).axes) == 2


def test_points_that_cannot_be_compared_are_not_drawn_together(files):
    rows = figure.read(files)
    for column, other in (("machine", "another"), ("width", 17), ("precision", "bf16")):
        mixed = pd.concat([rows, rows.assign(**{column: other})])
        with pytest.raises(ValueError, match="one machine, model"):
            figure.throughput(mixed)


CHANGED = {
    "spec": lambda row: replace(row, spec=re.sub(r'"hidden": \d+', '"hidden": 56', row.spec)),
    "trained_batch": lambda row: replace(row, batch=row.batch + 1),
    "contender": lambda row: replace(row, contender="other", baseline="other"),
    "git_commit": lambda row: replace(row, git_commit="another"),
}


@pytest.mark.parametrize("column", CHANGED)
def test_one_line_is_of_one_model_batch_back_end_and_commit(column, tmp_path):
    row = bench_row("1:0")
    again = CHANGED[column](replace(row, run_id="again", started_utc="2027"))
    assert again != replace(row, run_id="again", started_utc="2027")
    paths = [record.write([x], tmp_path / "more") for x in (row, again)]
    with pytest.raises(ValueError, match=f"line 1:0, prefill, is of one .* given .*{column}"):
        figure.read(paths)
    plain = replace(row, run_id="plain", started_utc="2027", median_s=7.0)
    (point,) = figure.read([paths[0], record.write([plain], tmp_path / "more")])["median_s"]
    assert point == 7.0  # measured again: the last


def test_files_with_nothing_to_draw_are_named(tmp_path):
    where = replace(record.origin(setting_of(), "bench"), run_id="x")
    absent = Row(
        **vars(where),
        **vars(ROOF),
        contender="gone",
        phase=Phase.PREFILL,
        context=8,
        status=Status.ABSENT,
        notes=[],
        baseline="gone",
    )
    path = record.write([absent], tmp_path)
    with pytest.raises(LookupError, match=r"something timed; given .*x\.parquet"):
        figure.read([path])


# --- the commands and the script


def test_limits_and_their_figure_from_end_to_end(tmp_path):
    result = invoke(f"limits --smoke --device cpu --ratio 1:0 --max-batch 1 --results {tmp_path}")
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "bench").glob("limits-*.parquet")
    frame = record.read(path, LimitRow)
    assert set(frame["status"]) == {"timed"}, frame[["ratio", "phase", "notes"]].to_string()
    assert list(frame["ratio"]) == ["1:0"] * 2
    assert list(frame["phase"]) == ["train", "decode"]
    assert list(frame["batch"]) == [1, 1]
    assert (frame["tokens_per_s"] > 0).all()
    assert (frame["peak_bytes"] >= 0).all()
    assert {codec.loads(ModelSpec, x).ratio for x in frame["spec"]} == {"1:0"}
    result = invoke(f"bench-figure {path} --to {tmp_path / 'drawn'}")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "drawn.png").stat().st_size > 10_000
    assert (tmp_path / "drawn.svg").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("limits --memory 8", "memory '8' must be a size with its unit"),
        ("limits --max-batch 0", "max_batch=0 must be an integer of 1 or more"),
        ("limits --budget 0", "budget_s=0.0 must be above 0"),
        ("limits --ratio 1-7", "ratio '1-7' must be two whole numbers"),
        ("limits --ops cup", "ops='cup' must be one of"),
        ("bench-figure nowhere.parquet --to x", "nowhere.parquet"),
    ],
)
def test_what_is_wrong_is_one_sentence(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(command, message, tmp_path)


SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def test_the_steps_of_the_gpu_script_fit_into_ten_minutes():
    text = SCRIPT.read_text()
    table = dict(re.findall(r"^#     (\w+(?: \d:\d)?) +(\d+)(?:  |$)", text, flags=re.MULTILINE))
    assert sum(map(int, table.values())) < 600
    steps = re.findall(r'^ +(?:step|bench) (\d+) "?(\w+)', text, flags=re.MULTILINE)
    assert len(steps) == len({name.split()[0] for name in table})
    for seconds, name in steps:
        assert {x for step, x in table.items() if step.split()[0] == name} == {seconds}


@pytest.mark.slow
def test_the_gpu_script_runs_on_a_cpu_at_smoke_sizes(tmp_path):
    for name in ("transformers", "mambapy.pscan"):
        pytest.importorskip(name)
    done = subprocess.run(
        [SCRIPT, "--tiny"],
        env=os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "== 0 of 14 steps failed" in done.stdout
    bench = tmp_path / "bench"
    assert (bench / "throughput.png").exists()
    assert len(list(bench.glob("*.parquet"))) == 11
    assert len(list(bench.glob("limits-*"))) == len(list(bench.glob("profile-*"))) == 1
    (log,) = bench.glob("gpu-*.log")
    assert "== figure: done" in log.read_text()
