"""Contenders agree with each other; what is missing, differs or fails is said."""

import sys

import pytest
import torch
import torch._dynamo.config as dynamo

from hybrid.model import HybridLM, build
from sweeps.bench import agree, entries, ours, phases, run
from sweeps.bench.ours import Ours
from sweeps.bench.record import Status
from sweeps.bench.setting import Phase
from sweeps.trial.engine import Compile
from sweeps.trial.recipe import Precision
from tests.bench.samples import DENSE, HERE, PEERS, SPECS, disturbed, run_of, setting_of


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


def test_a_training_step_changes_the_weights_and_drops_its_gradients():
    setting = setting_of()
    contender = Ours(build(DENSE), "cpu")
    before = [p.clone() for p in contender.module.parameters()]
    step = phases.train_step(contender, setting)
    step.call(step.prepare())
    after = list(contender.module.parameters())
    assert all(p.grad is None for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
