"""A benchmark from contenders to rows: each phase timed in turn, weighed and reckoned."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import chain
from typing import Any

from hybrid.model import build
from hybrid.spec import Mamba
from sweeps.bench import entries, judge, phases, roof
from sweeps.bench.clock import Patience, Rounds, Task, interleave, warm_up
from sweeps.bench.contender import Contender
from sweeps.bench.judge import ANSWERS, Say, Verdict, failure
from sweeps.bench.peak import peak_bytes
from sweeps.bench.reckon import shares, timed
from sweeps.bench.record import Origin, Row, Status, origin
from sweeps.bench.setting import SCANS, Phase, Setting


def run(
    setting: Setting, names: Sequence[str], *, memory: bool, command: str, say: Say
) -> list[Row]:
    """Return a row for every contender, phase and context; the first name is the baseline.

    `say` is told what happens. Whatever goes wrong with a contender is in its row, save for the
    baseline, whose exceptions come out.
    """
    bench = Bench(setting, names, memory=memory, command=command, say=say)
    places = [(p, c) for p in setting.phases for c in contexts(setting, p)]
    return list(chain.from_iterable(bench.rows(phase, context) for phase, context in places))


def contexts(setting: Setting, phase: Phase) -> tuple[int | None, ...]:
    """Return the contexts a phase is timed at: none for a scan that the model does not have."""
    if phase in SCANS and not any(isinstance(x.mixer, Mamba) for x in setting.spec.layers):
        return ()
    return setting.contexts if phase in (Phase.PREFILL, Phase.DECODE) else (None,)


def candidates(names: Sequence[str], phase: Phase) -> list[str]:
    """Return who has the phase at all: a scan of its own only our back ends, uncompiled."""
    return [name for name in names if phase not in SCANS or name in entries.SCANS]


class Bench:
    """The contenders of one run, alive and compared, and what the machine does at best."""

    def __init__(
        self, setting: Setting, names: Sequence[str], *, memory: bool, command: str, say: Say
    ):
        self.setting, self.names, self.memory, self.say = setting, names, memory, say
        self.origin: Origin = origin(setting, command)
        self.now = phases.clock(setting.device)
        say("measuring the machine")
        self.roof = roof.measure(setting)
        source = build(setting.spec, seed=setting.seed, device=setting.device)
        made = judge.make(names, source, say)
        self.contenders = {name: x for name, x in made.items() if isinstance(x, Contender)}
        out = {name: x for name, x in made.items() if isinstance(x, Verdict)}
        # All of them before anything is timed: training moves the weights.
        self.verdicts = {phase: {**out, **self._compared(phase)} for phase in setting.phases}

    def rows(self, phase: Phase, context: int | None) -> list[Row]:
        """Time one phase of all contenders in turn, and return their rows."""
        place = str(phase) if context is None else f"{phase} at {context}"
        names = candidates(self.names, phase)
        verdicts = {name: self.verdicts[phase][name] for name in names}
        tasks: dict[str, Task] = {}
        warm_s: dict[str, float] = {}
        for name in [x for x in names if verdicts[x].status is Status.TIMED]:
            self.say(f"{place}: warming up {name}")
            try:
                task = phases.task(self.contenders[name], self.setting, phase, context)
                warm_s[name] = warm_up(task, self.now)
                tasks[name] = task
            except Exception as error:  # a failure is an outcome, whatever its class
                verdicts[name] = failure(error)
        self.say(f"{place}: timing {len(tasks)} in turn")
        s = self.setting
        patience = Patience(rounds=s.rounds, round_s=s.round_s, budget_s=s.budget_s)
        rounds = interleave(tasks, warm_s, patience, self.now)
        return [self._row(name, phase, context, verdicts[name], rounds) for name in names]

    def _compared(self, phase: Phase) -> dict[str, Verdict]:
        able = {name: self.contenders[name] for name in candidates([*self.contenders], phase)}
        if not able or not contexts(self.setting, phase):
            return {}
        self.say(f"{phase}: do all compute the same?")
        return judge.compare(able, self.names[0], ANSWERS[phase], self.setting, self.say)

    def _row(
        self,
        name: str,
        phase: Phase,
        context: int | None,
        verdict: Verdict,
        rounds: dict[str, Rounds],
    ) -> Row:
        measured: dict[str, Any] = {}
        notes = [verdict.note] if verdict.note else []
        if name in rounds:
            measured = timed(self.setting, phase, context, rounds[name], rounds.get(self.names[0]))
            measured |= shares(measured, self.roof)
            measured["peak_bytes"], died = self._peak(name, phase, context)
            notes += self.contenders[name].notes() + died
        agreed = verdict.agreement
        return Row(
            **{f.name: getattr(self.origin, f.name) for f in fields(self.origin)},
            **vars(self.roof),
            **measured,
            contender=name,
            phase=phase,
            context=context,
            status=verdict.status,
            notes=notes,
            baseline=self.names[0],
            logits_difference=None if agreed is None else agreed.logits,
            loss_difference=None if agreed is None else agreed.loss_nats,
        )

    def _peak(self, name: str, phase: Phase, context: int | None) -> tuple[int | None, list[str]]:
        """Return (the memory of a phase, a note if there is none although it was asked for)."""
        if not self.memory:
            return None, []
        self.say(f"{phase}: memory of {name}")
        try:
            return peak_bytes(self.setting, name, phase, context), []
        except RuntimeError as error:
            return None, [str(error)]
