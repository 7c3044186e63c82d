"""The benchmark: contenders agree, turns are taken, ratios cancel noise, what is missing is said.

Nothing here depends on how fast anything is.

One file: what is timed, compared, written and shown is one run of the smallest setting.
"""

import re
import shlex
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch._dynamo.config as dynamo
from typer.testing import CliRunner

from hybrid.flops import forward_flops, training_flops
from hybrid.jamba import jamba, parse_ratio
from hybrid.model import HybridLM, build
from hybrid.ops import REFERENCE, names_for
from hybrid.spec import Attention, MoE
from sweeps import cli
from sweeps.bench import agree, entries, ours, page, peak, phases, profile, record, run, table
from sweeps.bench.clock import Patience, Task, interleave, ratios, spread, warm_up
from sweeps.bench.ours import Ours, scan_sizes
from sweeps.bench.parts import OTHER, OUTSIDE, part_of
from sweeps.bench.profile import PartRow
from sweeps.bench.reckon import shares, timed
from sweeps.bench.record import Row, Status
from sweeps.bench.roof import Roof
from sweeps.bench.setting import Phase, Setting, jamba_style
from sweeps.trial.engine import Compile
from sweeps.trial.recipe import Precision
from sweeps.workers.server import process_context

PEERS = {
    "transformers": "transformers",
    "transformers (mambapy scan)": "mambapy.pscan",
    "mambapy": "mambapy.jamba",
}
HERE = [f"ours ({name})" for name in names_for(torch.device("cpu"))]
DENSE = jamba_style(ratio=(1, 7), width=16, hidden=24, blocks=1, vocab=32)
SPECS = {
    "dense": DENSE,
    "tied": replace(DENSE, tied=True),
    "routed": jamba(
        vocab=32,
        width=16,
        hidden=24,
        blocks=1,
        l=4,
        ratio=(1, 3),
        attention=Attention(heads=4, kv_heads=2),
        moe=MoE(hidden=24, n_experts=4, top_k=2),
    ),
}
PURE = {
    ratio: jamba_style(ratio=parse_ratio(ratio), width=16, hidden=24, blocks=1, vocab=32)
    for ratio in ("1:0", "0:1")
}
ROOF = Roof(
    gemm_flops_per_s=1e12, copy_bytes_per_s=1e10, exp_cached_per_s=4e9, exp_uncached_per_s=2e9
)


def setting_of(**changes) -> Setting:
    usual = Setting(
        spec=DENSE,
        device=torch.device("cpu"),
        precision=Precision.FP32,
        batch=2,
        tokens=8,
        contexts=(12,),
        decode_tokens=2,
        rounds=2,
        round_s=1e-3,
        phases=(Phase.TRAIN, Phase.DECODE),
    )
    return replace(usual, **changes)


def disturbed(setting: Setting) -> HybridLM:
    """A model of which no two parameters are equal, so that swapped ones would be seen."""
    model = build(setting.spec, ops=REFERENCE)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=draws)
    return model


def run_of(setting: Setting, *names: str, monkeypatch) -> dict[tuple[str, Phase], Row]:
    monkeypatch.setattr(run.roof, "measure", lambda setting: ROOF)
    rows = run.run(setting, names, memory=False, command="bench", say=lambda what: None)
    return {(row.contender, row.phase): row for row in rows}


# --- contenders


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("ask", [agree.trained_answers, agree.served_answers])
def test_a_peer_with_our_weights_says_what_we_say(name, spec, ask):
    pytest.importorskip(PEERS[name])
    setting = setting_of(spec=spec)
    source = disturbed(setting)
    found = agree.agreement(
        ask(entries.ALL[name](source), setting), ask(Ours(source, "reference"), setting)
    )
    assert found.logits < 1e-4
    assert found.problem(Precision.FP32) is None


