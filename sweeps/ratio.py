"""Attention:Mamba ratio against loss, speed and memory, at equal total parameters.

Jamba (arXiv 2403.19887), section 6.1 and Table 4, finds a hybrid better than either pure model and
1:3 as good as 1:7. Here every arm has the same depth, width, data and number of parameters: one
Mamba mixer is larger than one attention mixer, so the width of the MLPs makes up the difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from hybrid import cost
from hybrid.fit import fit
from hybrid.jamba import jamba, parse_ratio
from hybrid.spec import Attention, ModelSpec, look_up
from sweeps.show import figures
from sweeps.sweep import Sweep
from sweeps.trial.recipe import Recipe

ARMS = ("1:0", "1:1", "1:3", "1:7", "0:1")
MATCHED_TO = "1:7"  # the arm whose MLPs have the scale's own `hidden`


MATCHED = f"total parameters, within 1% of {MATCHED_TO}, by the width of the MLPs"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of the sweep: the shape all arms share, and how long each is trained."""

    vocab: int
    width: int
    hidden: int  # of the arm MATCHED_TO
    blocks: int
    l: int = 8  # noqa: E741 - the paper's letter: layers of a block
    heads: int
    kv_heads: int
    steps: int
    batch: int
    tokens: int
    lr: Mapping[str, float] = field(hash=False)  # of each arm, tuned by sweeps/ratio_lr.py
    valid_tokens: int
    contexts: tuple[int, ...]


# The scales whose rates are not tuned: good for trying things, not for comparing arms.
UNTUNED = dict.fromkeys(ARMS, 3e-3)

SCALES = {
    "smoke": Scale(
        vocab=512,
        width=32,
        hidden=64,
        blocks=1,
        heads=4,
        kv_heads=2,
        steps=6,
        batch=4,
        tokens=64,
        lr=UNTUNED,
        valid_tokens=1024,
        contexts=(64, 128),
    ),
    "cpu": Scale(
        vocab=2048,
        width=96,
        hidden=256,
        blocks=1,
        heads=4,
        kv_heads=2,
        steps=200,
        batch=4,
        tokens=256,
        lr={"1:0": 4e-3, "1:1": 4e-3, "1:3": 4e-3, "1:7": 4e-3, "0:1": 2e-3},
        valid_tokens=16_384,
        contexts=(256, 1024, 4096),
    ),
    "gpu": Scale(
        vocab=8192,
        width=512,
        hidden=1280,
        blocks=3,
        heads=8,
        kv_heads=4,
        steps=3000,
        batch=32,
        tokens=1024,
        lr=UNTUNED,
        valid_tokens=131_072,
        contexts=(1024, 8192, 32_768, 131_072),
    ),
}


def spec_of(ratio: tuple[int, int], hidden: int, scale: Scale) -> ModelSpec:
    return jamba(
        vocab=scale.vocab,
        width=scale.width,
        hidden=hidden,
        blocks=scale.blocks,
        l=scale.l,
        ratio=ratio,
        attention=Attention(heads=scale.heads, kv_heads=scale.kv_heads),
    )


@cache  # seeds share it
def matched_spec(arm: str, scale: Scale) -> ModelSpec:
    """Return the arm's model, as large as that of MATCHED_TO within 1% of total parameters."""
    target = cost.params(spec_of(parse_ratio(MATCHED_TO), scale.hidden, scale))
    return fit(lambda hidden: spec_of(parse_ratio(arm), hidden, scale), cost.params, target)


def point(arm: str, seed: int, scale: Scale) -> tuple[ModelSpec, Recipe]:
    recipe = Recipe(
        steps=scale.steps,
        batch=scale.batch,
        tokens=scale.tokens,
        lr=look_up("arm of the sweep ratio", scale.lr, arm),
        seed=seed,
        valid_tokens=scale.valid_tokens,
        contexts=scale.contexts,
    )
    return matched_spec(arm, scale), recipe


SWEEP = Sweep(
    name="ratio",
    question="What does the attention:Mamba ratio do to loss, speed and memory?",
    arms=ARMS,
    seeds={"smoke": (0, 1), "cpu": (0, 1, 2), "gpu": (0, 1, 2, 3, 4)},
    scales=SCALES,
    point=point,
    matched=MATCHED,
    figure=figures.ratio,
)
