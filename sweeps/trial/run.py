"""One trial from start to finish: what decides it, the attempt, and the record of it.

record = run(spec, Recipe(steps=100, batch=8, tokens=256, lr=3e-3))
"""

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from hybrid import codec, cost
from hybrid import ops as backends
from hybrid.model import HybridLM
from hybrid.spec import ModelSpec, require
from sweeps.trial import file_names, provenance
from sweeps.trial.attempt import Attempt
from sweeps.trial.checkpoint import Checkpoints
from sweeps.trial.data.streams import OtherText, content_of, pinned
from sweeps.trial.device import choose_device, is_out_of_memory, machine_name
from sweeps.trial.engine import Compile, Engine, Parallel
from sweeps.trial.events import Event, Stop, Tell, Watch
from sweeps.trial.parallel import team_of
from sweeps.trial.progress_log import ProgressLog, to_stderr
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Label, MachineError, Outcome, Record
from sweeps.trial.train import Step, left, step_line

KeepBranch = Callable[[Record, Sequence[Step], HybridLM], None]

SINGLE = Label()
ANY = Engine()
ERROR_LINES = 12
BUSY = "busy or unavailable"  # what CUDA says of a device that another process holds for itself


def _watch_nothing(event: Event) -> None:
    pass


def run(
    spec: ModelSpec,
    recipe: Recipe,
    *,
    label: Label = SINGLE,
    engine: Engine = ANY,
    watch: Watch = _watch_nothing,
    tell: Tell | None = None,
    keep: Callable[[HybridLM], None] = lambda model: None,
    keep_branch: KeepBranch | None = None,
    checkpoints: Checkpoints | None = None,
    cheap_first: bool = False,
) -> Record:
    """Train and measure one model, and return what was seen; `watch` is called with every Step.

    `tell` is called with a few words whenever something else is done than before. Without one, what
    takes longer than half a minute is said on standard error.

    With `cheap_first`, speeds are measured before training, not after, and `watch` is called with
    them. It may raise Stop: the trial is then `pruned`, with all that was measured so far. `keep`
    is called with the trained model, before it is measured. With `checkpoints`, a run that an
    earlier process left there is continued, and `watch` is called with its steps first.

    With an `engine.parallel`, every process of `parallel.process_group` calls it, and all return
    what was seen, measured by the first; `watch`, `tell` and `keep` are called in the first alone.

    With a recipe that has branches, `keep_branch` is called with the record, the curve and the
    model of each branch when it ends; a run that is killed and continued may end a branch again,
    with an equal record. A branch has the `run_id` of the run that it equals.

    Whatever goes wrong inside is the record's outcome. Three things come out as exceptions: an
    engine or a text that is not here, MachineError for what this machine lacks later on, which
    `keep_branch` may raise too, and what the caller raises on purpose (KeyboardInterrupt). Nothing
    is written but checkpoints: the record's turn is `records.write`. Raises ValueError for branches
    without `keep_branch`.
    """
    require(
        keep_branch is not None or not recipe.branches,
        f"a recipe with branches={recipe.branches} needs keep_branch, which takes their records",
    )
    if tell is None:
        with ProgressLog(to_stderr) as log:
            return run(
                spec,
                recipe,
                label=label,
                engine=engine,
                watch=_said_too(watch, recipe, log),
                tell=log.now,
                keep=keep,
                keep_branch=keep_branch,
                checkpoints=checkpoints,
                cheap_first=cheap_first,
            )
    start = time.perf_counter()
    recipe = replace(recipe, source=pinned(recipe.source))
    team = team_of(engine, recipe.batch)
    record = not_run(spec, recipe, label=label, engine=engine)

    def branch_ended(
        equal: Recipe, columns: dict[str, Any], curve: Sequence[Step], model: HybridLM
    ) -> None:
        assert keep_branch is not None
        name = run_id(spec, equal, label=label, engine=engine)
        known = replace(
            record,
            run_id=name,
            attempt=0,
            trial_params=None,
            recipe=codec.dumps(equal),
            branch_of=record.run_id,
        )
        took = time.perf_counter() - start
        keep_branch(replace(known, **columns, wall_s=took), curve, model)

    attempt = Attempt(
        name=f"{record.run_id} {_digest(spec, recipe, engine)}",
        spec=spec,
        recipe=recipe,
        engine=engine,
        watch=watch,
        tell=tell,
        keep=keep,
        keep_branch=branch_ended,
        checkpoints=checkpoints,
        cheap_first=cheap_first,
        team=team,
    )
    try:
        attempt.go()
    except Stop as stop:
        attempt.seen |= {"outcome": Outcome.PRUNED, "error": str(stop)}
    except MachineError:
        raise
    except Exception as error:  # a failure is an outcome, whatever its class
        if _is_of_machine(error):
            raise MachineError(f"{record.run_id} cannot run on this machine: {error}") from error
        attempt.seen |= {"outcome": _outcome_of(error), "error": _last_lines(error)}
    return replace(record, **attempt.seen, wall_s=time.perf_counter() - start)


