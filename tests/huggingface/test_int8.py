"""A model with experts in 8 bits is no model of transformers', and is not written by halves."""

import pytest

from hybrid import huggingface
from hybrid.int8 import with_int8_experts
from hybrid.jamba import jamba
from hybrid.model import build
from hybrid.spec import Attention, MoE


def test_experts_in_8_bits_are_refused_by_name_and_nothing_is_left(tmp_path):
    spec = jamba(
        vocab=32,
        width=16,
        hidden=16,
        blocks=1,
        l=2,
        ratio=(1, 1),
        attention=Attention(heads=4, kv_heads=2),
        moe=MoE(hidden=16, n_experts=2, top_k=1),
    )
    model = build(spec)
    with pytest.raises(ValueError, match=r"layers\[1\]\.feed_forward: a Int8MoE must be one of"):
        huggingface.save(with_int8_experts(model), tmp_path / "new" / "model")
    assert list(tmp_path.iterdir()) == []
    huggingface.save(model, tmp_path / "model")
    assert (tmp_path / "model" / "config.json").is_file()


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON"])
def test_a_tokenizer_without_tokens_is_a_value_error(text):
    tokenizer = huggingface.Tokenizer(json_text=text, separator="x")
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words, or ours
        _ = tokenizer.separator_id
