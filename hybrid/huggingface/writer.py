"""A model as a folder that transformers' `AutoModelForCausalLM.from_pretrained` opens as Jamba."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hybrid.huggingface.config import config_of
from hybrid.huggingface.names import views
from hybrid.model import HybridLM
from hybrid.spec import require

try:
    from safetensors.torch import save_file
except ImportError as error:
    raise ImportError(
        "hybrid.huggingface needs safetensors: pip install 'hybrid-workbench[hf]'"
    ) from error

MAX_SHARD_BYTES = 5_000_000_000  # one file of weights holds no more, unless one tensor does
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """What a tokenizer of the `tokenizers` library lives on as."""

    json_text: str
    separator: str  # the token that stands between documents

    @property
    def separator_id(self) -> int:
        """The separator's number; ValueError if the JSON has no such special token."""
        data = json.loads(self.json_text)
        added = data.get("added_tokens", []) if isinstance(data, dict) else []
        ids = {token["content"]: token["id"] for token in added if token["special"]}
        require(
            self.separator in ids,
            f"Tokenizer: separator={self.separator!r} must be one of its special tokens {[*ids]}",
        )
        return ids[self.separator]


def save(
    model: HybridLM,
    folder: Path | str,
    *,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write `model`, and the tokenizer if there is one, as the new folder `folder`.

    The folder appears whole or not at all: it is written under another name beside its place and
    then renamed. Raises, before anything is written, ValueError for a model that transformers'
    Jamba cannot be, such as one with experts in 8 bits, and FileExistsError if the folder is there.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"save: {folder} exists; give a folder that does not")
    separator_id = None if tokenizer is None else tokenizer.separator_id
    config = config_of(model.spec, separator_id=separator_id)
    tensors = views(model)
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    scratch.mkdir(parents=True)
    try:
        _write_json(scratch / "config.json", config)
        if tokenizer is not None:
            _write_tokenizer(scratch, tokenizer)
        _write_weights(scratch, tensors, max_shard_bytes)
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch)
        raise


def _write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    (folder / "tokenizer.json").write_text(tokenizer.json_text, encoding="utf-8")
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizer.separator,
        "eos_token": tokenizer.separator,
        "clean_up_tokenization_spaces": False,
        # A text that quotes the separator is not the end of a document.
        "split_special_tokens": True,
    }
    _write_json(folder / "tokenizer_config.json", about)


def _write_weights(folder: Path, tensors: dict[str, Tensor], max_shard_bytes: int) -> None:
    shards = list(_shards(tensors, max_shard_bytes))
    if len(shards) == 1:
        _write_shard(folder / WEIGHTS, shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, shard)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(tensors: dict[str, Tensor], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Yield `tensors` in their order, as many at a time as `max_bytes` hold, at least one."""
    shard: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if shard and sum(x.nbytes for x in shard.values()) + tensor.nbytes > max_bytes:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    here = {name: tensor.cpu() for name, tensor in tensors.items()}
    save_file(here, path, metadata={"format": "pt"})  # as `save_pretrained` writes it


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
