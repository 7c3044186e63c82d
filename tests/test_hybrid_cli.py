"""python -m hybrid: what it prints, and how it refuses."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from hybrid import __main__ as cli
from hybrid import codec, machine, units
from hybrid.devices import Device
from hybrid.presets import JAMBA_TINY_DEV, PRESETS

TOY = Device(
    name="this",
    memory_bytes=10**9,
    bytes_per_s=1e9,
    fp32_flops_per_s=1e12,
    bf16_flops_per_s=1e12,
)


def invoke(command: str):
    return CliRunner().invoke(cli.app, shlex.split(command))


def said(command: str) -> str:
    result = invoke(command)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_a_card_of_the_released_model():
    card = said("cost jamba-v0.1 --context 256k")
    assert "Cost at 262,144 tokens, batch 1, bf16" in card
    for figure in ("51.6B", "12.1B", "103 GB", "4 GiB", "experts", "scan", "activations"):
        assert figure in card
    assert "80 GB" in card  # the device's own memory


def test_a_comparison_shows_the_papers_ratios():
    table = said("cost jamba-v0.1 --context 256k --compare mixtral-8x7b llama-2-70b")
    for figure in ("Table 1", "Figure 2", "2.00x", "7.00x", "6.10x", "140,000", "Assumed:"):
        assert figure in table
    assert "How close, prompt read at once: Jamba's context is 0.83 of the paper's" in table


def test_other_comparisons_leave_the_paper_out():
    table = said("cost llama-2-7b mistral-7b --compare --weights int8 --memory 24GB --chunk all")
    assert "Figure 2" not in table
    assert "prompt read at once; memory 24 GB" in table


def test_a_spec_file_costs_as_its_preset(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(codec.dumps(JAMBA_TINY_DEV))
    assert said(f"cost {path}").count("319M") == said("cost jamba-tiny-dev").count("319M") > 0


def test_the_machine_at_hand_is_measured(monkeypatch):
    monkeypatch.setattr(machine, "this_machine", lambda: TOY)
    assert "Bounds are of this: 1 GB/s, 1 TFLOP/s fp32" in said("cost jamba-tiny-dev --device this")


def test_measured_rates_are_above_0(monkeypatch):
    monkeypatch.setattr(machine, "COPY_BYTES", {"cpu": 1 << 22, "cuda": 1 << 22})
    monkeypatch.setattr(machine, "SIDE", {"cpu": 64, "cuda": 64})
    device = machine.this_machine()  # which checks itself
    assert device.name == "this"
    assert device.memory_bytes > 1 << 28


def test_a_plan_places_the_released_model():
    plan = said("plan --memory 80GB --context 256k --batch 1 --min-active 12B --min-attention 4")
    assert "1:7 n=16 K=2 e=2 <- jamba-v0.1" in plan
    assert "jamba-v0.1 (1:7 n=16 K=2 e=2) fits; on the front" in plan
    assert "Rank among 45: capacity 4" in plan


def test_a_plan_of_another_base(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(codec.dumps(JAMBA_TINY_DEV))
    plan = said(f"plan --memory 2GB --context 4k --base {path} --weights bf16 --top 3")
    assert "<- mine" in plan
    assert "Shown are the 3 largest" in plan


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cost jamba", f"there is no model 'jamba'; there are: {', '.join(PRESETS)}"),
        ("cost nowhere.json", "No such file or directory: 'nowhere.json'"),
        ("cost broken.json", "broken.json: Expecting property name"),
        ("cost wrong.json", "wrong.json: ModelSpec: unknown key 'depth'; known keys are"),
        ("cost jamba-v0.1 --context 256kB", "context '256kB' must be a number of tokens such as"),
        ("cost jamba-v0.1 --context 0", "context '0' is 0; it must be a whole number of 1 or more"),
        ("cost jamba-v0.1 --context 0.3", "context '0.3' is 0.3; it must be a whole number"),
        ("cost jamba-v0.1 --memory 80", "memory '80' must be a size with its unit, such as 80GB"),
        ("cost jamba-v0.1 --memory=-1GB", "memory '-1GB' must be a size with its unit"),
        ("cost jamba-v0.1 --device a100", "there is no device 'a100'; there are: a100-80gb-sxm"),
        ("cost jamba-v0.1 --chunk some", "context 'some' must be a number of tokens"),
        ("cost jamba-v0.1 --weights int4", "'int4' is not one of 'fp32', 'bf16', 'int8'"),
        ("plan --memory 1GB", "no setting of the family meets the budget"),
        ("plan --max-flops many", "count 'many' must be a number such as 12B"),
        ("plan --base mamba", "there is no model 'mamba'"),
    ],
)
def test_what_is_wrong_is_one_sentence(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "wrong.json").write_text('{"kind": "ModelSpec", "depth": 3}')
    result = invoke(command)
    assert result.exit_code == 2
    words = re.sub(r"[\s│]+", " ", result.stderr)
    assert message in words
    assert "Traceback" not in result.output


def test_docs_writes_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.docs, "page", lambda: "the page\n")
    (tmp_path / "docs").mkdir()
    assert said("docs") == "wrote docs/cost.md"
    assert (tmp_path / "docs/cost.md").read_text() == "the page\n"


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.parse_context, "4096", 4096),
        (units.parse_context, "256k", 262_144),
        (units.parse_context, "1M", 1 << 20),
        (units.parse_context, "262,144", 262_144),
        (units.parse_memory, "80GB", 80 * 10**9),
        (units.parse_memory, "80 GiB", 80 << 30),
        (units.parse_memory, "1.5kB", 1500),
        (units.parse_count, "12B", 12 * 10**9),
        (units.parse_count, "0.5M", 500_000),
    ],
)
def test_numbers_as_people_write_them(parse, text, value):
    assert parse(text) == value
