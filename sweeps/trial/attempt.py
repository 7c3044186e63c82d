"""One attempt at a trial: build, train and measure, noting each column when it becomes known.

So a trial that ends early, for whatever reason, still has in `seen` all that was measured.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

import torch

from hybrid import cost
from hybrid import ops as backends
from hybrid.model import HybridLM, build
from hybrid.spec import ModelSpec
from sweeps.trial.checkpoint import Checkpointer, Checkpoints, Done
from sweeps.trial.data.batches import Batch, train_batch
from sweeps.trial.data.streams import Tokens, open_tokens
from sweeps.trial.device import PeakMemory, choose_device, choose_precision, itemsize
from sweeps.trial.engine import Compile, Engine
from sweeps.trial.events import Watch
from sweeps.trial.measure import HeldOut, held_out_loss, speeds, train_tokens_per_s
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.record import Outcome
from sweeps.trial.train import Step, adamw, train


@dataclass(kw_only=True)
class Attempt:
    """A trial while it runs; `name` says which, and all that decides its result."""

    name: str
    spec: ModelSpec
    recipe: Recipe
    engine: Engine
    watch: Watch
    keep: Callable[[HybridLM], None]
    checkpoints: Checkpoints | None
    cheap_first: bool
    seen: dict[str, Any] = field(default_factory=dict)  # columns of the record

    def go(self) -> None:
        """Do it all; `seen` then holds `outcome` too, complete or diverged."""
        recipe, device = self.recipe, choose_device(self.engine.device)
        precision = choose_precision(recipe.precision, device)
        tokens = open_tokens(recipe.source, self.spec.vocab)
        memory = PeakMemory(device)
        model = build(
            self.spec, ops=backends.find(self.engine.ops, device), seed=recipe.seed, device=device
        )
        if self.engine.compile is not Compile.OFF:
            model.compile_passes(self.engine.compile.mode)
        self.seen |= {
            "ops": model.ops.name,
            "compiled": str(self.engine.compile),
            "precision": str(precision),
            "tokenizer_sha256": tokens.tokenizer_sha256,
            "text_sha256": tokens.text_sha256,
            "baseline_bytes": memory.baseline_bytes,
            "train_bytes_estimate": self._estimate(precision, device),
        }
        if self.cheap_first:
            self._time(model, precision)
            memory.restart()
        curve: list[Step] = []
        try:
            self._train(curve, model, tokens, precision)
        finally:
            self.seen |= columns_of(curve) | {"train_peak_bytes": memory.peak_bytes()}
        if not math.isfinite(curve[-1].nats_per_token):
            where = f"the training loss of step {curve[-1].step} is {curve[-1].nats_per_token}"
            self.seen |= {"outcome": Outcome.DIVERGED, "error": where}
            return
        self.keep(model)
        model.zero_grad(set_to_none=True)
        losses = {d: held_out_loss(model, tokens, d, recipe, precision) for d in tokens.domains}
        if not self.cheap_first:
            self._time(model, precision)
        self.seen |= _held_out_columns(losses) | {"outcome": Outcome.COMPLETE, "error": None}

    def _estimate(self, precision: Precision, device: torch.device) -> int:
        return cost.training_bytes(
            self.spec,
            batch=self.recipe.batch,
            tokens=self.recipe.tokens,
            itemsize=itemsize(precision),
            device=device.type,
        ).total

    def _time(self, model: HybridLM, precision: Precision) -> None:
        """Measure speeds; before training they are an event, which may end the trial."""
        graphs = self.engine.compile is Compile.GRAPHS
        found = speeds(model, self.recipe.contexts, precision, graphs=graphs)
        self.seen |= asdict(found)
        if self.cheap_first:
            self.watch(found)

    def _train(
        self, curve: list[Step], model: HybridLM, tokens: Tokens, precision: Precision
    ) -> None:
        """Train until the last step or the first loss that is not finite; fill `curve`.

        The watcher sees the steps of earlier processes first, so that to it, too, a continued run
        is like any other.
        """

        def batch(step: int) -> Batch:
            recipe = self.recipe
            return train_batch(
                tokens, seed=recipe.seed, step=step, batch=recipe.batch, length=recipe.tokens
            )

        optimizer = adamw(model, self.recipe)
        checkpointer, done = None, Done()
        if self.checkpoints is not None:
            checkpointer = Checkpointer(self.checkpoints, self.name, model, optimizer)
            done = checkpointer.restore()
        self.seen["resumed_steps"] = list(done.resumed_steps)
        for step in done.curve:
            curve.append(step)
            self.watch(step)
        for step in train(model, optimizer, batch, self.recipe, precision, len(curve)):
            curve.append(step)
            if checkpointer is not None and math.isfinite(step.nats_per_token):
                checkpointer.after_step(curve)
            self.watch(step)
            if not math.isfinite(step.nats_per_token):
                break


def columns_of(curve: Sequence[Step]) -> dict[str, Any]:
    """Return the columns of a record that its curve decides; none without a step."""
    if not curve:
        return {}
    last_tenth = curve[-max(1, len(curve) // 10) :]
    return {
        "train_tokens": curve[-1].tokens,
        "train_nats_per_token": mean(step.nats_per_token for step in last_tenth),
        "train_tokens_per_s": train_tokens_per_s(curve),
    }


def _held_out_columns(losses: dict[str, HeldOut]) -> dict[str, Any]:
    loads = [loss.loads for loss in losses.values()]
    return {
        "valid_bits_per_byte": {domain: loss.bits_per_byte for domain, loss in losses.items()},
        "expert_load": _mean_loads(loads) or None,
    }


def _mean_loads(loads: list[tuple[tuple[float, ...], ...]]) -> list[list[float]]:
    """Return the mean over domains of each router's load."""
    return [
        [mean(expert) for expert in zip(*router, strict=True)]
        for router in zip(*loads, strict=True)
    ]
