"""Figures beside the machine's best, models of one mixer, memory in a process of its own."""

import re

import numpy as np
import pytest
import torch

from hybrid.flops import forward_flops, training_flops
from hybrid.model import build
from sweeps.bench import agree, peak
from sweeps.bench.ours import Ours, scan_sizes
from sweeps.bench.reckon import shares, timed
from sweeps.bench.record import Status
from sweeps.bench.setting import Phase
from sweeps.trial.recipe import Precision
from sweeps.workers.server import process_context
from tests.bench.samples import DENSE, PURE, ROOF, run_of, setting_of


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
