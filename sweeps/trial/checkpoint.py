"""What a training run needs to go on after its process died: one safetensors file.

    runs/<run_id>-<attempt>/checkpoint/state.safetensors

It holds the parameters, the optimiser's state, torch's random numbers and the curve so far as
tensors, and as JSON in the file's own metadata whose they are and which step comes next. Within a
decay branch it holds all of this twice: the branch's under names that begin with `branch.`, and the
trunk's as it was left. The data is a function of (recipe, step) and needs no place here. The file
is put in place by one rename, so it is whole or the one before. A file that is not ours, or no
longer whole, is set aside and the run starts anew.

    {"format": 3, "run": "ratio-cpu-1to7-s0-3f9c2a1b 8d0c...", "next_step": 120, "resumed": [40],
     "ended": [60], "branch": null, "evaluations": [{"steps": 50, "tokens": 6400, "accuracy": 0.5}]}
"""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hybrid.model import HybridLM
from sweeps.trial.criterion import Evaluation
from sweeps.trial.optimizers import Optimizer
from sweeps.trial.parallel import ALONE, Team, whole
from sweeps.trial.state import State, put_back, shapes_of, tensors_of
from sweeps.trial.train import Step

FORMAT = 3  # raised when the names or the meaning of what is stored change
FILE = "state.safetensors"
EVERY_SECONDS = 30.0
BRANCH = "branch."  # before the names of what is a branch's
CURVE_TYPES = {int: torch.int64, float: torch.float64}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where a run keeps its checkpoint, and how often it writes one; 0 is after every step."""

    folder: Path
    every_seconds: float = EVERY_SECONDS


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A decay branch that is not over; the model has its weights."""

    end: int  # the step that it ends at
    steps: tuple[Step, ...]  # its own, after those of the trunk
    trunk: State  # that the run goes on from when the branch is over


@dataclass(frozen=True, kw_only=True)
class Done:
    """What earlier processes did of a run."""

    curve: tuple[Step, ...] = ()
    resumed_steps: tuple[int, ...] = ()
    ended: tuple[int, ...] = ()  # branches of which the record is written
    begun: Begun | None = None
    evaluations: tuple[Evaluation, ...] = ()  # those of the criterion


