"""Checkpoints that are refused, each with its damaged folder."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import torch as safetensors_torch

from hybrid import huggingface
from hybrid.model import HybridLM
from tests.huggingface.jambas import HYBRID, VOCAB, WIDTH, ours_of


def refused(folder: Path, message: str, monkeypatch) -> None:
    """Check that the folder is refused before any weight is allocated."""

    def never(*_args, **_options):
        raise AssertionError("memory for weights was allocated")

    monkeypatch.setattr(HybridLM, "to_empty", never)
    with pytest.raises(ValueError, match=message):
        huggingface.load(folder)


def rewrite(path: Path, change) -> None:
    tensors = safetensors_torch.load_file(path)
    change(tensors)
    safetensors_torch.save_file(tensors, path, metadata={"format": "pt"})


CHANGES = {
    r"model.layers.0.mamba.A_log: missing tensor": lambda t: t.pop("model.layers.0.mamba.A_log"),
    r"lm_head.weight: missing tensor": lambda t: t.pop("lm_head.weight"),
    r"experts.3.up_proj.weight: missing tensor": lambda t: t.pop(
        "model.layers.1.feed_forward.experts.3.up_proj.weight"
    ),
    r"model.layers.9.norm: surplus tensor in model.safetensors": lambda t: t.update(
        {"model.layers.9.norm": torch.ones(2)}
    ),
    r"self_attn.q_proj.bias: surplus tensor": lambda t: t.update(
        {"model.layers.2.self_attn.q_proj.bias": torch.ones(16)}
    ),
    r"conv1d.weight: shape \[32, 4\] must be \[32, 1, 4\]": lambda t: t.update(
        {"model.layers.0.mamba.conv1d.weight": torch.ones(32, 4)}
    ),
    r"k_proj.weight: shape \[16, 16\] must be \[8, 16\]": lambda t: t.update(
        {"model.layers.2.self_attn.k_proj.weight": torch.ones(16, 16)}
    ),
    r"model.embed_tokens.weight: dtype I64 must be one of": lambda t: t.update(
        {"model.embed_tokens.weight": torch.ones(64, 16, dtype=torch.long)}
    ),
    r"model.layers.0.mamba.D: dtype F64 must be one of": lambda t: t.update(
        {"model.layers.0.mamba.D": torch.ones(32, dtype=torch.float64)}
    ),
}


@pytest.mark.parametrize(("message", "change"), CHANGES.items(), ids=CHANGES)
def test_wrong_tensors_are_refused_by_name(message, change, folder, monkeypatch):
    rewrite(folder / "model.safetensors", change)
    refused(folder, message, monkeypatch)


def test_an_unembedding_of_its_own_is_surplus_where_it_is_tied(tmp_path, monkeypatch):
    huggingface.save(ours_of(replace(HYBRID, tied=True)), tmp_path / "m")
    new = {"lm_head.weight": torch.ones(VOCAB, WIDTH)}
    rewrite(tmp_path / "m" / "model.safetensors", lambda t: t.update(new))
    refused(tmp_path / "m", "lm_head.weight: surplus tensor", monkeypatch)


@pytest.mark.parametrize("cut", [0, 4, 300, -1, -5000])
def test_a_truncated_file_is_refused_by_name(cut, folder, monkeypatch):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    refused(folder, "^model.safetensors: not a whole safetensors file", monkeypatch)


def test_a_truncated_shard_is_refused_by_name(sharded, monkeypatch):
    path = sorted(sharded.glob("*.safetensors"))[2]
    path.write_bytes(path.read_bytes()[:-1])
    refused(sharded, f"^{path.name}: not a whole safetensors file", monkeypatch)


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
def test_a_pickle_is_refused_and_never_opened(name, zipped, folder, tmp_path, monkeypatch):
    (folder / "model.safetensors").unlink()
    if zipped:
        torch.save({"w": Bomb(tmp_path / "opened")}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "opened")))
    refused(folder, name, monkeypatch)
    assert not (tmp_path / "opened").exists()


def test_an_index_of_pickles_is_refused(folder, tmp_path, monkeypatch):
    (folder / "model.safetensors").unlink()
    (folder / "a.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "opened")))
    index = {"weight_map": {"lm_head.weight": "a.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "lm_head.weight is in 'a.bin', which must be a .safetensors", monkeypatch)
    assert not (tmp_path / "opened").exists()


def test_a_missing_shard_is_refused_by_name(sharded, monkeypatch):
    path = sorted(sharded.glob("*.safetensors"))[1]
    path.unlink()
    refused(sharded, f"^{path.name}: .* names this file, but", monkeypatch)


def change_index(folder: Path, change) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


INDICES = {
    "weight_map=None must be an object": lambda index: index.pop("weight_map"),
    r"weight_map=\{\} must be an object": lambda index: index["weight_map"].clear(),
    r"lm_head.weight is in '../x.safetensors', which must be": lambda index: index[
        "weight_map"
    ].update({"lm_head.weight": "../x.safetensors"}),
    r"lm_head.weight is in 3, which must be": lambda index: index["weight_map"].update(
        {"lm_head.weight": 3}
    ),
    r"A_log: .* says it is in model-00001-of-.*; it is in model-0000[2-9]": lambda index: index[
        "weight_map"
    ].update({"model.layers.3.mamba.A_log": index["weight_map"]["model.embed_tokens.weight"]}),
    r"absent: .* says it is in .*; it is in None": lambda index: index["weight_map"].update(
        {"absent": index["weight_map"]["lm_head.weight"]}
    ),
}


@pytest.mark.parametrize(("message", "change"), INDICES.items(), ids=INDICES)
def test_a_wrong_index_is_refused_by_name(message, change, sharded, monkeypatch):
    change_index(sharded, change)
    refused(sharded, message, monkeypatch)


def test_surplus_and_doubled_files_are_refused_by_name(folder, sharded, monkeypatch):
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shutil.copy(shard, folder / "spare.safetensors")
    refused(folder, "^spare.safetensors: surplus file", monkeypatch)
    rewrite(sharded / shard.name, lambda t: t.update({"lm_head.weight": torch.ones(64, 16)}))
    refused(sharded, "^lm_head.weight: in both", monkeypatch)


def test_folders_without_their_files_are_refused_by_name(folder, tmp_path, monkeypatch):
    refused(tmp_path / "nowhere", "^config.json: .* has no such file", monkeypatch)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    refused(folder, "^model.safetensors: .* has neither it nor", monkeypatch)
    (folder / "config.json").write_text("{")
    refused(folder, "^config.json: not JSON", monkeypatch)
    (folder / "config.json").write_text("[]")
    refused(folder, "^config.json: must be a JSON object", monkeypatch)
