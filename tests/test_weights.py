"""Kept weights come back equal, and a file that does not fit is refused by name."""

from dataclasses import replace

import pytest
import torch

from hybrid.int8 import with_int8_experts
from hybrid.model import build
from sweeps.trial import weights
from tests.models import SPECS


@pytest.mark.parametrize("name", ["hybrid", "hybrid-tied"])
def test_saved_and_loaded_is_equal(name, tmp_path):
    model = build(SPECS[name], seed=3)
    weights.save(model, tmp_path / "w.safetensors")
    again = weights.load(SPECS[name], tmp_path / "w.safetensors")
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match=r"kept no weights\. Run its sweep with --keep-w"):
        weights.load(SPECS["hybrid"], path)
    weights.save(build(SPECS["hybrid"]), path)
    with pytest.raises(ValueError, match=r"fit its spec: head\.weight is on one side only"):
        weights.load(SPECS["hybrid-tied"], path)
    with pytest.raises(ValueError, match=r"embed.weight has shape \(32, 16\), .* wants \(40, 16\)"):
        weights.load(replace(SPECS["hybrid"], vocab=40), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        weights.load(SPECS["hybrid"], path)


def test_a_model_with_experts_in_8_bits_is_refused_before_anything_is_written(tmp_path):
    model = with_int8_experts(build(SPECS["hybrid"]))
    with pytest.raises(ValueError, match=r"whole_XFD and 7 more tensors are no parameters"):
        weights.save(model, tmp_path / "new" / "w.safetensors")
    assert list(tmp_path.iterdir()) == []
