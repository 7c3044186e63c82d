"""What a training run needs to go on after its process died: one safetensors file.

    runs/<run_id>-<attempt>/checkpoint/state.safetensors

It holds the parameters, AdamW's state, torch's random numbers and the curve so far as tensors, and
as JSON in the file's own metadata whose they are and which step comes next. The data is a function
of (recipe, step) and needs no place here. The file is put in place by one rename, so it is whole or
the one before. A file that is not ours, or no longer whole, is set aside and the run starts anew.

    {"format": 1, "run": "ratio-cpu-1to7-s0-3f9c2a1b 8d0c...", "next_step": 120, "resumed": [40]}
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from hybrid.model import HybridLM
from sweeps.trial.train import Step

FORMAT = 1  # raised when the names or the meaning of what is stored change
FILE = "state.safetensors"
EVERY_SECONDS = 30.0
ADAMW = ("step", "exp_avg", "exp_avg_sq")
CURVE_TYPES = {int: torch.int64, float: torch.float64}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where a run keeps its checkpoint, and how often it writes one; 0 is after every step."""

    folder: Path
    every_seconds: float = EVERY_SECONDS


@dataclass(frozen=True, kw_only=True)
class Done:
    """What earlier processes did of a run."""

    curve: tuple[Step, ...] = ()
    resumed_steps: tuple[int, ...] = ()


class Checkpointer:
    """Saves one run now and then, and puts back what an earlier process saved of it.

    `run` names what is trained, and everything that decides the result.
    """

    def __init__(self, where: Checkpoints, run: str, model: HybridLM, optimizer: Optimizer):
        self.path = where.folder / FILE
        self.every_seconds, self.run = where.every_seconds, run
        self.model, self.optimizer = model, optimizer
        self.resumed_steps: tuple[int, ...] = ()
        self.saved = time.monotonic()

    def restore(self) -> Done:
        """Put model and optimiser where the checkpoint left them; nothing happens without one."""
        for leftover in self.path.parent.glob(".*.tmp"):  # of a process killed while it wrote
            leftover.unlink(missing_ok=True)
        if not self.path.exists():
            return Done()
        try:
            done = self._restored()
        except (OSError, SafetensorError, ValueError) as error:
            aside = self.path.with_name(f"{FILE}.set-aside")
            os.replace(self.path, aside)
            log.warning("the run starts anew: %s; it is now %s", error, aside)
            return Done()
        self.resumed_steps = done.resumed_steps
        log.warning("continued at step %d from a checkpoint", done.resumed_steps[-1])
        return done

    def after_step(self, curve: Sequence[Step]) -> None:
        """Save if it is time; a disk that refuses is warned of, and training goes on."""
        if time.monotonic() - self.saved < self.every_seconds:
            return
        try:
            self._save(curve)
        except (OSError, SafetensorError) as error:
            log.warning("no checkpoint after step %d: %s", curve[-1].step, error)
        self.saved = time.monotonic()

    def _save(self, curve: Sequence[Step]) -> None:
        about = {
            "format": FORMAT,
            "run": self.run,
            "next_step": curve[-1].step + 1,
            "resumed": list(self.resumed_steps),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(f".{FILE}.{uuid4().hex}.tmp")
        try:
            tensors = {**self._live(), **_random_state(self._device()), **_curve_tensors(curve)}
            save_file(tensors, scratch, {"checkpoint": json.dumps(about)})
            _sync(scratch)
            os.replace(scratch, self.path)
            _sync(self.path.parent)
        finally:
            scratch.unlink(missing_ok=True)

    def _restored(self) -> Done:
        """Check everything, then put it in place, so that a bad file changes nothing."""
        with safe_open(self.path, framework="pt") as file:
            about = self._about(file.metadata() or {})
            names = set(file.keys())
            self._check_shapes(file, names)
            curve = _curve_from(file, about["next_step"])
            for name, parameter in self.model.named_parameters():
                with torch.no_grad():
                    parameter.copy_(file.get_tensor(f"model.{name}"))
                if f"adamw.step.{name}" in names:
                    self.optimizer.state[parameter] = {
                        key: file.get_tensor(f"adamw.{key}.{name}").to(parameter.device, copy=True)
                        for key in ADAMW
                    }
            _set_random_state(file, self._device(), names)
        return Done(curve=tuple(curve), resumed_steps=(*about["resumed"], int(about["next_step"])))

    def _about(self, metadata: dict[str, str]) -> dict[str, Any]:
        about = json.loads(metadata.get("checkpoint", "{}"))
        if about.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} has format {about.get('format')}, this code reads {FORMAT}"
            )
        if about["run"] != self.run:
            raise ValueError(f"{self.path} is of another run: {about['run']}, not {self.run}")
        return about

    def _check_shapes(self, file: Any, names: set[str]) -> None:
        """Raise ValueError unless the file holds exactly this model, and AdamW's state in threes.

        A parameter that never had a gradient, such as an expert never chosen, has no such state.
        """
        wanted = {f"rng.{self._device().type}", "rng.cpu", *_curve_names()}
        for name, parameter in self.model.named_parameters():
            shapes = {f"model.{name}": parameter.shape}
            if f"adamw.step.{name}" in names:
                moments = {f"adamw.{key}.{name}": parameter.shape for key in ADAMW[1:]}
                shapes |= {f"adamw.step.{name}": torch.Size(), **moments}
            for key, shape in shapes.items():
                if key not in names or tuple(file.get_slice(key).get_shape()) != tuple(shape):
                    raise ValueError(
                        f"{self.path}: {key} is missing or not of shape {tuple(shape)}"
                    )
            wanted |= shapes.keys()
        if odd := sorted(wanted ^ names):
            raise ValueError(f"{self.path}: {odd[0]} is missing or unknown")

    def _live(self) -> dict[str, Tensor]:
        tensors = {}
        for name, parameter in self.model.named_parameters():
            tensors[f"model.{name}"] = parameter.detach().contiguous()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adamw.{key}.{name}"] = value.contiguous()
        return tensors

    def _device(self) -> torch.device:
        return self.model.embed.weight.device


def _random_state(device: torch.device) -> dict[str, Tensor]:
    states = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_state(file: Any, device: torch.device, names: set[str]) -> None:
    torch.set_rng_state(file.get_tensor("rng.cpu"))
    if "rng.cuda" in names:
        torch.cuda.set_rng_state(file.get_tensor("rng.cuda"), device)


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


def _curve_from(file: Any, next_step: int) -> list[Step]:
    columns = [file.get_tensor(name).tolist() for name in _curve_names()]
    names = [f.name for f in fields(Step)]
    curve = [Step(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    if [step.step for step in curve] != list(range(next_step)):
        raise ValueError(f"the checkpoint's curve does not run from step 0 to {next_step - 1}")
    return curve


def _sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
