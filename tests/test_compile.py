"""torch.compile around the passes of a model: the same numbers, whatever it joins together."""

import shutil

import pytest
import torch

from hybrid.model import build
from hybrid.ops import CPU
from sweeps.trial.engine import Compile
from tests.models import SPECS, VOCAB

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU"),
    # Warnings of the compiler's own, which come and go with torch's versions.
    pytest.mark.filterwarnings("ignore"),
]


def test_a_compiled_model_trains_as_it_did() -> None:
    ids_BT = torch.arange(24).reshape(2, 12) % VOCAB
    model = build(SPECS["hybrid"], ops=CPU)

    def loss_and_gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        nats, _ = model.loss(ids_BT, ids_BT)
        return nats.detach(), list(torch.autograd.grad(nats, list(model.parameters())))

    plain = loss_and_gradients()
    model.compile_passes(Compile.ON.mode)
    torch.testing.assert_close(loss_and_gradients(), plain, rtol=1e-5, atol=1e-7)
