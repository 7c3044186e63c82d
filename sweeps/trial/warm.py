"""One tiny trial that is not recorded, for what a first trial would compile and load."""

import torch

from hybrid import ops as backends
from hybrid.model import build
from hybrid.spec import MLP, Attention, Layer, Mamba, ModelSpec, MoE
from sweeps.trial.data.batches import Batch
from sweeps.trial.device import choose_device, choose_precision
from sweeps.trial.engine import Engine
from sweeps.trial.measure import speeds
from sweeps.trial.optimizers import build_optimizer
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.train import train

SPEC = ModelSpec(
    vocab=8,
    width=16,
    layers=(
        Layer(mixer=Mamba(), feed_forward=MLP(hidden=32)),
        Layer(
            mixer=Attention(heads=1, kv_heads=1),
            feed_forward=MoE(hidden=32, n_experts=2, top_k=1),
        ),
    ),
)
RECIPE = Recipe(steps=1, batch=2, tokens=32, lr=1e-3, contexts=(32,))


def touch(engine: Engine) -> None:
    """Train, read and decode a little with each of the usual layers, in the usual precision."""
    device = choose_device(engine.device)
    precision = choose_precision(Precision.AUTO, device)
    model = build(SPEC, ops=backends.find(engine.ops, device), device=device)

    def batch(step: int) -> Batch:
        ids_BT = torch.zeros(RECIPE.batch, RECIPE.tokens, dtype=torch.long)
        return ids_BT, ids_BT

    list(train(model, build_optimizer(model, RECIPE), batch, RECIPE, precision))
    speeds(model, RECIPE.contexts, precision, graphs=False)
