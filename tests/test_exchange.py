"""A trained run leaves as a folder that transformers opens, and comes back with the same loss."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from sweeps import cli, exchange, results
from sweeps.trial.data.batches import bits_per_byte, held_out, text_bytes
from sweeps.trial.data.documents import Split
from sweeps.trial.data.sources import Synthetic
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.tasks import Probe, Recall
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Record
from tests import trained

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")


@pytest.fixture
def exported(source, tmp_path) -> tuple[Record, Recipe, Path]:
    """A run that kept its weights, in results/ of its own."""
    recipe = replace(trained.recipe(source, steps=20), valid_tokens=16_384)
    folder = tmp_path / "results"
    return trained.run(recipe, folder), recipe, folder


def test_transformers_opens_an_exported_run_and_measures_the_recorded_loss(exported, tmp_path):
    record, recipe, folder = exported
    out = tmp_path / "out"
    command = ["export", record.run_id, str(out), "--results", str(folder)]
    assert CliRunner().invoke(cli.app, command).exit_code == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, use_mamba_kernels=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    tokens = open_tokens(recipe.source, trained.SPEC.vocab)
    text = "Some of its own words: bafu kelo."
    assert tokenizer(text)["input_ids"] == tokens.tokenizer.encode(text)
    nats = n_bytes = 0.0
    with torch.no_grad():
        for ids_BT, targets_BT in held_out(
            tokens,
            split=Split.VALID,
            domain="text",
            length=recipe.tokens,
            batch=recipe.batch,
            limit_tokens=recipe.valid_tokens,
        ):
            logits_BTV = theirs(ids_BT, use_cache=False).logits
            nats += F.cross_entropy(
                logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum"
            ).item()
            n_bytes += text_bytes(tokens, targets_BT)
    measured = bits_per_byte(nats=nats, n_bytes=int(n_bytes))
    assert measured == pytest.approx(record.valid_bits_per_byte["text"], rel=1e-5)


def test_what_was_exported_is_imported_with_its_loss(exported, tmp_path):
    record, recipe, folder = exported
    out = tmp_path / "out"
    run = CliRunner().invoke
    run(cli.app, ["export", record.run_id, str(out), "--results", str(folder)])
    read = run(cli.app, ["import", str(out), "--text", recipe.source.path, "--tokens", "32"])
    assert read.exit_code == 0, read.output
    assert "attention:Mamba 1:3" in read.output
    assert f"{record.params:,} parameters, {record.active_params:,} active" in read.output
    shown = float(read.output.split("text ")[1].split()[0])
    # The command lets the device choose its precision; the record is in fp32.
    assert shown == pytest.approx(record.valid_bits_per_byte["text"], rel=5e-3)


def test_a_run_on_tasks_is_exported_without_a_tokenizer(exported, tmp_path):
    _, recipe, folder = exported
    source = Synthetic(tasks=(Recall(),), probes=(Probe(task=Recall(), length=32),))
    record = trained.run(replace(recipe, source=source, steps=1), folder)
    out = tmp_path / "out"
    command = ["export", record.run_id, str(out), "--results", str(folder)]
    assert CliRunner().invoke(cli.app, command).exit_code == 0
    assert not (out / "tokenizer.json").exists()
    assert (out / "config.json").exists()


def test_a_run_is_exported_without_its_text_once_its_weights_are_kept(
    exported, tmp_path, monkeypatch
):
    record, _, folder = exported
    monkeypatch.setattr(exchange, "open_tokens", None)  # the text is gone, and the cache too
    out = tmp_path / "out"
    exchange.export(record.run_id, out, folder=folder)
    assert (out / "tokenizer.json").exists()
    (path,) = folder.rglob("*.tokenizer.json")
    path.write_text((out / "tokenizer.json").read_text() + "\n")
    with pytest.raises(ValueError, match=r"was trained with tokenizer .* now gives"):
        exchange.export(record.run_id, tmp_path / "again", folder=folder)


def test_an_export_that_cannot_be_says_why(exported, tmp_path):
    record, _, folder = exported
    run = CliRunner().invoke
    lost = run(cli.app, ["export", "no-such-run", str(tmp_path / "x"), "--results", str(folder)])
    assert lost.exit_code == 2
    assert "no run 'no-such-run'" in " ".join(lost.stderr.split())
    taken = run(cli.app, ["export", record.run_id, str(tmp_path), "--results", str(folder)])
    assert taken.exit_code == 2
    assert "exists; give a folder that does not" in " ".join(taken.stderr.split())
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    gone = run(cli.app, ["export", record.run_id, str(tmp_path / "y"), "--results", str(folder)])
    assert "this run kept no weights" in " ".join(gone.stderr.split())
    assert not (tmp_path / "y").exists()


def test_a_run_is_found_by_its_id(exported):
    record, _, folder = exported
    assert results.find(record.run_id, folder=folder) == (record, folder / "tiny")