@pytest.mark.parametrize("name", HERE)
def test_our_back_ends_say_the_same(name):
    setting = setting_of()
    source = disturbed(setting)
    mine, truth = entries.ALL[name](source), Ours(source, "reference")
    for ask in (agree.trained_answers, agree.served_answers, agree.scan_trained_answers):
        found = agree.agreement(ask(mine, setting), ask(truth, setting))
        assert found.problem(Precision.FP32) is None


def test_other_weights_and_what_is_not_a_number_are_seen():
    setting = setting_of()
    truth = agree.trained_answers(Ours(disturbed(setting), "reference"), setting)
    other = agree.trained_answers(Ours(build(DENSE, seed=1), "reference"), setting)
    assert "logits differ by" in str(agree.agreement(other, truth).problem(Precision.FP32))
    lost = truth._replace(logits=torch.full_like(truth.logits, float("nan")))
    assert "logits differ by nan" in str(agree.agreement(lost, truth).problem(Precision.FP32))
    dearer = truth._replace(loss_nats=truth.loss_nats + 0.002)
    assert "loss differs by 2.0e-03" in str(agree.agreement(dearer, truth).problem(Precision.FP32))
    assert agree.agreement(dearer, truth).problem(Precision.BF16) is None


def test_batches_are_the_same_for_all_and_differ_from_each_other():
    setting = setting_of()
    ids_BT, targets_BT = agree.training_batch(setting, 0)
    assert ids_BT.shape == targets_BT.shape == (2, 8)
    assert torch.equal(ids_BT[:, 1:], targets_BT[:, :-1])
    assert torch.equal(ids_BT, agree.training_batch(setting, 0)[0])
    assert not torch.equal(ids_BT, agree.training_batch(setting, 1)[0])


def test_the_baseline_is_the_fastest_back_end_or_the_first_asked_for():
    device = torch.device("cpu")
    assert entries.chosen((), True, device)[0] == "ours (cpu)"
    assert set(entries.chosen((), True, device)) == {*HERE, *entries.PEERS}
    assert entries.chosen(("torch", "reference"), False, device) == (
        "ours (torch)",
        "ours (reference)",
    )
    with pytest.raises(ValueError, match="ops='cup' must be one of reference, torch, cpu"):
        entries.chosen(("cup",), False, device)


def test_on_cuda_ours_is_also_offered_compiled_and_on_a_cpu_only_when_asked():
    cuda = entries.chosen((), False, torch.device("cuda"))
    assert {"ours (triton)", "ours (triton, compiled)", "ours (triton, graphs)"} <= set(cuda)
    assert "ours (torch)" in cuda
    assert "ours (torch, compiled)" not in cuda
    assert not any("compiled" in x or "graphs" in x for x in HERE)
    both = entries.chosen(("cpu",), False, torch.device("cpu"), [Compile.ON, Compile.OFF])
    assert both == ("ours (cpu)", "ours (cpu, compiled)")
    assert set(both) <= set(entries.ALL)
    assert run.candidates(both, Phase.TRAIN) == list(both)
    assert run.candidates(both, Phase.SCAN) == ["ours (cpu)"]


@pytest.fixture
def compiler():
    """The compiler's settings, as they were afterwards."""
    with dynamo.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
        yield dynamo


@pytest.mark.parametrize("compiled", Compile)
def test_ours_is_compiled_as_a_sweep_compiles_it(compiled, monkeypatch, compiler):
    modes = []
    monkeypatch.setattr(HybridLM, "compile_passes", lambda model, mode: modes.append(mode))
    monkeypatch.setattr(ours, "prepare", lambda model, cache, graphs: graphs)
    contender = Ours(build(DENSE), "cpu", compiled)
    assert modes == ([] if compiled is Compile.OFF else [compiled.mode])
    assert contender.ready([]) is (compiled is Compile.GRAPHS)
    assert compiler.fail_on_recompile_limit_hit is (compiled is not Compile.OFF)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, as it compiles
