"""Errors that docstrings promise, where something else came out."""

import sys
from typing import Any

import pytest
import torch

from hybrid import codec
from hybrid.jamba import jamba
from hybrid.ops import find
from hybrid.spec import MLP, Attention, DtInit, ModelSpec
from tests.models import SPECS


@pytest.mark.parametrize("value", [[], {}, ["zero"], 3, None])
def test_a_word_of_a_few_is_refused_whatever_is_given(value: Any) -> None:
    with pytest.raises(ValueError, match=r"dt_init: .* must be one of"):
        codec.decode(DtInit, value, "dt_init")


def test_a_number_that_no_float_holds_is_refused() -> None:
    data = codec.encode(SPECS["hybrid"]) | {"norm_eps": 10**400}
    with pytest.raises(
        ValueError, match=r"ModelSpec\.norm_eps: a number of 1329 bits is too large"
    ):
        codec.decode(ModelSpec, data)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"ratio": ratio} for ratio in (5, None, (1,), (1, 3, 4), "13", (1.0, 3))),
        *({"attention_offset": offset} for offset in (0.5, 4, -1)),
        *({"moe_offset": offset} for offset in (0.5, "0", 2)),
        {"e": 0},
    ],
    ids=str,
)
def test_a_jamba_that_cannot_be_is_a_value_error(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"vocab": 32, "width": 16, "hidden": 8, "blocks": 1, "l": 4}
    right |= {"ratio": (1, 3), "attention": Attention(heads=2, kv_heads=2)}
    assert jamba(**right).layers[0].feed_forward == MLP(hidden=8)
    with pytest.raises(ValueError, match=f"jamba: {next(iter(wrong))}="):
        jamba(**right | wrong)


def test_triton_that_is_missing_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "hybrid.ops.triton", None)
    with pytest.raises(ImportError, match="pip install triton"):
        find("triton", torch.device("cuda"))
