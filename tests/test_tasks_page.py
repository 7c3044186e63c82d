"""docs/tasks.md: its example runs as it is printed, and names what there is."""

import re
from dataclasses import fields
from pathlib import Path

from sweeps.controls import CONTROLS
from sweeps.trial.data.tasks import Filler
from sweeps.trial.heads import DRAWS, THRESHOLD
from sweeps.trial.recipe import Criterion, Recipe
from sweeps.trial.record import Record

TEXT = (Path(__file__).parents[1] / "docs/tasks.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_example_runs(capsys):
    (code,) = CODE
    exec(compile(code, "docs/tasks.md", "exec"), {"__name__": "tasks"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CONTROLS)
    for name, line in zip(CONTROLS, lines, strict=True):
        assert line == f"{name} {4 * 8 * 64} {{}} 0.125"


def test_the_page_names_what_there_is():
    known = {f.name for kind in (Recipe, Record, Criterion) for f in fields(kind)}
    asked = {"criterion", "accuracy", "every", "keys", "schedule", "measure_heads"}
    asked |= {"tokens_to_accuracy", "task_floor", "induction_heads_removed_accuracy"}
    assert asked <= known
    assert all(name in TEXT for name in asked)
    assert all(f"Filler.{filler.name}" in TEXT for filler in Filler)
    assert f"above {THRESHOLD:g} (`above`)" in TEXT
    assert f"mean over {DRAWS} draws" in TEXT
