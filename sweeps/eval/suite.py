"""Suites: which tasks, with how many examples before each question. Free of lm-eval.

The shots of the first seven and of QuAC are those of the Jamba paper's Table 2, of the long ones
its Table 3. It names no number for IMDB (Table 6). lm-eval has no QuAC, none of the long tasks
with whole documents, and no IMDB: those are files of our own, in tasks/.
"""

from dataclasses import dataclass
from enum import StrEnum

from hybrid.spec import require


class Suite(StrEnum):
    """What can be asked of a model."""

    JAMBA_PAPER = "jamba-paper"
    NEEDLE = "needle"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A task with its shots."""

    task: str
    shots: int
    fields: tuple[str, ...]  # of a record; docs/evaluation.md has their types
    evaluated: str = "validation"  # split, where there are several
    official: str | None = None  # folder in lm_eval/tasks; None is a file of ours

    @property
    def ours(self) -> bool:
        return self.official is None


QUESTIONS = ("instructions", "outputs", "input")
JAMBA_PAPER = (
    Benchmark(
        task="hellaswag",
        shots=10,
        fields=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        official="hellaswag",
    ),
    Benchmark(
        task="winogrande",
        shots=5,
        fields=("sentence", "option1", "option2", "answer"),
        official="winogrande",
    ),
    Benchmark(
        task="arc_easy",
        shots=0,
        fields=("question", "choices", "answerKey"),
        evaluated="test",
        official="arc",
    ),
    Benchmark(
        task="arc_challenge",
        shots=25,
        fields=("question", "choices", "answerKey"),
        evaluated="test",
        official="arc",
    ),
    Benchmark(task="piqa", shots=0, fields=("goal", "sol1", "sol2", "label"), official="piqa"),
    Benchmark(task="nq_open", shots=5, fields=("question", "answer"), official="nq_open"),
    Benchmark(
        task="boolq",
        shots=10,
        fields=("question", "passage", "label"),
        official="super_glue/boolq",
    ),
    Benchmark(task="quac", shots=0, fields=("context", "questions", "answers")),
    Benchmark(task="longfqa", shots=3, fields=QUESTIONS, evaluated="test"),
    Benchmark(task="cuad", shots=3, fields=QUESTIONS, evaluated="test"),
    Benchmark(
        task="narrativeqa", shots=3, fields=("document", "question", "answers"), evaluated="test"
    ),
    Benchmark(task="nq_long", shots=3, fields=QUESTIONS, evaluated="test"),
    Benchmark(task="imdb", shots=5, fields=("text", "label"), evaluated="test"),
)


def chosen(names: list[str]) -> tuple[Benchmark, ...]:
    """Return the benchmarks of these names, all of them without any; ValueError if unknown."""
    known = {benchmark.task: benchmark for benchmark in JAMBA_PAPER}
    for name in names:
        require(
            name in known, f"no task {name!r} in {Suite.JAMBA_PAPER}; there are: {', '.join(known)}"
        )
    return tuple(known[name] for name in dict.fromkeys(names)) or JAMBA_PAPER
