"""One training run along its whole schedule, its decay branches included.

A branch leaves the run, its trunk, where a run of the branch's length begins to decay. It takes the
trunk's weights and optimiser, and the batches that the trunk takes next. When it ends the trunk
goes on from where it was left. So the trunk is trained once, and each branch equals the run that
`Recipe.branch` describes, to the last bit.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from hybrid.model import HybridLM
from sweeps.trial.checkpoint import Begun, Checkpointer, Done
from sweeps.trial.criterion import Evaluation, is_met
from sweeps.trial.optimizers import Optimizer
from sweeps.trial.parallel import Team
from sweeps.trial.recipe import Precision, Recipe
from sweeps.trial.state import copied, put_back, tensors_of
from sweeps.trial.train import Batch, Step, train


@dataclass(frozen=True, kw_only=True)
class BranchEnd:
    """A branch after its last step. The model has its weights until the next event is taken."""

    recipe: Recipe  # of the run that the branch equals
    curve: tuple[Step, ...]  # of that run, from its first step


@dataclass(kw_only=True)
class Trunk:
    """Trains `model` in place. `batch` is a function of the step alone.

    With a criterion in the recipe, `accuracy` measures what it is about.
    """

    model: HybridLM
    optimizer: Optimizer
    batch: Batch
    recipe: Recipe
    precision: Precision
    team: Team
    checkpointer: Checkpointer | None
    accuracy: Callable[[], float] | None = None
    ended: list[int] = field(default_factory=list)  # branches that the taker of events has seen
    evaluations: list[Evaluation] = field(default_factory=list)

    def events(self, done: Done) -> Iterator[Step | BranchEnd]:
        """Yield each step of the trunk, those of `done` first, and each branch when it ends.

        A branch counts as ended once the event after it is taken. A run that is killed before is
        continued within the branch, and yields its end again. The trunk ends with its first loss
        that is not finite, and so does a branch. It ends at its criterion too.
        """
        curve, self.ended = list(done.curve), list(done.ended)
        self.evaluations = list(done.evaluations)
        yield from curve
        if self._has_learned():
            return
        yield from self._branches(curve, done.begun)
        for step in self._train(self.recipe, len(curve)):
            curve.append(step)
            finite = math.isfinite(step.nats_per_token)
            if finite:
                self._evaluate(step)
            if self.checkpointer is not None and finite:
                self.checkpointer.after_step(curve, self.ended, evaluations=self.evaluations)
            yield step
            if not finite or self._has_learned():
                return
            yield from self._branches(curve, None)

    def _evaluate(self, step: Step) -> None:
        """Measure accuracy if it is time. The checkpoint of this step has it already."""
        criterion, done = self.recipe.criterion, step.step + 1
        if criterion is not None and done % criterion.every == 0:
            assert self.accuracy is not None
            self.evaluations.append(
                Evaluation(steps=done, tokens=step.tokens, accuracy=self.accuracy())
            )

    def _has_learned(self) -> bool:
        criterion = self.recipe.criterion
        return criterion is not None and is_met(criterion, self.evaluations)

    def _branches(self, curve: Sequence[Step], begun: Begun | None) -> Iterator[BranchEnd]:
        """Train the branches that leave the trunk after `curve`, `begun` from where it was cut."""
        for end in self.recipe.branches:
            assert self.recipe.schedule is not None
            if end in self.ended or self.recipe.schedule.decay_start(end) != len(curve):
                continue
            mine = begun if begun is not None and begun.end == end else None
            yield from self._branch(end, curve, mine)

    def _branch(self, end: int, curve: Sequence[Step], begun: Begun | None) -> Iterator[BranchEnd]:
        recipe = self.recipe.branch(end)
        trunk = begun.trunk if begun else copied(tensors_of(self.model, self.optimizer))
        steps = list(begun.steps) if begun else []
        for step in self._train(recipe, len(curve) + len(steps)):
            steps.append(step)
            if not math.isfinite(step.nats_per_token):
                break
            if self.checkpointer is not None:
                now = Begun(end=end, steps=tuple(steps), trunk=trunk)
                self.checkpointer.after_step(curve, self.ended, now)
        yield BranchEnd(recipe=recipe, curve=(*curve, *steps))
        put_back(self.model, self.optimizer, trunk)
        self.model.train()
        self.ended.append(end)
        if self.checkpointer is not None:
            self.checkpointer.save(curve, self.ended)

    def _train(self, recipe: Recipe, first_step: int) -> Iterator[Step]:
        return train(
            self.model,
            self.optimizer,
            self.batch,
            recipe,
            self.precision,
            first_step,
            self.team,
        )
