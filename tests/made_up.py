"""Made-up records of a finding's design: every run, paired seeds, a little noise, no effect."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ablations import rows
from ablations.finding import Finding
from hybrid import codec, cost
from hybrid.cost import Weights
from hybrid.spec import Attention
from sweeps.sweep import Point, Sweep
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.synthetic import few_shot
from sweeps.trial.data.tasks import FewShot, Probe
from sweeps.trial.inside import INSIDE, OUTPUT

DOMAINS = ("books", "web", "code")
NOISE = 0.002  # as a fraction
EXPERTS = [[0.5, 0.6, 0.4, 0.5]]


def trials(finding: Finding, scale: str, holds: bool | None = None) -> pd.DataFrame:
    """Return complete records of all runs; `holds` None leaves the arms equal."""
    rng = np.random.default_rng(0)
    tuning = _table(finding.tunings(scale).values(), scale, rng)
    chosen = [c.chosen(scale, tuning) for c in finding.comparisons]
    compared = [
        comparison.with_rates(scale, {arm: choice.rate for arm, choice in choices.items()})
        for comparison, choices in zip(finding.comparisons, chosen, strict=True)
    ]
    table = _table(compared, scale, rng)
    if holds is not None:
        table = finding.imagine(table, holds)
    return pd.concat([tuning, table], ignore_index=True)


def _table(sweeps, scale: str, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame([row for sweep in sweeps for row in _rows(sweep, scale, rng)])


def _rows(sweep: Sweep, scale: str, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    shared: dict[int, float] = {}  # what a seed does to every arm

    for point in sweep.points(scale, None):
        luck = shared.setdefault(point.seed, rng.normal(0, 0.05))

        def around(value: float, luck: float = luck) -> float:
            return value * (1 + luck) * (1 + NOISE * rng.normal())

        yield _row(sweep, scale, point) | _measured(point, around)


def _row(sweep: Sweep, scale: str, point: Point) -> dict[str, Any]:
    recipe = point.recipe
    return {
        "run_id": f"{sweep.name}-{scale}-{point.arm}-s{point.seed}",
        "sweep": sweep.name,
        "scale": scale,
        "arm": point.arm,
        "seed": point.seed,
        "outcome": "complete",
        "spec": codec.dumps(point.spec),
        "recipe": codec.dumps(recipe),
        "params": cost.params(point.spec),
        "active_params": cost.active_params(point.spec),
        "machine": "made up",
        "text_sha256": None if isinstance(recipe.source, Synthetic) else "0" * 64,
        "precision": "bf16",
        "train_tokens": recipe.steps * recipe.batch * recipe.tokens,
        "expert_load": EXPERTS,
        "baseline_bytes": 10**8,
    }


def _measured(point: Point, around) -> dict[str, Any]:
    from_best = abs(np.log(point.recipe.lr / 3e-3))  # the rate that suits every arm
    loss = {domain: around(2.5 + 0.1 * from_best) for domain in DOMAINS}
    contexts = point.recipe.contexts
    source = point.recipe.source
    if isinstance(source, Synthetic):
        names = [name for probe in source.probes for name in _scores(probe)]
        share = {name: around(0.6 - 0.05 * from_best) for name in names}
        quality = {rows.VALID_TASKS: share, rows.TEST_TASKS: share}
    else:
        quality = {rows.VALID: loss, rows.TEST: loss}
    return {
        **{f"{name}.{key}": x for name, found in quality.items() for key, x in found.items()},
        **_heads(point, around),
        **{f"{rows.LENGTH}.{n}": around(2.5) for n in point.recipe.lengths},
        **{f"{rows.INSIDE}.{name}": around(10.0) for name in (*INSIDE, OUTPUT)},
        "grad_norm_max": around(1.0),
        "train_tokens_per_s": around(1e4),
        "train_peak_bytes": 10**8 + around(10**9),
        **{f"cache_bytes.{c}": around(1e6 * c) for c in contexts},
        **{f"prefill_tokens_per_s.{c}": around(1e4) for c in contexts},
        **{f"decode_ms.{c}": around(1.0) for c in contexts},
        **(_int8(point, around) if point.recipe.measure_int8 else {}),
    }


def _int8(point: Point, around) -> dict[str, Any]:
    counted = cost.expert_bytes(point.spec, Weights.INT8) + cost.expert_scale_bytes(point.spec)
    return {
        **{f"int8_bits_per_byte.{domain}": around(2.5) for domain in DOMAINS},
        **{f"int8_decode_ms.{c}": around(1.0) for c in point.recipe.contexts},
        "expert_bytes": cost.expert_bytes(point.spec, Weights.FP32),
        "int8_expert_bytes": counted,
    }


def _scores(probe: Probe) -> list[str]:
    """Return the keys that a record has of a probe."""
    if isinstance(probe.task, FewShot):
        return [f"{probe.name} {score}" for score in few_shot.SCORES]
    return [probe.name]


def _heads(point: Point, around) -> dict[str, float]:
    if not point.recipe.measure_heads:
        return {}
    names = [
        f"layer {i} head {place}"
        for i, layer in enumerate(point.spec.layers)
        if isinstance(layer.mixer, Attention)
        for place in range(layer.mixer.heads)
    ]
    return {
        **{f"head_prefix_matching.{name}": around(0.1) for name in names},
        **{f"head_copying.{name}": around(0.5) for name in names},
        **{f"heads_removed_accuracy.{name}": around(0.6) for name in ("none", "top", "random")},
    }
