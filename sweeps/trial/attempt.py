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
from hybrid.int8 import expert_bytes, with_int8_experts
from hybrid.model import HybridLM
from hybrid.spec import ModelSpec, require
from sweeps.trial.checkpoint import Checkpointer, Checkpoints, Done
from sweeps.trial.criterion import evaluator, tokens_to_accuracy
from sweeps.trial.data.batches import Batch
from sweeps.trial.device import PeakMemory, choose_device, choose_precision, itemsize
from sweeps.trial.engine import Compile, Engine, Parallel
from sweeps.trial.events import Event, Stop, Tell, Watch
from sweeps.trial.material import Material, open_material
from sweeps.trial.measure import Speeds, speeds, train_tokens_per_s
from sweeps.trial.optimizers import build_optimizer
from sweeps.trial.parallel import Team
from sweeps.trial.recipe import OptimizerName, Precision, Recipe
from sweeps.trial.record import Outcome
from sweeps.trial.train import Step
from sweeps.trial.trunk import BranchEnd, Trunk

# What is known of a branch: its run's recipe, its columns, its curve, and the model at its end.
KeepBranch = Callable[[Recipe, dict[str, Any], Sequence[Step], HybridLM], None]
# Columns that every branch has in common with its trunk.
SHARED = ("ops", "compiled", "parallel", "world_size", "precision", "resumed_steps")
# What packages and machines may change under one name of a trial. A checkpoint must not mix these.
IDENTITY = ("precision", "tokenizer_sha256", "text_sha256")