def test_ours_says_the_same_when_it_is_compiled(compiler):
    setting = setting_of(phases=(Phase.TRAIN,))
    source = disturbed(setting)
    mine, truth = Ours(source, "cpu", Compile.ON), Ours(source, "reference")
    for ask in (agree.trained_answers, agree.served_answers):
        found = agree.agreement(ask(mine, setting), ask(truth, setting))
        assert found.problem(Precision.FP32) is None
    step = phases.train_step(mine, setting)
    step.call(step.prepare())


def test_a_peer_that_is_not_installed_has_a_row_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "mambapy", None)
    setting = setting_of(phases=(Phase.TRAIN,))
    rows = run_of(setting, "ours (cpu)", "transformers", "mambapy", monkeypatch=monkeypatch)
    for name, extra in (("transformers", "hf"), ("mambapy", "dev")):
        row = rows[name, Phase.TRAIN]
        assert row.status is Status.ABSENT
        assert row.notes == [f"{name} is not installed: pip install 'hybrid-workbench[{extra}]'"]
        assert row.median_s is None
    assert rows["ours (cpu)", Phase.TRAIN].status is Status.TIMED


def test_a_contender_that_differs_or_fails_is_reported_and_not_timed(monkeypatch):
    class NoDecode(Ours):
        def decode(self, ids_B, cache):
            raise RuntimeError("no such thing\nhere")

    monkeypatch.setitem(entries.ALL, "other", lambda source: Ours(build(DENSE, seed=1), "cpu"))
    monkeypatch.setitem(entries.ALL, "broken", lambda source: NoDecode(source, "cpu"))
    rows = run_of(setting_of(), "ours (cpu)", "other", "broken", monkeypatch=monkeypatch)
    for phase in (Phase.TRAIN, Phase.DECODE):
        other = rows["other", phase]
        assert other.status is Status.DIFFERS
        assert other.logits_difference > agree.LOGITS_ALLOWED
        assert other.rounds is other.median_s is other.ratio is None
    assert rows["broken", Phase.TRAIN].status is Status.TIMED
    assert rows["broken", Phase.DECODE].status is Status.FAILS
    assert rows["broken", Phase.DECODE].notes == ["RuntimeError: no such thing"]


# --- the clock


class FakeTime:
    """A clock that tasks move."""

    def __init__(self):
        self.seconds, self.log = 0.0, []

    def now(self) -> float:
        return self.seconds

    def task(self, name: str, *durations: float, prepare: float = 0.0) -> Task:
        """A task that takes the given times, one after the other, and then the last for ever."""
        left = list(durations)

        def pass_by(seconds: float) -> None:
            self.seconds += seconds

        def call(_) -> None:
            self.log.append(name)
            pass_by(left.pop(0) if len(left) > 1 else left[0])

        return Task(prepare=lambda: pass_by(prepare), call=call)


def interleaved(fake: FakeTime, patience: Patience, **tasks: Task):
    warm_s = {name: warm_up(task, fake.now) for name, task in tasks.items()}
    return interleave(tasks, warm_s, patience, fake.now)


def test_tasks_take_turns_after_a_call_that_does_not_count():
    fake = FakeTime()
    rounds = interleaved(
        fake,
        Patience(rounds=3, round_s=1.0, budget_s=60),
        a=fake.task("a", 9.0, 2.0),
        b=fake.task("b", 9.0, 4.0),
    )
    assert "".join(fake.log) == "ab" + "ab" * 3
    assert rounds == {"a": [[2.0]] * 3, "b": [[4.0]] * 3}


def test_short_calls_are_repeated_within_a_round_and_preparation_is_not_timed():
    fake = FakeTime()
    patience = Patience(rounds=2, round_s=1.0, budget_s=60)
    rounds = interleaved(fake, patience, a=fake.task("a", 0.125, prepare=0.125))
    assert rounds == {"a": [[0.125] * 4] * 2}


