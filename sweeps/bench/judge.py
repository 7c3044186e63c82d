"""Who takes part: contenders are made and held against the baseline before anything is timed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hybrid.model import HybridLM
from sweeps.bench import entries
from sweeps.bench.agree import (
    Agreement,
    Answers,
    agreement,
    scan_trained_answers,
    scanned_answers,
    served_answers,
    trained_answers,
)
from sweeps.bench.contender import Contender
from sweeps.bench.record import Status
from sweeps.bench.setting import Phase, Setting

Say = Callable[[str], None]
Ask = Callable[[Contender, Setting], Answers]
ANSWERS: dict[Phase, Ask] = {
    Phase.TRAIN: trained_answers,
    Phase.PREFILL: served_answers,
    Phase.DECODE: served_answers,
    Phase.SCAN: scanned_answers,
    Phase.SCAN_TRAIN: scan_trained_answers,
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a contender takes part in a phase, and why not."""

    status: Status
    note: str | None = None
    agreement: Agreement | None = None


def make(names: Sequence[str], source: HybridLM, say: Say) -> dict[str, Contender | Verdict]:
    """Return each contender with the weights of `source`, or why there is none."""
    made: dict[str, Contender | Verdict] = {}
    for name in names:
        say(f"making {name}")
        try:
            made[name] = entries.ALL[name](source)
        except ImportError as error:
            made[name] = Verdict(status=Status.ABSENT, note=str(error))
        except ValueError as error:  # this spec is none that it can be
            made[name] = failure(error)
    return made


def compare(
    contenders: Mapping[str, Contender], baseline: str, ask: Ask, setting: Setting, say: Say
) -> dict[str, Verdict]:
    """Return whether each contender answers as the baseline does, whose exceptions come out."""
    truth = ask(contenders[baseline], setting)
    verdicts = {}
    for name, contender in contenders.items():
        say(f"comparing {name} with {baseline}")
        try:
            verdicts[name] = _verdict(agreement(ask(contender, setting), truth), setting)
        except Exception as error:  # a failure is an outcome, whatever its class
            verdicts[name] = failure(error)
    return verdicts


def failure(error: Exception) -> Verdict:
    """Return the verdict on a contender that raised."""
    line = (str(error).splitlines() or [""])[0]
    return Verdict(status=Status.FAILS, note=f"{type(error).__name__}: {line}")


def _verdict(found: Agreement, setting: Setting) -> Verdict:
    problem = found.problem(setting.precision)
    status = Status.TIMED if problem is None else Status.DIFFERS
    return Verdict(status=status, note=problem, agreement=found)
