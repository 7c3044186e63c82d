"""Language models on text: the sweep `text`, whose arms most findings on loss read.

A run follows the warm-up, constant, linear-decay schedule. Decay branches at 1/8, 1/4 and 1/2 of
its length give the loss "as if trained to there", so that a trend over tokens comes from one run.
All test text is read. Products are in fp32, which is equal on every CPU up to rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ablations.protocol.comparison import Comparison, Model
from ablations.protocol.designs.matched_models import (
    ATTENTION,
    MAMBA,
    MATCHED,
    SEVEN,
    THREE,
    Shape,
    model,
    with_experts,
)
from hybrid.spec import Mamba2
from sweeps.trial.data.sources import PackagedCorpus
from sweeps.trial.recipe import WSD, Precision, Recipe

FIRST, LAST, SEVEN_ROPE = f"{SEVEN} first", f"{SEVEN} last", f"{SEVEN} RoPE"
ATTENTION_NONE = f"{ATTENTION} no positions"
EXPERTS, UNBALANCED = f"{SEVEN} experts", f"{SEVEN} experts, no balance"
MAMBA2, SEVEN_MAMBA2 = f"{MAMBA} Mamba-2", f"{SEVEN} Mamba-2"
BRANCHES = (8, 4, 2)  # a branch ends at one of so many parts of the run
ONE_CONTEXT = (512,)  # speed is the business of the cost sweep


@dataclass(frozen=True, kw_only=True)
class TextScale:
    """The shape of the models, and how long each is trained."""

    shape: Shape
    steps: int
    batch: int
    seq_len: int
    warmup_steps: int
    branches: tuple[int, ...] = BRANCHES
    valid_tokens: int
    test_tokens: int | None  # None: all of the test split
    contexts: tuple[int, ...] = ONE_CONTEXT

    @property
    def tokens(self) -> int:
        """Return the tokens that a run is trained on."""
        return self.steps * self.batch * self.seq_len


SMOKE = TextScale(
    shape=Shape(vocab=512, width=32, hidden=64, blocks=1, heads=2, kv_heads=2, n_experts=4),
    steps=16,
    batch=2,
    seq_len=64,
    warmup_steps=1,
    branches=(2,),
    valid_tokens=256,
    test_tokens=256,
    contexts=(64,),
)
# 0.76 M parameters, 4.2 M tokens: 8 minutes of one core (docs/log.md has the pilot).
SMALL = TextScale(
    shape=Shape(vocab=2048, width=64, hidden=168, blocks=1, heads=4, kv_heads=2),
    steps=1024,
    batch=8,
    seq_len=512,
    warmup_steps=50,
    valid_tokens=65_536,
    test_tokens=None,
)
# 100 M parameters at 20 tokens a parameter, on one GPU.
LARGE = TextScale(
    shape=Shape(vocab=8192, width=640, hidden=1536, blocks=2, heads=10, kv_heads=5, n_experts=16),
    steps=7630,
    batch=128,
    seq_len=2048,
    warmup_steps=400,
    valid_tokens=1_048_576,
    test_tokens=None,
    contexts=(2048,),
)
# Size and tokens are those of Table 4. Sequence length and batch are not stated, and are ours.
PAPER = TextScale(
    shape=Shape(
        vocab=65_536, width=2048, hidden=3072, blocks=3, heads=16, kv_heads=8, n_experts=16
    ),
    steps=59_605,
    batch=1024,
    seq_len=4096,
    warmup_steps=2000,
    valid_tokens=4_194_304,
    test_tokens=None,
    contexts=(4096,),
)
SCALES = {"smoke": SMOKE, "small": SMALL, "large": LARGE, "paper": PAPER}

ARMS: dict[str, Model] = {
    SEVEN: model(SEVEN),
    MAMBA: model(MAMBA),
    ATTENTION: model(ATTENTION, rope=True),
    THREE: model(THREE),
    FIRST: model(SEVEN, attention_offset=0, rope=True),
    LAST: model(SEVEN, attention_offset=7),
    SEVEN_ROPE: model(SEVEN, rope=True),
    ATTENTION_NONE: model(ATTENTION),
    EXPERTS: lambda scale: with_experts(scale.shape),
    UNBALANCED: lambda scale: with_experts(scale.shape),
    MAMBA2: model(MAMBA, mamba=Mamba2()),
    SEVEN_MAMBA2: model(SEVEN, mamba=Mamba2()),
}
# Attention takes lower rates than Mamba at every size that was tried (docs/log.md).
ATTENTION_RATES, MAMBA_RATES = (1e-3, 2e-3, 4e-3), (2e-3, 4e-3, 8e-3)


def recipe(scale: TextScale, arm: str, rate: float, seed: int) -> Recipe:
    """Return how one run of `arm` is trained and measured."""
    balance = 0.0 if arm == UNBALANCED else Recipe(steps=1, batch=1, tokens=1, lr=1.0).balance
    return Recipe(
        source=PackagedCorpus(),
        steps=scale.steps,
        batch=scale.batch,
        tokens=scale.seq_len,
        lr=rate,
        schedule=WSD(
            warmup_steps=scale.warmup_steps,
            branches=tuple(scale.steps // part for part in scale.branches),
        ),
        balance=balance,
        precision=Precision.FP32,
        seed=seed,
        valid_tokens=scale.valid_tokens,
        contexts=scale.contexts,
        measure_test=True,
        test_tokens=scale.test_tokens,
        measure_context=True,
    )


def base_rates(arms: Mapping[str, Model]) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return the rates that every arm is tried at, by scale."""
    small: dict[str, tuple[float, ...]] = {
        arm: ATTENTION_RATES if arm.startswith(ATTENTION) else MAMBA_RATES for arm in arms
    }
    large = {arm: tuple(rate / 8 for rate in rates) for arm, rates in small.items()}
    smoke: tuple[float, ...] = (2e-3, 4e-3, 8e-3)
    paper: tuple[float, ...] = (1e-4, 2e-4, 4e-4)
    return {
        "smoke": dict.fromkeys(arms, smoke),
        "small": small,
        "large": large,
        "paper": dict.fromkeys(arms, paper),
    }


TEXT = Comparison(
    name="text",
    question="What do mixers, their ratio, order and positions do to the loss on text?",
    arms=ARMS,
    scales=SCALES,
    recipe=recipe,
    base_rates=base_rates(ARMS),
    matched=MATCHED,
)

# The same models for longer, and a smaller and a larger one: where do the lines cross?
CROSSING_ARMS = {arm: ARMS[arm] for arm in (SEVEN, MAMBA, ATTENTION)}
T16 = replace(SMALL, steps=4 * SMALL.steps, branches=(16, 8, 4, 2))
S16 = replace(T16, shape=replace(SMALL.shape, width=32, hidden=80, heads=2, kv_heads=2), steps=1465)
L8 = replace(
    T16, shape=replace(SMALL.shape, width=128, hidden=336, heads=8, kv_heads=4), steps=4297
)
LADDER = {"crossing-s16": S16, "crossing-t16": T16, "crossing-l8": L8}


def _crossing(name: str, small: TextScale) -> Comparison:
    return Comparison(
        name=name,
        question="How does the gap between hybrid and pure models change with tokens?",
        arms=CROSSING_ARMS,
        scales={"smoke": SMOKE, "small": small, "paper": PAPER},
        recipe=recipe,
        base_rates={
            scale: rates for scale, rates in base_rates(CROSSING_ARMS).items() if scale != "large"
        },
        matched=MATCHED,
    )


CROSSING = {name: _crossing(name, scale) for name, scale in LADDER.items()}
