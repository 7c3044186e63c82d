"""The weights of a trained run: safetensors, whole or not at all, and read into their own spec.

weights/RUN-0.safetensors
weights/RUN-0.tokenizer.json     of text: the run is used without its text afterwards
"""

import os
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hybrid.model import HybridLM, build
from hybrid.ops import Ops
from hybrid.spec import ModelSpec
from sweeps.trial.data.cache import write_atomically
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Record


def path_of(record: Record, folder: Path) -> Path:
    """Return where the weights of this run and attempt lie under `folder`."""
    return folder / "weights" / f"{record.run_id}-{record.attempt}.safetensors"


def tokenizer_path(path: Path) -> Path:
    """Return where the tokenizer of the run lies whose weights are at `path`."""
    return path.with_suffix(".tokenizer.json")


def keep(model: HybridLM, recipe: Recipe, path: Path) -> None:
    """Write the model's parameters to `path` and beside them the tokenizer of a run on text."""
    if not isinstance(recipe.source, Synthetic):
        tokenizer = open_tokens(recipe.source, model.spec.vocab).tokenizer
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(tokenizer_path(path), tokenizer.json_text.encode())
    save(model, path)


def save(model: HybridLM, path: Path) -> None:
    """Write the model's parameters to `path`, by their own names, a tied one once.

    Raises ValueError, before anything is written, for a model that also holds what is no parameter:
    experts in 8 bits would be missing in the file.
    """
    if left_out := [name for name, _ in model.named_buffers()]:
        raise ValueError(
            f"{path}: {left_out[0]} and {len(left_out) - 1} more tensors are no parameters, and "
            "weights are saved from parameters alone; save the model before its experts are put "
            "into 8 bits"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        save_file({name: p.detach().cpu() for name, p in model.named_parameters()}, scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def load(
    spec: ModelSpec,
    path: Path,
    device: torch.device | str = "cpu",
    ops: Ops | None = None,
) -> HybridLM:
    """Return the model of `spec` with the weights in `path`; `ops` is chosen as in `build`.

    Raises FileNotFoundError where there are none, and ValueError for a file that is not whole or
    does not fit the spec, naming it.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: this run kept no weights. Run its sweep with --keep-weights "
            "into another --results folder"
        )
    model = build(spec, ops=ops, device=device)
    try:
        found = load_file(path, device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    wanted = dict(model.named_parameters())
    if odd := sorted(found.keys() ^ wanted.keys()):
        raise ValueError(f"{path} does not fit its spec: {odd[0]} is on one side only")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if found[name].shape != parameter.shape:
                raise ValueError(
                    f"{path}: {name} has shape {tuple(found[name].shape)}, "
                    f"its spec wants {tuple(parameter.shape)}"
                )
            parameter.copy_(found[name])
    return model
