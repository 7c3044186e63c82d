"""The profile: every operator belongs to a part, and parts add up."""

import pytest

from sweeps.bench import profile
from sweeps.bench.parts import OTHER, OUTSIDE, part_of


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
