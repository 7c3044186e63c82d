"""Made-up records of every task of the suite, in the published formats."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.eval import data
from sweeps.eval.suite import JAMBA_PAPER, chosen
from tests.text import SYLLABLES

Record = dict[str, Any]
N = {"train": 30, "validation": 6, "test": 6}
DRAWS = random.Random(0)


def words(n: int) -> str:
    return " ".join(DRAWS.choices(SYLLABLES, k=n))


def hellaswag(i: int) -> Record:
    a, b = words(6), words(3)
    return {
        "ind": i,
        "activity_label": words(2),
        "ctx_a": a,
        "ctx_b": b,
        "ctx": f"{a} {b}",
        "endings": [words(k) for k in (4, 5, 6, 3)],
        "source_id": f"made~{i}",
        "split": "val",
        "split_type": "indomain",
        "label": str(i % 4),
    }


def winogrande(i: int) -> Record:
    return {
        "sentence": f"{words(4)} _ {words(3)}.",
        "option1": words(1),
        "option2": words(2),
        "answer": str(1 + i % 2),
    }


def arc(i: int) -> Record:
    labels = ["1", "2", "3", "4"] if i % 3 == 0 else ["A", "B", "C", "D"]
    return {
        "id": f"made-{i}",
        "question": f"{words(6)}?",
        "choices": {"text": [words(k) for k in (1, 2, 3, 2)], "label": labels},
        "answerKey": labels[i % 4],
    }


def piqa(i: int) -> Record:
    return {"goal": words(5), "sol1": words(4), "sol2": words(6), "label": i % 2}


def nq_open(i: int) -> Record:
    return {"question": words(6), "answer": [words(1), words(2)][: 1 + i % 2]}


def boolq(i: int) -> Record:
    return {"question": words(4), "passage": words(20), "answer": i % 2 == 0}


def quac(i: int) -> Record:
    return {
        "context": words(25),
        "questions": [f"{words(3)}?" for _ in range(2 + i % 2)],
        "answers": {"texts": [[words(2), "CANNOTANSWER"] for _ in range(2 + i % 2)]},
    }


def l_eval(i: int) -> Record:
    return {
        "instructions": [f"{words(4)}?" for _ in range(2)],
        "outputs": [words(2) for _ in range(2)],
        "input": words(40),
        "source": "made up",
        "evaluation": "f1",
    }


def narrativeqa(i: int) -> Record:
    return {
        "document": {"summary": words(10), "text": words(60)},
        "question": words(5),
        "answers": [words(1), words(2)],
    }


def imdb(i: int) -> Record:
    return {"text": words(15), "label": int(i % 6 < 3)}


MAKE: dict[str, Callable[[int], Record]] = {
    "hellaswag": hellaswag,
    "winogrande": winogrande,
    "arc_easy": arc,
    "arc_challenge": arc,
    "piqa": piqa,
    "nq_open": nq_open,
    "boolq": boolq,
    "quac": quac,
    "longfqa": l_eval,
    "cuad": l_eval,
    "narrativeqa": narrativeqa,
    "nq_long": l_eval,
    "imdb": imdb,
}


def write(folder: Path) -> None:
    """Write records for all tasks; the long ones have no train split, as L-Eval has none."""
    for benchmark in JAMBA_PAPER:
        make = MAKE[benchmark.task]
        splits = [benchmark.evaluated] if make is l_eval else ["train", benchmark.evaluated]
        for split in splits:
            path = folder / benchmark.task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(make(i)) + "\n" for i in range(N[split])))


def put(folder: Path, task: str, split: str, rows) -> tuple[data.Local, ...]:
    """Write records of a task as lines and return what is read of the folder."""
    path = folder / task / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return tuple(data.read(folder, chosen([task])))


def changed(task: str, n: int = 12, **fields) -> list[dict]:
    """Return records of which the second has these fields instead of its own."""
    rows = [MAKE[task](i) for i in range(n)]
    rows[1] |= fields
    return rows
