"""Which hybrids are worth having: loss against decoding speed and cache, over the whole family.

What Jamba's authors chose by hand (ratio, block, experts; arXiv 2403.19887, sections 3 and 6), here
chosen by a sampler under equal active parameters: the width of the MLPs and experts makes up for
what the mixers cost. A point that is no better than another in any objective is of no use to
anyone; what is left is the set to choose from.
"""

from optuna.trial import BaseTrial

from hybrid import cost
from hybrid.fit import fit
from hybrid.jamba import jamba, parse_ratio
from hybrid.spec import Attention, Mamba, ModelSpec, MoE, Rope
from sweeps import ratio
from sweeps.plans.objectives import (
    bits_per_byte,
    cache_bytes,
    decode_tokens_per_s,
    expert_budget,
    memory_budget,
)
from sweeps.plans.search import Search
from sweeps.trial.recipe import Precision, Recipe

N_TRIALS = {"smoke": 6, "cpu": 24, "gpu": 200}
MEMORY = {"smoke": "64MiB", "cpu": "192MiB", "gpu": "80GB"}  # of training, by arithmetic
EXPERT_BUDGET = 16  # n * K, the paper's form of a bound on experts
WIDTHS = (0.75, 1.0, 1.25)  # of the ratio sweep's; heads stay as many
RUNGS = (0.25, 0.5)
# What a finished trial may be worse by and still rule another out before it was trained.
SLACK = {"bits_per_byte": 0.02}
MARGIN = 0.1  # nats per token at a rung


def suggest(trial: BaseTrial, scale: str) -> tuple[ModelSpec, Recipe]:
    size = ratio.SCALES[scale]
    width = int(size.width * trial.suggest_categorical("width", WIDTHS))
    shape = trial.suggest_categorical("ratio", ["1:0", "1:1", "1:3", "1:7", "0:1"])
    a, m = parse_ratio(shape)
    # Where attention stands among the layers of a block, from first (0) to last (1).
    place = trial.suggest_float("attention_place", 0, 1) if a and m else 0.0
    n_experts = trial.suggest_categorical("n_experts", [0, 4, 8, 16])
    top_k = trial.suggest_int("top_k", 1, 2) if n_experts else 0
    every = trial.suggest_categorical("moe_every", [1, 2]) if n_experts else 1
    rope = trial.suggest_categorical("positions", ["none", "rope"]) if a else "none"
    mamba = Mamba()
    if m:
        mamba = Mamba(
            d_state=trial.suggest_categorical("d_state", [8, 16, 32]),
            inner_norm=trial.suggest_categorical("inner_norm", [True, False]),
        )

    def family(hidden: int) -> ModelSpec:
        return jamba(
            vocab=size.vocab,
            width=width,
            hidden=hidden,
            blocks=size.blocks,
            l=8,
            ratio=(a, m),
            attention=Attention(
                heads=size.heads,
                kv_heads=size.kv_heads,
                positions=Rope() if rope == "rope" else None,
            ),
            mamba=mamba,
            attention_offset=min(int(place * (a + m)), a + m - 1),
            moe=MoE(hidden=hidden, n_experts=n_experts, top_k=top_k) if n_experts else None,
            e=every,
            moe_offset=every - 1,
        )

    target = cost.active_params(ratio.matched_spec(ratio.MATCHED_TO, size))
    recipe = Recipe(
        steps=size.steps,
        batch=size.batch,
        tokens=size.tokens,
        lr=trial.suggest_float("lr", 1e-3, 1e-2, log=True),
        valid_tokens=size.valid_tokens,
        contexts=size.contexts[-1:],
    )
    return fit(family, cost.active_params, target, tolerance=0.02), recipe


SWEEP = Search(
    name="tradeoff",
    question="Which ratios, experts and positions give low loss at fast decoding?",
    scales={scale: scale for scale in N_TRIALS},
    n_trials=N_TRIALS,
    suggest=suggest,
    matched="active parameters, within 2% of the ratio sweep's, by the width of the MLPs",
    objectives=(bits_per_byte(), decode_tokens_per_s(), cache_bytes()),
    constraints=lambda scale: (
        memory_budget(MEMORY[scale], precision=Precision.BF16),
        expert_budget(EXPERT_BUDGET),
    ),
    rungs=RUNGS,
    slack=SLACK,
    margin=MARGIN,
)
