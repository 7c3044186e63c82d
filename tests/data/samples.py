"""Documents made up by a seed, and what a trial sees of their tokens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.trial.data.batches import train_batch
from sweeps.trial.data.sources import TextFile

ROOT = Path(__file__).parents[2]
VOCAB = 300


def words(n_documents, seed=0):
    """Distinct documents of a few hundred bytes, alike enough for a tokenizer to find merges."""
    rng = np.random.default_rng(seed)
    common = [
        "state",
        "space",
        "model",
        "attention",
        "hybrid",
        "layer",
        "token",
        "router",
        "expert",
    ]
    common += ["prefill", "decode"]
    return [
        f"{number}: " + " ".join(rng.choice(common, size=60)) + "." for number in range(n_documents)
    ]


def write_jsonl(path, texts, field="text"):
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts), encoding="utf-8")
    return TextFile(path=str(path), text_field=field)


def a_parquet(path):
    pd.DataFrame({"text": words(100), "label": range(100)}).to_parquet(path)


def contents(tokens):
    """All that a trial can see of tokens, as plain values."""
    return (
        tokens.tokenizer.json_text,
        tokens.text_sha256,
        tokens.domains,
        dict(tokens.mixture),
        [
            (domain, split, stream.ids.tolist(), stream.text_bytes, stream.documents)
            for domain, by_split in tokens.streams.items()
            for split, stream in by_split.items()
        ],
    )


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def never(*arguments):
    raise AssertionError("the text was read although its tokens were cached")


def draw(tokens, *, seed=0, step=0, batch=4, length=16):
    return train_batch(tokens, seed=seed, step=step, batch=batch, length=length)
