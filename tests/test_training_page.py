"""docs/training.md: its example runs as it is printed, and names what there is."""

import re
from dataclasses import fields
from pathlib import Path

from hybrid.spec import Init
from sweeps.trial.recipe import WSD, OptimizerName, Recipe
from sweeps.trial.record import Record
from tests.text import write_text

TEXT = (Path(__file__).parents[1] / "docs/training.md").read_text()


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HYBRID_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "tale.txt")
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/training.md", "exec"), {"__name__": "training"})
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == [n * 4 * 64 for n in (10, 20, 40)]
    assert [line.endswith("None") for line in lines] == [False, False, True]


def test_the_page_names_what_there_is():
    known = {f.name for kind in (Recipe, Record, WSD) for f in fields(kind)}
    asked = {"schedule", "optimizer", "lr_base_width", "test_tokens", "measure_context"}
    asked |= {"warmup_steps", "decay_fraction", "branches", "branch_of"}
    asked |= {f.name for f in fields(Record) if f.name.startswith("context_")}
    assert asked <= known
    assert all(name in TEXT for name in asked)
    assert all(f"`{init}`" in TEXT for init in Init)
    assert all(f"OptimizerName.{name.name}" in TEXT for name in OptimizerName if name != "adamw")
