"""transformers' own Jamba; whoever imports this is skipped where transformers is not."""

from pathlib import Path

import pytest
import torch

from hybrid import huggingface
from hybrid.spec import ModelSpec
from tests.huggingface.jambas import disturb

transformers = pytest.importorskip("transformers", reason="pip install 'hybrid-workbench[hf]'")


def theirs_of(spec: ModelSpec):
    """Their model with random weights, the same whatever was drawn before."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = transformers.JambaForCausalLM(
            transformers.JambaConfig(**huggingface.config_of(spec))
        ).eval()
    disturb(model)
    return model


def opened(folder: Path):
    """The model that transformers finds in the folder; no tensor may be missing or left over."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()
