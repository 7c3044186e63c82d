"""One trial from start to finish: the one place that joins data, model, training and record.

record = run(spec, Recipe(steps=100, batch=8, tokens=256, lr=3e-3))
"""

import hashlib
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from statistics import mean
from typing import Any

import torch

from hybrid import codec, cost
from hybrid import ops as backends
from hybrid.model import HybridLM, build
from hybrid.spec import ModelSpec
from sweeps.trial import provenance
from sweeps.trial.data.batches import train_batch
from sweeps.trial.data.streams import Tokens, open_tokens
from sweeps.trial.device import (
    PeakMemory,
    choose_device,
    choose_precision,
    is_out_of_memory,
    itemsize,
    machine_name,
)
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.measure import held_out_loss, speed, train_tokens_per_s
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Label, Outcome, Record
from sweeps.trial.train import Step, train

Watch = Callable[[Step], None]
SINGLE = Label()
ANY = Engine()
ERROR_LINES = 12


def run(
    spec: ModelSpec,
    recipe: Recipe,
    *,
    label: Label = SINGLE,
    engine: Engine = ANY,
    watch: Watch = lambda step: None,
    keep: Callable[[HybridLM], None] = lambda model: None,
) -> Record:
    """Train and measure one model, and return what was seen; `watch` is called with every Step.

    `keep` is called with the trained model, before it is measured.

    Whatever goes wrong inside is the record's outcome; only an engine that is not here and
    what the caller raises on purpose (KeyboardInterrupt) come out as exceptions. Nothing is
    written: that is `record.write`.
    """
    start = time.perf_counter()
    record = not_run(spec, recipe, label=label, engine=engine)
    try:
        seen = _train_and_measure(spec, recipe, engine, watch, keep)
    except Exception as error:  # a failure is an outcome, whatever its class
        seen = {"outcome": _outcome_of(error), "error": _last_lines(error)}
    return replace(record, **seen, wall_s=time.perf_counter() - start)


def not_run(
    spec: ModelSpec,
    recipe: Recipe,
    *,
    label: Label = SINGLE,
    engine: Engine = ANY,
) -> Record:
    """Return what is known of a trial before it runs, as a record with the outcome `failed`."""
    chosen = choose_device(engine.device)
    commit, dirty = provenance.git_commit()
    return Record(
        run_id=run_id(spec, recipe, label=label, engine=engine),
        attempt=label.attempt,
        sweep=label.sweep,
        scale=label.scale,
        arm=label.arm,
        matched=label.matched,
        seed=recipe.seed,
        outcome=Outcome.FAILED,
        error="not run",
        ratio=spec.ratio,
        spec=codec.dumps(spec),
        recipe=codec.dumps(recipe),
        params=cost.params(spec),
        active_params=cost.active_params(spec),
        started_utc=provenance.now_utc(),
        wall_s=0.0,
        git_commit=commit,
        git_dirty=dirty,
        versions=provenance.versions(),
        device=chosen.type,
        machine=machine_name(chosen),
        threads=torch.get_num_threads(),
    )


def run_id(spec: ModelSpec, recipe: Recipe, *, label: Label, engine: Engine) -> str:
    """Return the name of a trial: equal for equal trials, whenever and wherever they are asked for.

    What decides the result is hashed: spec, recipe, and the engine as it was chosen.
    """
    chosen = choose_device(engine.device)
    name = backends.find(engine.ops, chosen).name
    compiled = () if engine.compile is Compile.OFF else (str(engine.compile),)
    parts = (codec.dumps(spec), codec.dumps(recipe), chosen.type, name, *compiled)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    arm = label.arm.replace(":", "to")
    return f"{label.sweep}-{label.scale}-{arm}-s{recipe.seed}-{digest}"


def _train_and_measure(
    spec: ModelSpec,
    recipe: Recipe,
    engine: Engine,
    watch: Watch,
    keep: Callable[[HybridLM], None],
) -> dict[str, Any]:
    """Return the columns of a record that need the model to run."""
    device = choose_device(engine.device)
    precision = choose_precision(recipe.precision, device)
    tokens = open_tokens(recipe.source, spec.vocab)
    memory = PeakMemory(device)
    model = build(spec, ops=backends.find(engine.ops, device), seed=recipe.seed, device=device)
    if engine.compile is not Compile.OFF:
        model.compile_passes(engine.compile.mode)
    curve = _train(model, tokens, recipe, precision, watch)
    estimate = cost.training_bytes(
        spec,
        batch=recipe.batch,
        tokens=recipe.tokens,
        itemsize=itemsize(precision),
        device=device.type,
    )
    last_tenth = curve[-max(1, len(curve) // 10) :]
    seen = {
        "ops": model.ops.name,
        "compiled": str(engine.compile),
        "precision": str(precision),
        "tokenizer_sha256": tokens.tokenizer_sha256,
        "text_sha256": tokens.text_sha256,
        "train_tokens": curve[-1].tokens,
        "train_nats_per_token": mean(step.nats_per_token for step in last_tenth),
        "train_tokens_per_s": train_tokens_per_s(curve),
        "baseline_bytes": memory.baseline_bytes,
        "train_peak_bytes": memory.peak_bytes(),
        "train_bytes_estimate": estimate.total,
    }
    if not math.isfinite(curve[-1].nats_per_token):
        where = f"the training loss of step {curve[-1].step} is {curve[-1].nats_per_token}"
        return {**seen, "outcome": Outcome.DIVERGED, "error": where}
    keep(model)
    return {
        **seen,
        **_measure(model, tokens, recipe, precision, engine.compile is Compile.GRAPHS),
        "outcome": Outcome.COMPLETE,
        "error": None,
    }


def _train(
    model: HybridLM, tokens: Tokens, recipe: Recipe, precision: Precision, watch: Watch
) -> list[Step]:
    """Train until the last step or the first loss that is not finite; return all steps."""

    def batch(step: int):
        return train_batch(
            tokens, seed=recipe.seed, step=step, batch=recipe.batch, length=recipe.tokens
        )

    curve = []
    for step in train(model, batch, recipe, precision):
        curve.append(step)
        watch(step)
        if not math.isfinite(step.nats_per_token):
            break
    return curve


def _measure(
    model: HybridLM, tokens: Tokens, recipe: Recipe, precision: Precision, graphs: bool
) -> dict[str, Any]:
    model.zero_grad(set_to_none=True)
    losses = {
        domain: held_out_loss(model, tokens, domain, recipe, precision) for domain in tokens.domains
    }
    speeds = {
        context: speed(model, context, precision, graphs=graphs) for context in recipe.contexts
    }
    loads = [loss.loads for loss in losses.values()]
    return {
        "valid_bits_per_byte": {domain: loss.bits_per_byte for domain, loss in losses.items()},
        "expert_load": _mean_loads(loads) or None,
        "prefill_tokens_per_s": {c: s.prefill_tokens_per_s for c, s in speeds.items()},
        "decode_ms": {c: s.decode_ms for c, s in speeds.items()},
        "cache_bytes": {c: s.cache_bytes for c, s in speeds.items()},
    }


def _mean_loads(loads: list[tuple[tuple[float, ...], ...]]) -> list[list[float]]:
    """Return the mean over domains of each router's load."""
    return [
        [mean(expert) for expert in zip(*router, strict=True)]
        for router in zip(*loads, strict=True)
    ]


def _outcome_of(error: Exception) -> Outcome:
    return Outcome.OUT_OF_MEMORY if is_out_of_memory(error) else Outcome.FAILED


def _last_lines(error: Exception) -> str:
    return "".join(traceback.format_exception(error)[-ERROR_LINES:])
