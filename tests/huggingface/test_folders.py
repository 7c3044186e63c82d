"""Shards, tokenizer and memory; a folder appears whole or not at all."""

import gc
import subprocess
import sys
import weakref
from dataclasses import replace

import pytest
import torch

from hybrid import huggingface, ops
from hybrid.huggingface import reader, writer
from hybrid.model import build
from sweeps.trial.data import tokenizer as byte_bpe
from tests.huggingface.jambas import HYBRID, close, ids, ours_of
from tests.huggingface.theirs import opened, theirs_of, transformers


def test_shards_written_by_us_open_in_both(tmp_path):
    ours = ours_of(HYBRID)
    huggingface.save(ours, tmp_path / "m", max_shard_bytes=10_000)
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(shards) > 3
    assert all(shard.stat().st_size < 10_000 + 4_000 for shard in shards)  # names take room too
    logits = ours(ids()).logits_BTV
    assert torch.equal(
        huggingface.load(tmp_path / "m", ops=ops.REFERENCE)(ids()).logits_BTV, logits
    )
    close(logits, opened(tmp_path / "m")(ids()).logits)


def test_shards_written_by_them_open_in_ours(tmp_path):
    theirs = theirs_of(HYBRID)
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 3
    close(huggingface.load(tmp_path)(ids()).logits_BTV, theirs(ids()).logits)


def test_a_tokenizer_gives_the_same_tokens_in_theirs(tmp_path):
    text = "the cat's sat on 12 mats;\n\n  the Café's mats sat, " * 20
    trained = byte_bpe.train([text], vocab=280)
    tokenizer = huggingface.Tokenizer(json_text=trained.json_text, separator=byte_bpe.SEPARATOR)
    model = build(replace(HYBRID, vocab=280), ops=ops.REFERENCE)
    huggingface.save(model, tmp_path / "m", tokenizer=tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    for piece in [text, "é\t🙂 don't", f"quoted {byte_bpe.SEPARATOR} here", "", "  a  b .  c "]:
        assert theirs.encode(piece) == trained.encode(piece)
        assert theirs.decode(trained.encode(piece)) == trained.decode(trained.encode(piece))
    assert theirs.eos_token_id == theirs.bos_token_id == byte_bpe.SEPARATOR_ID
    assert len(theirs) == trained.vocab
    config = opened(tmp_path / "m").config
    assert config.bos_token_id == config.eos_token_id == byte_bpe.SEPARATOR_ID
    assert config.pad_token_id is None
    assert huggingface.load(tmp_path / "m").spec == model.spec


def test_a_tokenizer_without_its_separator_is_refused(tmp_path):
    trained = byte_bpe.train(["a b"], vocab=257)
    tokenizer = huggingface.Tokenizer(json_text=trained.json_text, separator="</s>")
    with pytest.raises(ValueError, match=r"separator='</s>' must be one of its special tokens"):
        huggingface.save(ours_of(HYBRID), tmp_path / "m", tokenizer=tokenizer)
    assert not (tmp_path / "m").exists()


def test_loading_holds_one_tensor_of_the_file_at_a_time(tmp_path, monkeypatch):
    alive: list[weakref.ref] = []
    reads = 0

    class Watched:
        def __init__(self, *args, **options):
            self.file = real(*args, **options)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error):
            self.file.__exit__(*error)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def get_tensor(self, name):
            nonlocal reads
            reads += 1
            assert not [ref for ref in alive if ref() is not None]
            tensor = self.file.get_tensor(name)
            alive.append(weakref.ref(tensor))
            return tensor

    gc.collect()
    huggingface.save(ours_of(HYBRID), tmp_path / "m", max_shard_bytes=10_000)
    real = reader.safe_open
    monkeypatch.setattr(reader, "safe_open", Watched)
    model = huggingface.load(tmp_path / "m")
    assert reads == len(huggingface.views(model))


# --- folders appear whole or not at all


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(FileExistsError, match="exists; give a folder that does not"):
        huggingface.save(ours_of(HYBRID), tmp_path / "m")
    assert [*(tmp_path / "m").iterdir()] == []


def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch):
    real, written = writer.save_file, []

    def fails_at_the_third(tensors, path, metadata):
        real(tensors, path, metadata=metadata)
        written.append(path)
        assert not (tmp_path / "m").exists()
        if len(written) == 3:
            raise OSError("disk full")

    monkeypatch.setattr(writer, "save_file", fails_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        huggingface.save(ours_of(HYBRID), tmp_path / "m", max_shard_bytes=10_000)
    assert [*tmp_path.iterdir()] == []


WITHOUT = """
import sys
sys.modules.update(safetensors=None, transformers=None)
import hybrid.cost, hybrid.generate, hybrid.model, hybrid.presets
try:
    import hybrid.huggingface
except ImportError as error:
    print(error)
del sys.modules["safetensors"]
from hybrid.huggingface import load, save
save(load(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
def test_only_the_exchange_needs_safetensors_and_nothing_transformers(folder, tmp_path):
    command = [sys.executable, "-c", WITHOUT, str(folder), str(tmp_path / "again")]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "needs safetensors: pip install 'hybrid-workbench[hf]'" in run.stdout
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