class Checkpointer:
    """Saves one run now and then, and puts back what an earlier process saved of it.

    `run` names what is trained, and everything that decides the result. Of a team, the first
    process saves and decides when, and all read; a file holds whole weights, whoever had them.
    """

    def __init__(
        self,
        where: Checkpoints,
        run: str,
        model: HybridLM,
        optimizer: Optimizer,
        team: Team = ALONE,
    ):
        self.path = where.folder / FILE
        self.every_seconds, self.run = where.every_seconds, run
        self.model, self.optimizer, self.team = model, optimizer, team
        self.resumed_steps: tuple[int, ...] = ()
        self.saved = time.monotonic()

    def restore(self) -> Done:
        """Put model and optimiser where the checkpoint left them; nothing happens without one."""
        if self.team.first:
            for leftover in self.path.parent.glob(".*.tmp"):  # of a process killed while it wrote
                leftover.unlink(missing_ok=True)
        done, wrong = self._read()
        seen = self.team.all_of((len(done.curve), wrong is None))
        if len(set(seen)) > 1:
            raise RuntimeError(
                f"the processes of one trial read different checkpoints in {self.path.parent}: "
                f"(steps, whole) {seen}; they need to see the same disk"
            )
        if wrong is not None and self.team.first:
            self._set_aside(wrong)
        if done.curve:
            self.resumed_steps = done.resumed_steps
            log.warning("continued at step %d from a checkpoint", done.resumed_steps[-1])
        return done

    def _read(self) -> tuple[Done, Exception | None]:
        """Return what was put back, and what was wrong with the file."""
        if not self.path.exists():
            return Done(), None
        try:
            return self._restored(), None
        except (OSError, SafetensorError, ValueError) as error:
            return Done(), error

    def _set_aside(self, wrong: Exception) -> None:
        aside = self.path.with_name(f"{FILE}.set-aside")
        os.replace(self.path, aside)
        log.warning("the run starts anew: %s; it is now %s", wrong, aside)

    def after_step(
        self,
        curve: Sequence[Step],
        ended: Sequence[int] = (),
        begun: Begun | None = None,
        evaluations: Sequence[Evaluation] = (),
    ) -> None:
        """Save if it is time; a disk that refuses is warned of, and training goes on."""
        if self.team.from_first(time.monotonic() - self.saved >= self.every_seconds):
            self.save(curve, ended, begun, evaluations)

    def save(
        self,
        curve: Sequence[Step],
        ended: Sequence[int] = (),
        begun: Begun | None = None,
        evaluations: Sequence[Evaluation] = (),
    ) -> None:
        """Save now; a disk that refuses is warned of, and training goes on."""
        live = self._whole(tensors_of(self.model, self.optimizer))
        try:
            if self.team.first:
                self._save(live, curve, ended, begun, evaluations)
        except (OSError, SafetensorError) as error:
            log.warning("no checkpoint after step %d: %s", curve[-1].step, error)
        self.saved = time.monotonic()

    def _save(
        self,
        live: State,
        curve: Sequence[Step],
        ended: Sequence[int],
        begun: Begun | None,
        evaluations: Sequence[Evaluation],
    ) -> None:
        about = {
            "format": FORMAT,
            "run": self.run,
            "next_step": curve[-1].step + 1,
            "resumed": list(self.resumed_steps),
            "ended": list(ended),
            "branch": begun and begun.end,
            "evaluations": [asdict(evaluation) for evaluation in evaluations],
        }
        tensors = live | _curve_tensors(curve)
        if begun is not None:
            branch = live | _curve_tensors(begun.steps)
            trunk = begun.trunk | _curve_tensors(curve)
            tensors = trunk | {BRANCH + name: x for name, x in branch.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(f".{FILE}.{uuid4().hex}.tmp")
        try:
            save_file(tensors, scratch, {"checkpoint": json.dumps(about)})
            _sync(scratch)
            os.replace(scratch, self.path)
            _sync(self.path.parent)
        finally:
            scratch.unlink(missing_ok=True)

    def _whole(self, state: State) -> State:
        """Return what is to be saved, in the first process; the others help it gather the parts."""
        tensors = {}
        for name, x in state.items():
            full = whole(x)
            if self.team.first:
                tensors[name] = full.contiguous()
        return tensors

    def _restored(self) -> Done:
        """Check everything, then put it in place, so that a bad file changes nothing."""
        with safe_open(self.path, framework="pt") as file:
            about = self._about(file.metadata() or {})
            names = set(file.keys())
            of_branch = {x.removeprefix(BRANCH) for x in names if x.startswith(BRANCH)}
            of_trunk = {x for x in names if not x.startswith(BRANCH)}
            self._check_shapes(file, of_trunk)
            curve = _curve_from(file, 0, about["next_step"])
            state = {name: file.get_tensor(name) for name in of_trunk}
            begun, live = None, state
            if about["branch"] is not None:
                self._check_shapes(file, of_branch, BRANCH)
                live = {name: file.get_tensor(BRANCH + name) for name in of_branch}
                begun = self._begun(file, about, state)
            elif of_branch:
                raise ValueError(f"{self.path} is in no branch, and has tensors of one")
            put_back(self.model, self.optimizer, live)
        resumed = (*about["resumed"], int(about["next_step"]))
        return Done(
            curve=tuple(curve),
            resumed_steps=resumed,
            ended=tuple(about["ended"]),
            begun=begun,
            evaluations=tuple(Evaluation(**x) for x in about["evaluations"]),
        )

    def _begun(self, file: Any, about: Mapping[str, Any], state: State) -> Begun:
        steps = _curve_from(file, about["next_step"], None, BRANCH)
        trunk = {name: x for name, x in state.items() if name not in _curve_names()}
        return Begun(end=about["branch"], steps=tuple(steps), trunk=trunk)

    def _about(self, metadata: dict[str, str]) -> dict[str, Any]:
        about = json.loads(metadata.get("checkpoint", "{}"))
        if about.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} has format {about.get('format')}, this code reads {FORMAT}"
            )
        if about["run"] != self.run:
            raise ValueError(f"{self.path} is of another run: {about['run']}, not {self.run}")
        return about

    def _check_shapes(self, file: Any, names: set[str], prefix: str = "") -> None:
        """Raise ValueError unless the file holds exactly this model, its optimiser and a curve."""
        wanted = shapes_of(self.model, self.optimizer, names) | dict.fromkeys(_curve_names())
        for name, shape in wanted.items():
            found = tuple(file.get_slice(prefix + name).get_shape()) if name in names else None
            if found is None or (shape is not None and found != tuple(shape)):
                right = "" if shape is None else f" or not of shape {tuple(shape)}"
                raise ValueError(f"{self.path}: {prefix}{name} is missing{right}")
        if odd := sorted(wanted.keys() ^ names):
            raise ValueError(f"{self.path}: {prefix}{odd[0]} is missing or unknown")


def _curve_names() -> list[str]:
    return [f"curve.{f.name}" for f in fields(Step)]


def _curve_tensors(curve: Sequence[Step]) -> dict[str, Tensor]:
    """Return each column of the curve, exact: its numbers are Python's, 64 bits wide."""
    return {
        f"curve.{f.name}": torch.tensor(
            [getattr(step, f.name) for step in curve],
            dtype=CURVE_TYPES[type(getattr(curve[0], f.name))],
        )
        for f in fields(Step)
    }


def _curve_from(file: Any, first: int, end: int | None, prefix: str = "") -> list[Step]:
    """Return the steps from `first` to `end`; None is wherever they end."""
    columns = [file.get_tensor(prefix + name).tolist() for name in _curve_names()]
    names = [f.name for f in fields(Step)]
    curve = [Step(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    end = first + len(curve) if end is None else end
    if [step.step for step in curve] != list(range(first, end)):
        raise ValueError(f"the checkpoint's curve does not run from step {first} to {end - 1}")
    return curve


def _sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