def _said_too(watch: Watch, recipe: Recipe, log: ProgressLog) -> Watch:
    """Return a watcher that also notes how far training is, for the log to say."""

    def both(event: Event) -> None:
        if isinstance(event, Step):
            log.now(f"{step_line(event, recipe)}  {left(event, recipe)}", timed=False)
        watch(event)

    return both


def not_run(
    spec: ModelSpec,
    recipe: Recipe,
    *,
    label: Label = SINGLE,
    engine: Engine = ANY,
) -> Record:
    """Return what is known of a trial before it runs, as a record with the outcome `failed`."""
    recipe = replace(recipe, source=pinned(recipe.source))
    chosen = choose_device(engine.device)
    commit, dirty = provenance.git_commit()
    return Record(
        run_id=run_id(spec, recipe, label=label, engine=engine),
        attempt=label.attempt,
        sweep=label.sweep,
        scale=label.scale,
        arm=label.arm,
        matched=label.matched,
        trial_params=label.trial_params,
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


def refused(
    spec: ModelSpec, recipe: Recipe, reason: str, *, label: Label, engine: Engine = ANY
) -> Record:
    """Return the record of a trial that arithmetic ruled out, for `reason`."""
    known = not_run(spec, recipe, label=label, engine=engine)
    return replace(known, outcome=Outcome.REFUSED, error=reason)


def run_id(spec: ModelSpec, recipe: Recipe, *, label: Label, engine: Engine) -> str:
    """Return the name of a trial: equal for equal trials, whenever and wherever they are asked for.

    What decides the result is hashed: spec, recipe, and the engine as it was chosen. Of a text of
    one's own, its content is hashed and not its path.
    """
    digest = _digest(spec, recipe, engine)[:8]
    return file_names.run_id(label.sweep, label.scale, label.arm, recipe.seed, digest)


def _digest(spec: ModelSpec, recipe: Recipe, engine: Engine) -> str:
    chosen = choose_device(engine.device)
    name = backends.find(engine.ops, chosen).name
    compiled = () if engine.compile is Compile.OFF else (str(engine.compile),)
    parallel = () if engine.parallel is Parallel.NONE else (str(engine.parallel),)
    asked = {**codec.encode(recipe), "source": content_of(pinned(recipe.source))}
    told = json.dumps(asked, sort_keys=True)
    parts = (codec.dumps(spec), told, chosen.type, name, *compiled, *parallel)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _is_of_machine(error: Exception) -> bool:
    """Return whether an error inside a trial is trouble of the machine and not of the trial."""
    if is_out_of_memory(error):
        return False
    return isinstance(error, (OSError, ImportError, OtherText)) or BUSY in str(error)


def _outcome_of(error: Exception) -> Outcome:
    return Outcome.OUT_OF_MEMORY if is_out_of_memory(error) else Outcome.FAILED


def _last_lines(error: Exception) -> str:
    return "".join(traceback.format_exception(error)[-ERROR_LINES:])