@dataclass(kw_only=True)
class Attempt:
    """A trial while it runs; `name` says which, and all that decides its result."""

    name: str
    spec: ModelSpec
    recipe: Recipe
    engine: Engine
    watch: Watch
    tell: Tell
    keep: Callable[[HybridLM], None]
    keep_branch: KeepBranch
    checkpoints: Checkpoints | None
    cheap_first: bool
    team: Team
    seen: dict[str, Any] = field(default_factory=dict)  # columns of the record
    peak_bytes: int = 0  # before the last measurement of a branch

    def go(self) -> None:
        """Do it all; `seen` then holds `outcome` too, complete or diverged."""
        self._require_possible()
        recipe, device = self.recipe, choose_device(self.engine.device)
        precision = choose_precision(recipe.precision, device)
        self._tell("opening the data")
        material = open_material(recipe.source, vocab=self.spec.vocab, tokens=recipe.tokens)
        known = material.known(recipe)
        memory = PeakMemory(device)
        ops = backends.find(self.engine.ops, device)
        self._tell("building the model")
        model = self.team.build(self.spec, ops, recipe.seed, device)
        if self.engine.compile is not Compile.OFF:
            model.compile_passes(self.engine.compile.mode)
        self.seen |= {
            "ops": model.ops.name,
            "compiled": str(self.engine.compile),
            "parallel": str(self.engine.parallel),
            "world_size": self.team.size,
            "precision": str(precision),
            "baseline_bytes": memory.baseline_bytes,
            "train_bytes_estimate": self._estimate(precision, device),
            **known,
        }
        if self.cheap_first:
            self._time_first(model, precision)
            memory.restart()
        curve: list[Step] = []
        self._tell("training its first step")
        try:
            self._train(curve, model, material, precision, memory)
        finally:
            peak = max(self.peak_bytes, memory.peak_bytes())
            self.seen |= columns_of(curve) | {"train_peak_bytes": peak}
        if (diverged := _diverged(curve)) is not None:
            self.seen |= diverged
            return
        model.zero_grad(set_to_none=True)
        model = self.team.whole_model(model)
        if self.team.first:
            self.keep(model)
            found = material.held_out(model, recipe, precision, self._tell)
            if not self.cheap_first:
                self.seen |= asdict(self._speeds(model, precision))
            if recipe.measure_int8:
                found |= self._int8(model, precision)
            self.seen |= found | {"outcome": Outcome.COMPLETE, "error": None}
        self.seen = self.team.from_first(self.seen)

    def _branch_ended(
        self, end: BranchEnd, model: HybridLM, material: Material, precision: Precision
    ) -> None:
        """Measure a branch on held-out data and hand it to `keep_branch`."""
        seen = {name: self.seen[name] for name in SHARED} | material.known(end.recipe)
        seen |= columns_of(end.curve)
        seen |= _diverged(end.curve) or (
            material.held_out(model, end.recipe, precision)
            | {"outcome": Outcome.COMPLETE, "error": None}
        )
        self.keep_branch(end.recipe, seen, end.curve, model)

    def _require_possible(self) -> None:
        """Raise ValueError for a recipe that this model or this engine cannot follow."""
        compiled = self.engine.compile
        require(
            self.recipe.activation == 0 or compiled is Compile.OFF,
            f"compile={compiled} must be off with activation={self.recipe.activation:g}: what is "
            "compiled does not see the hooks that the activation loss is taken by",
        )
        require(
            not self.recipe.branches or self.engine.parallel is Parallel.NONE,
            f"parallel={self.engine.parallel} must be none with branches={self.recipe.branches}: "
            "a branch is trained by one process",
        )
        require(
            self.recipe.criterion is None or self.engine.parallel is Parallel.NONE,
            f"parallel={self.engine.parallel} must be none with a criterion: accuracy is measured "
            "by one process",
        )
        require(
            self.recipe.optimizer is OptimizerName.ADAMW or self.engine.parallel is Parallel.NONE,
            f"parallel={self.engine.parallel} needs optimizer=adamw, got {self.recipe.optimizer}: "
            "Muon takes whole matrices, which fsdp shares out, and with ddp it is untested",
        )
        require(
            not self.recipe.measure_int8 or cost.param_parts(self.spec).experts > 0,
            "measure_int8=True needs a model with experts, and this one has none",
        )

    def _int8(self, model: HybridLM, precision: Precision) -> dict[str, Any]:
        """Return the columns of bytes and speed with experts in 8 bits."""
        self._tell("rounding experts to 8 bits")
        smaller = with_int8_experts(model)
        return {
            "int8_decode_ms": self._speeds(smaller, precision).decode_ms,
            "expert_bytes": expert_bytes(model),
            "int8_expert_bytes": expert_bytes(smaller),
        }

    def _estimate(self, precision: Precision, device: torch.device) -> int | None:
        """Return the bytes that training takes in one process; None where no formula tells."""
        if self.engine.parallel is Parallel.FSDP or self.recipe.activation > 0:
            return None
        return cost.training_bytes(
            self.spec,
            batch=self.recipe.batch // self.team.size,
            tokens=self.recipe.tokens,
            itemsize=itemsize(precision),
            device=device.type,
            muon=self.recipe.optimizer is OptimizerName.MUON,
            branches=bool(self.recipe.branches),
        ).total

    def _time_first(self, model: HybridLM, precision: Precision) -> None:
        """Measure speeds before training: then they are an event, which may end the trial."""
        model = self.team.whole_model(model)
        found = self.team.from_first(self._speeds(model, precision) if self.team.first else None)
        assert found is not None
        self.seen |= asdict(found)
        self._show(found)

    def _speeds(self, model: HybridLM, precision: Precision) -> Speeds:
        graphs = self.engine.compile is Compile.GRAPHS
        return speeds(model, self.recipe.contexts, precision, graphs=graphs, tell=self._tell)

    def _tell(self, doing: str) -> None:
        if self.team.first:
            self.tell(doing)

    def _show(self, event: Event) -> None:
        """Show an event to the watcher, in the first process; its Stop stops all of them."""
        stop = None
        if self.team.first:
            try:
                self.watch(event)
            except Stop as said:
                stop = said
        if (stop := self.team.from_first(stop)) is not None:
            raise stop

    def _train(
        self,
        curve: list[Step],
        model: HybridLM,
        material: Material,
        precision: Precision,
        memory: PeakMemory,
    ) -> None:
        """Train until the last step or the first loss that is not finite; fill `curve`.

        The watcher sees the steps of earlier processes first, so that to it, too, a continued run
        is like any other. It does not see the steps of branches.
        """

        def batch(step: int) -> Batch:
            recipe = self.recipe
            return material.train_batch(
                seed=recipe.seed, step=step, batch=recipe.batch, length=recipe.tokens
            )

        optimizer = build_optimizer(model, self.recipe)
        checkpointer, done = None, Done()
        if self.checkpoints is not None:
            read = [str(self.seen.get(x, "")) for x in IDENTITY]
            name = " ".join([self.name, *read])
            checkpointer = Checkpointer(self.checkpoints, name, model, optimizer, self.team)
            done = checkpointer.restore()
        self.seen["resumed_steps"] = list(done.resumed_steps)
        trunk = Trunk(
            model=model,
            optimizer=optimizer,
            batch=batch,
            recipe=self.recipe,
            precision=precision,
            team=self.team,
            checkpointer=checkpointer,
            accuracy=evaluator(model, self.recipe, precision) if self.recipe.criterion else None,
        )
        try:
            for event in trunk.events(done):
                if isinstance(event, Step):
                    curve.append(event)
                    self._show(event)
                else:  # its measurement is not training, and may take more memory
                    self.peak_bytes = max(self.peak_bytes, memory.peak_bytes())
                    self._branch_ended(event, model, material, precision)
                    memory.restart()
        finally:
            self._note_evaluations(trunk)

    def _note_evaluations(self, trunk: Trunk) -> None:
        """Fill the column of tokens to each accuracy; nothing happens without a criterion."""
        if (criterion := self.recipe.criterion) is not None:
            self.seen["tokens_to_accuracy"] = tokens_to_accuracy(criterion, trunk.evaluations)


def _diverged(curve: Sequence[Step]) -> dict[str, Any] | None:
    """Return the outcome of a run whose last loss is not finite; None where it is."""
    last = curve[-1]
    if math.isfinite(last.nats_per_token):
        return None
    where = f"the training loss of step {last.step} is {last.nats_per_token}"
    return {"outcome": Outcome.DIVERGED, "error": where}


def columns_of(curve: Sequence[Step]) -> dict[str, Any]:
    """Return the columns of a record that its curve decides; none without a step."""
    if not curve:
        return {}
    tenth = max(1, len(curve) // 10)
    last_tenth, after_warming = curve[-tenth:], curve[tenth:]
    return {
        "train_tokens": curve[-1].tokens,
        "train_nats_per_token": mean(step.nats_per_token for step in last_tenth),
        "grad_norm_max": max((step.grad_norm for step in after_warming), default=None),
        "train_tokens_per_s": train_tokens_per_s(curve),
    }
