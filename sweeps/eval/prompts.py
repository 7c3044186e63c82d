"""What the YAML files in tasks/ call: records to documents of one question each, and scores.

A data set here is one of the library `datasets`; nothing of lm-eval is needed.
"""

import random
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybrid.spec import require

Row = Mapping[str, Any]
SENTIMENTS = ("Negative", "Positive")
LABELS = {0: 0, 1: 1, "0": 0, "1": 1, "neg": 0, "pos": 1, "negative": 0, "positive": 1}
ORDER_SEED = 0  # of reviews, which come sorted by their label


def questions(records: Any) -> Any:
    """Return the documents of L-Eval with one of their questions each."""
    return _documents(
        records,
        [
            {"text": row["input"], "question": question, "answers": [answer]}
            for row in records
            for question, answer in zip(row["instructions"], row["outputs"], strict=True)
        ],
    )


def turns(records: Any) -> Any:
    """Return the dialogues of QuAC up to each of their questions, with the earlier answers."""
    return _documents(records, [turn for row in records for turn in _turns(row)])


def _documents(records: Any, rows: list[dict[str, Any]]) -> Any:
    require(bool(rows), f"none of {len(records)} records has a question")
    return type(records).from_list(rows)


def _turns(row: Row) -> Iterable[dict[str, Any]]:
    history = ""
    for question, answers in zip(row["questions"], row["answers"]["texts"], strict=True):
        require(bool(answers), f"the question {question!r} has no answer")
        yield {
            "context": row["context"],
            "history": history,
            "question": question,
            "answers": list(dict.fromkeys(answers)),
        }
        history += f"Q: {question}\nA: {answers[0]}\n"


def stories(records: Any) -> Any:
    """Return the questions of NarrativeQA with the whole text they are about."""
    return type(records).from_list(
        [
            {
                "text": row["document"]["text"],
                "question": _text(row["question"]),
                "answers": [_text(answer) for answer in row["answers"]],
            }
            for row in records
        ]
    )


def _text(x: str | Row) -> str:
    """Return a text that comes alone, or as the hub has it with its tokens."""
    return x if isinstance(x, str) else x["text"]


def reviews(records: Any) -> Any:
    """Return the reviews of IMDB, shuffled always alike, with their label as a word."""
    rows = [{"text": row["text"], "sentiment": _sentiment(row["label"])} for row in records]
    random.Random(ORDER_SEED).shuffle(rows)
    return type(records).from_list(rows)


def _sentiment(label: int | str) -> str:
    key = label.lower() if isinstance(label, str) else label
    require(key in LABELS, f"imdb: label={label!r} must be one of {list(LABELS)}")
    return SENTIMENTS[LABELS[key]]


def sentiment_of(doc: Row, results: Sequence[str]) -> dict[str, float]:
    """Return whether the answer is the label, and whether it is a label at all."""
    said = normalised(results[0])
    return {
        "acc": float(said == normalised(doc["sentiment"])),
        "valid_label": float(said in [normalised(x) for x in SENTIMENTS]),
    }


def f1_of_answers(doc: Row, results: Sequence[str]) -> dict[str, float]:
    """Return the F1 of the generated answer with the answer it is closest to."""
    return {"f1": max(f1(results[0], answer) for answer in doc["answers"])}


def f1(said: str, right: str) -> float:
    """Return the F1 over words as SQuAD has it: letters small, no articles, no punctuation."""
    a, b = normalised(said).split(), normalised(right).split()
    if not a or not b:
        return float(a == b)
    both = (Counter(a) & Counter(b)).total()
    return 2 * both / (len(a) + len(b))


def normalised(text: str) -> str:
    """Return the words of a text as SQuAD's own evaluation compares them."""
    text = "".join(x for x in text.lower() if x not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())
