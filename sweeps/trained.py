"""Trained: a model with its weights and its tokenizer, from a run or from a folder.

    trained = find("ratio-cpu-1to7-s0-3f9c2a1b", folder=results.LOCAL)   # a run with kept weights
    trained = find("some/folder", folder=results.LOCAL)                  # a Jamba in safetensors

What is done with it afterwards, text or an evaluation, does not ask which of the two it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from hybrid import codec, huggingface
from hybrid import ops as backends
from hybrid.huggingface.reader import read_json
from hybrid.model import HybridLM
from hybrid.ops import Ops
from hybrid.spec import ModelSpec, require
from sweeps import results
from sweeps.exchange import tokenizer_of
from sweeps.trial import records, weights
from sweeps.trial.data.sources import Source
from sweeps.trial.data.tokenizer import SEPARATOR_ID
from sweeps.trial.device import choose_device
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Record

KEEP = "python -m sweeps run ratio --scale smoke --keep-weights"  # the quickest that keeps weights


@dataclass(frozen=True, kw_only=True)
class Words:
    """Text to tokens and back, and the tokens that stand between texts."""

    encode: Callable[[str], list[int]]  # a text from its beginning, with what marks that
    encode_more: Callable[[str], list[int]]  # a text that goes on
    decode: Callable[[Sequence[int]], str]
    begin_id: int  # what an empty prompt is instead
    end_id: int  # what ends a text


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that can read and write text."""

    name: str  # as it was asked for
    model: HybridLM
    words: Words
    record: Record | None  # None for a folder

    @property
    def source(self) -> Source | None:
        """Return the text it was trained on, None where that is not known."""
        return None if self.record is None else codec.loads(Recipe, self.record.recipe).source


def find(name: str, *, folder: Path, device: str = "auto", ops: str = "auto") -> Trained:
    """Return the run of this id among the results in `folder`, or the model in the folder `name`.

    Raises LookupError for a run that is not there, FileNotFoundError for one that kept no weights,
    and ValueError for a folder or a text that does not give the model.
    """
    where = choose_device(device)
    chosen = backends.find(ops, where)
    if Path(name).is_dir():
        return _of_folder(Path(name), where, chosen)
    return _of_run(name, folder, where, chosen)


def with_weights(folder: Path) -> list[str]:
    """Return the ids of the runs under `folder` that kept their weights."""
    return sorted(
        record.run_id
        for sweep_folder in results.sweeps(folder)
        for record in records.read(sweep_folder)
        if weights.path_of(record, sweep_folder).exists()
    )


def _of_run(run_id: str, folder: Path, device: torch.device, ops: Ops) -> Trained:
    try:
        record, sweep_folder = results.find(run_id, folder=folder)
    except LookupError:
        raise LookupError(
            f"{run_id!r} is neither a folder nor a run under {folder}; runs there that kept their "
            f"weights: {_some(with_weights(folder))}. `{KEEP}` makes some"
        ) from None
    path = weights.path_of(record, sweep_folder)
    if not path.exists():
        raise FileNotFoundError(
            f"{run_id} kept no weights; runs under {folder} that did: "
            f"{_some(with_weights(folder))}. Run its sweep with --keep-weights into another "
            "--results folder"
        )
    tokenizer = tokenizer_of(record, sweep_folder)
    return Trained(
        name=run_id,
        model=weights.load(codec.loads(ModelSpec, record.spec), path, device, ops).eval(),
        words=Words(
            encode=tokenizer.encode,
            encode_more=tokenizer.encode,
            decode=tokenizer.decode,
            begin_id=SEPARATOR_ID,
            end_id=SEPARATOR_ID,
        ),
        record=record,
    )


def _of_folder(folder: Path, device: torch.device, ops: Ops) -> Trained:
    path = folder / "tokenizer.json"
    require(path.is_file(), f"{path.name}: {folder} has no such file; text needs a tokenizer")
    model = huggingface.load(folder, ops=ops, device=device).eval()
    return Trained(
        name=str(folder),
        model=model,
        words=_words(folder, model.spec.vocab),
        record=None,
    )


def _words(folder: Path, vocab: int) -> Words:
    """Return what turns text into tokens of the model in `folder`, and the tokens between texts.

    Raises ValueError, naming the file, for a token id that the model's vocabulary does not have.
    """
    library = _tokenizer(folder / "tokenizer.json", vocab)
    about, config = folder / "tokenizer_config.json", read_json(folder / "config.json")
    if about.is_file():  # tokenizer.json does not keep this setting
        library.encode_special_tokens = bool(read_json(about).get("split_special_tokens"))
    end = _token_id(folder, config, "eos_token_id", vocab)
    has_begin = config.get("bos_token_id") is not None
    return Words(
        encode=lambda text: library.encode(text).ids,
        encode_more=lambda text: library.encode(text, add_special_tokens=False).ids,
        decode=lambda ids: library.decode(list(ids), skip_special_tokens=False),
        begin_id=_token_id(folder, config, "bos_token_id", vocab) if has_begin else end,
        end_id=end,
    )


def _tokenizer(path: Path, vocab: int) -> Tokenizer:
    """Return the tokenizer of a file, whose token ids must all lie in the model's vocabulary."""
    try:
        library = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises the bare class for whatever is wrong
        raise ValueError(f"{path}: not a tokenizer of the library tokenizers: {error}") from error
    highest = max(library.get_vocab(with_added_tokens=True).values(), default=0)
    require(
        highest < vocab,
        f"{path}: its highest token id is {highest}, but the model has the {vocab} tokens 0 to "
        f"{vocab - 1}",
    )
    library.no_truncation()  # both are of a batch in training, and kept in the file
    library.no_padding()
    return library


def _token_id(folder: Path, config: dict[str, Any], key: str, vocab: int) -> int:
    """Return the token id that `key` of config.json has; ValueError unless the model has it."""
    found = config.get(key)
    require(
        type(found) is int and 0 <= found < vocab,
        f"{folder / 'config.json'}: {key}={found!r} must be the number of a token, 0 to "
        f"{vocab - 1}",
    )
    assert isinstance(found, int)
    return found


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
