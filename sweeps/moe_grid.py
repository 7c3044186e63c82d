"""What a mixture of experts costs by the clock, over a grid of (n, K, e), to hold formulas against.

Only cost is asked for: training is long enough for a clock and no longer, one seed.
"""

from itertools import product

from hybrid.jamba import jamba
from hybrid.spec import Attention, ModelSpec, MoE, look_up
from sweeps import ratio
from sweeps.show import figures
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

EXPERTS, CHOSEN, EVERY = (2, 4, 8, 16), (1, 2), (1, 2, 4)
SETTINGS = {f"n{n} K{k} e{e}": (n, k, e) for n, k, e in product(EXPERTS, CHOSEN, EVERY)}
STEPS = {"smoke": 2, "cpu": 24, "gpu": 100}


def spec_of(n: int, top_k: int, e: int, size: ratio.Scale) -> ModelSpec:
    """Return the 1:7 model of that size with `n` experts in every `e`-th layer."""
    return jamba(
        vocab=size.vocab,
        width=size.width,
        hidden=size.hidden,
        blocks=size.blocks,
        l=8,
        ratio=(1, 7),
        attention=Attention(heads=size.heads, kv_heads=size.kv_heads),
        moe=MoE(hidden=size.hidden, n_experts=n, top_k=top_k),
        e=e,
        moe_offset=e - 1,
    )


def point(name: str, seed: int, scale: str) -> tuple[ModelSpec, Recipe]:
    size = look_up("scale of the sweep moe-grid", ratio.SCALES, scale)
    recipe = Recipe(
        steps=STEPS[scale],
        batch=size.batch,
        tokens=size.tokens,
        lr=3e-3,
        seed=seed,
        valid_tokens=size.tokens * size.batch,
        contexts=(1024,),
    )
    return spec_of(*look_up("arm of the sweep moe-grid", SETTINGS, name), size), recipe


SWEEP = Sweep(
    name="moe-grid",
    question="What do (n, K, e) cost in time and memory?",
    arms=tuple(SETTINGS),
    seeds=dict.fromkeys(STEPS, (0,)),
    scales={scale: scale for scale in STEPS},
    point=point,
    matched=None,  # the settings differ in size on purpose
    figure=figures.moe_grid,
)
