"""A model from a folder of transformers' Jamba: all of it is checked before any of it is loaded.

Weights come from safetensors only. A pickle can run code when it is opened, so none ever is.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid import ops as backends
from hybrid.huggingface.config import spec_of
from hybrid.huggingface.names import views
from hybrid.huggingface.writer import INDEX, WEIGHTS
from hybrid.model import HybridLM
from hybrid.ops import Ops
from hybrid.spec import require

try:
    from safetensors import SafetensorError, safe_open
except ImportError as error:
    raise ImportError(
        "hybrid.huggingface needs safetensors: pip install 'hybrid-workbench[hf]'"
    ) from error

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
DTYPES = ("F32", "BF16", "F16")  # what fp32 holds exactly


def load(
    folder: Path | str, *, ops: Ops | None = None, device: torch.device | str = "cpu"
) -> HybridLM:
    """Return the model that the folder holds, in fp32 on `device`.

    Tensors are read one after the other into the model's own memory. `ops` is chosen as in
    `hybrid.model.build`. Raises ValueError, naming the file, the key or the tensor, unless the
    configuration is one that `spec_of` accepts and the files hold exactly its tensors.
    """
    folder = Path(folder)
    spec = spec_of(read_json(folder / "config.json"))
    ops = backends.best_for(torch.device(device)) if ops is None else ops
    with torch.device("meta"):
        model = HybridLM(spec, ops)
    with ExitStack() as stack:
        shards = {path: stack.enter_context(_open(path)) for path in _weight_files(folder)}
        _check_tensors(folder, shards, views(model))
        model.to_empty(device=device)
        if spec.tied:
            model.head.weight = model.embed.weight  # to_empty gives every name memory of its own
        _fill(views(model), shards)
    return model


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of the folder; ValueError where there is none."""
    require(path.is_file(), f"{path.name}: {path.parent} has no such file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: not JSON: {error}") from error
    require(isinstance(data, dict), f"{path.name}: must be a JSON object")
    return data


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights; all their names are known to be safetensors."""
    here = {path.name for path in folder.glob("*.safetensors")}
    if (folder / INDEX).exists():
        names = sorted(set(_weight_map(folder).values()))
    else:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        found = f"; {pickles[0]} may be a pickle and is never opened" if pickles else ""
        require(WEIGHTS in here, f"{WEIGHTS}: {folder} has neither it nor {INDEX}{found}")
        names = [WEIGHTS]
    for name in names:
        require(name in here, f"{name}: {INDEX} names this file, but {folder} does not have it")
    surplus = sorted(here.difference(names))
    require(not surplus, f"{''.join(surplus[:1])}: surplus file; the weights are in {names}")
    return [folder / name for name in names]


def _weight_map(folder: Path) -> dict[str, str]:
    """Return the name of the file of each tensor, as the index says."""
    weight_map = read_json(folder / INDEX).get("weight_map")
    require(
        isinstance(weight_map, dict) and len(weight_map) > 0,
        f"{INDEX}: weight_map={weight_map!r} must be an object with a file for each tensor",
    )
    assert isinstance(weight_map, dict)
    for tensor, name in weight_map.items():
        require(
            isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors"),
            f"{INDEX}: {tensor} is in {name!r}, which must be a .safetensors file of this folder",
        )
    return weight_map


def _open(path: Path) -> Any:
    """Return the opened file; its header, and that the file is as long as it says, are checked."""
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name}: not a whole safetensors file: {error}") from error


def _check_tensors(folder: Path, shards: dict[Path, Any], wanted: dict[str, Tensor]) -> None:
    """Check that the shards hold the tensors of `wanted`: all, no others, each of its shape."""
    found: dict[str, str] = {}
    for path, shard in shards.items():
        for name in shard.keys():  # noqa: SIM118 - not a dict
            require(name not in found, f"{name}: in both {found.get(name)} and {path.name}")
            found[name] = path.name
    for name, path_name in found.items():
        require(name in wanted, f"{name}: surplus tensor in {path_name}; this model has none such")
    for name in wanted:
        require(name in found, f"{name}: missing tensor; looked in {sorted(set(found.values()))}")
    if (folder / INDEX).exists():
        for name, path_name in _weight_map(folder).items():
            require(
                found.get(name) == path_name,
                f"{name}: {INDEX} says it is in {path_name}; it is in {found.get(name)}",
            )
    for shard in shards.values():
        for name in shard.keys():  # noqa: SIM118 - not a dict
            _check_one(name, shard.get_slice(name), list(wanted[name].shape))


def _check_one(name: str, header: Any, shape: list[int]) -> None:
    given, dtype = header.get_shape(), header.get_dtype()
    require(given == shape, f"{name}: shape {given} must be {shape}")
    require(dtype in DTYPES, f"{name}: dtype {dtype} must be one of {', '.join(DTYPES)}")


@torch.no_grad()
def _fill(targets: dict[str, Tensor], shards: dict[Path, Any]) -> None:
    for name, shard in _each(shards):
        targets[name].copy_(shard.get_tensor(name))


def _each(shards: dict[Path, Any]) -> Iterator[tuple[str, Any]]:
    for shard in shards.values():
        for name in shard.keys():  # noqa: SIM118 - not a dict
            yield name, shard