def test_long_calls_get_fewer_rounds_but_one_and_a_long_first_call_is_forgiven():
    fake = FakeTime()
    rounds = interleaved(
        fake,
        Patience(rounds=4, round_s=1.0, budget_s=60),
        quick=fake.task("q", 1.0),
        slow=fake.task("s", 100.0),
        slowest=fake.task("x", 1000.0),
        compiled=fake.task("c", 100.0, 1.0),
    )
    assert {name: len(r) for name, r in rounds.items()} == {
        "quick": 4,
        "slow": 2,
        "slowest": 1,
        "compiled": 4,
    }


def test_noise_that_a_round_shares_cancels_in_the_ratio():
    noise = [1.0, 5.0, 1.0, 30.0, 2.0]
    mine = [[3.0 * x, 3.0 * x] for x in noise]
    baseline = [[2.0 * x] for x in noise]
    assert ratios(mine, baseline) == pytest.approx([1.5] * 5)
    assert ratios(mine[:2], baseline) == pytest.approx([1.5] * 2)


def test_spread_is_median_and_quartiles():
    found = spread([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    with pytest.raises(ValueError, match="give at least one"):
        spread([])


# --- figures


def test_a_training_step_beside_the_matrix_products_of_the_machine():
    setting = setting_of(batch=2, tokens=8)
    found = timed(setting, Phase.TRAIN, None, [[0.5], [0.5]], [[0.25], [0.25]])
    flops = 16 * training_flops(DENSE, tokens=8)
    assert found["tokens_per_s"] == 32
    assert (found["ratio"], found["rounds"], found["calls"]) == (2.0, 2, 2)
    assert found["flops_per_s"] == pytest.approx(flops / 0.5)
    assert shares(found, ROOF) == {"fraction_of_gemm": pytest.approx(flops / 0.5 / 1e12)}


def test_prefill_counts_the_prompt_and_the_logits_of_its_last_token():
    found = timed(setting_of(), Phase.PREFILL, 12, [[0.1]], None)
    flops = forward_flops(DENSE, tokens=12, predictions=1).total
    assert found["flops_per_s"] == pytest.approx(flops / 0.1)
    assert found["tokens_per_s"] == pytest.approx(120)
    assert "ratio" not in found


def test_decoding_reads_at_least_the_weights_for_every_token():
    setting = setting_of(decode_tokens=2)
    found = timed(setting, Phase.DECODE, 12, [[0.1]], [[0.1]])
    weights = sum(p.numel() for p in build(DENSE, device="meta").parameters())
    read = found["bytes_per_s"] * 0.1 / 2
    dense = 4 * (weights - DENSE.vocab * DENSE.width + DENSE.width)  # of the table one row
    kv = 2 * 2 * (12 + 1) * 2 * 4  # bf16 keys and values, middle of the continuation, kv heads
    states = 4 * 7 * 32 * (16 + 3)  # fp32, Mamba layers, channels, state and tail
    assert read == pytest.approx(dense + kv + states)
    assert shares(found, ROOF) == {"fraction_of_bandwidth": pytest.approx(read * 2 / 0.1 / 1e10)}


def test_the_scan_counts_tokens_channels_and_states():
    setting = setting_of(phases=(Phase.SCAN,))
    found = timed(setting, Phase.SCAN, None, [[0.5]], [[0.5]])
    assert found["elements_per_s"] == 2 * 8 * 32 * 16 / 0.5
    y_BTE = agree.scanned_answers(Ours(build(DENSE), "reference"), setting).logits
    assert y_BTE.shape == (2, 8, 32)
    with pytest.raises(LookupError, match="no Mamba layer"):
        scan_sizes(PURE["1:0"])


@pytest.mark.parametrize("ratio", PURE)
def test_models_of_one_mixer_are_timed_and_what_cannot_serve_them_says_so(ratio, monkeypatch):
    pytest.importorskip("transformers")
    setting = setting_of(spec=PURE[ratio], phases=tuple(Phase))
    rows = run_of(setting, "ours (cpu)", "transformers", monkeypatch=monkeypatch)
    assert rows["transformers", Phase.TRAIN].status is Status.TIMED
    assert rows["ours (cpu)", Phase.DECODE].status is Status.TIMED
    assert (("ours (cpu)", Phase.SCAN) in rows) == (ratio == "0:1")
    assert ("transformers", Phase.SCAN) not in rows
    # Their cache needs an attention layer (hybrid/huggingface/__init__.py).
    served = Status.TIMED if ratio == "1:0" else Status.FAILS
    assert rows["transformers", Phase.PREFILL].status is served
    assert bool(rows["transformers", Phase.PREFILL].median_s) == (served is Status.TIMED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch=0 must be an integer of 1 or more"),
        ({"contexts": (8, 0)}, "context=0 must be an integer"),
        ({"budget_s": 0.0}, "budget_s=0.0 must be above 0"),
        ({"phases": ()}, "must name at least one"),
        ({"precision": Precision.AUTO}, "precision must be fp32 or bf16"),
    ],
)
def test_a_wrong_setting_cannot_exist(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        setting_of(**change)


# --- memory


@pytest.mark.skipif(not peak.CLEAR_REFS.exists(), reason="only Linux forgets a peak")
def test_growth_is_what_was_held_at_once_and_not_what_was_held_before():
    size = 1 << 26
    np.ones(2 * size, np.uint8)  # a peak of another's
    grown = peak.growth(lambda: np.ones(size, np.uint8), torch.device("cpu"))
    assert 0.9 * size < grown < 1.5 * size


def test_a_phase_is_weighed_in_a_process_of_its_own():
    assert process_context().get_start_method() == "forkserver"
    held = peak.peak_bytes(setting_of(), "ours (cpu)", Phase.TRAIN, None)
    assert held is not None
    assert held >= 0


# --- records, tables and pages


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


# --- the profile


@pytest.mark.parametrize(
    ("operator", "part"),
    [
        ("aten::mm", "matrix products"),
        ("aten::bmm", "matrix products"),
        ("hybrid::scan_cpu_backward", "scan"),
        ("GeneratedBackwardFor_hybrid_conv_cpu_defaultBackward", "convolution"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::_log_softmax_backward_data", "loss"),
        ("aten::_softmax", "attention"),
        ("aten::_fused_rms_norm", "norms"),
        ("aten::silu_backward", "activations"),
        ("aten::exp", "activations"),
        ("aten::expand", OTHER),
        ("aten::_fused_adamw_", "optimiser and clipping"),
        ("Optimizer.step#AdamW.step", "optimiser and clipping"),
        ("aten::copy_", "copies and casts"),
        ("aten::topk", OTHER),
        ("aten::add_", "sums and products by element"),
        ("aten::embedding_dense_backward", "embedding"),
        ("aten::view", OTHER),
    ],
)
def test_operators_belong_to_parts(operator, part):
    assert part_of(operator) == part


def test_parts_add_up_and_what_no_operator_explains_stands_apart():
    operators = [
        profile.Operator(name="aten::mm", own_s=0.5, calls=4),
        profile.Operator(name="aten::bmm", own_s=0.1, calls=2),
        profile.Operator(name="hybrid::scan_cpu", own_s=0.3, calls=2),
    ]
    rows = list(profile.by_part(operators, total_s=1.0, steps=2))
    assert [row["part"] for row in rows] == ["matrix products", "scan", OUTSIDE]
    products = rows[0]
    assert products["part_s"] == pytest.approx(0.3)
    assert products["share"] == pytest.approx(0.6)
    assert products["calls"] == 3
    assert sum(row["share"] for row in rows) == pytest.approx(1)


# --- the commands


def invoke(command: str):
    return CliRunner().invoke(cli.app, shlex.split(command))


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
    result = invoke(command)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_training_step_changes_the_weights_and_drops_its_gradients():
    setting = setting_of()
    contender = Ours(build(DENSE), "cpu")
    before = [p.clone() for p in contender.module.parameters()]
    step = phases.train_step(contender, setting)
    step.call(step.prepare())
    after = list(contender.module.parameters())
    assert all(p.grad is None for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
