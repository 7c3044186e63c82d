"""The notebooks: their outputs are those of the committed records, and their cells are short."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from notebooks import __main__ as notebooks

README = (Path(__file__).parents[1] / "README.md").read_text()
LONGEST_CELL = 20  # lines
SAME = 0.01  # mean difference of pixels, of 1: a letter drawn otherwise, not another figure
PICTURE = "image/png"

every_notebook = pytest.mark.parametrize("path", notebooks.paths(), ids=lambda path: path.stem)


def outputs(notebook) -> list[dict[str, Any]]:
    """Return what the code cells show, one dict of kind and content for each output."""
    shown = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return [dict(x.get("data") or {x.output_type: x.get("text", "")}) for x in shown]


def picture(content: str) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(content)))


def test_there_are_notebooks_and_the_readme_names_them():
    assert notebooks.paths()
    for path in notebooks.paths():
        assert f"  {path.name} " in README


@every_notebook
def test_a_notebook_is_written_as_executed(path):
    notebook = notebooks.read(path)
    assert notebooks.plain(notebooks.read(path)) == notebook, "run `make notebooks`"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_a_notebook_shows_figures_and_nothing_of_the_machine(path):
    shown = outputs(notebooks.read(path))
    assert not any("stream" in output for output in shown)  # such as warnings
    assert any(PICTURE in output for output in shown)
    text = " ".join(str(v) for output in shown for k, v in output.items() if k != PICTURE)
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/", text)


@every_notebook
def test_cells_are_short_and_define_nothing(path):
    for cell in notebooks.read(path).cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= LONGEST_CELL
            assert not re.search(r"^\s*(def|class) ", cell.source, re.MULTILINE)


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_and_its_outputs_are_current(path):
    committed, fresh = outputs(notebooks.read(path)), outputs(notebooks.executed(path))
    stale = f"{path.name} is stale: run `make notebooks`"
    assert len(committed) == len(fresh), stale
    for old, new in zip(committed, fresh, strict=True):
        before, after = old.pop(PICTURE, None), new.pop(PICTURE, None)
        assert old == new, stale
        assert (before is None) == (after is None), stale
        if before and after:
            old_pixels, new_pixels = picture(before), picture(after)
            assert old_pixels.shape == new_pixels.shape, stale
            assert np.abs(old_pixels - new_pixels).mean() < SAME, stale


def test_a_changed_output_would_be_noticed():
    notebook = notebooks.read(notebooks.paths()[0])
    before = outputs(notebook)
    next(c for c in notebook.cells if c.get("outputs")).outputs[0].data["text/plain"] = "other"
    assert outputs(notebook) != before
