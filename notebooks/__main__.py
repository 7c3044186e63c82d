"""Executes the notebooks from scratch, in place: `python -m notebooks [NAME ...]`.

What depends on when or where a notebook ran is left out, so that the same records and the same code
give the same file. `tests/test_notebooks.py` holds the committed outputs against new ones.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).parent
TIMEOUT_S = 300  # of one cell
ENCRYPTED = Config({"KernelManager": {"transport_encryption": "auto"}})  # or a kernel complains
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def paths() -> list[Path]:
    """Return the notebooks, in their order."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def executed(path: Path) -> NotebookNode:
    """Return the notebook with the outputs of a fresh kernel that stands in its folder.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    notebook = read(path)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name=METADATA["kernelspec"]["name"],
        record_timing=False,
        config=ENCRYPTED,
        resources={"metadata": {"path": str(path.parent)}},
    )
    return plain(client.execute())


def plain(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without times, versions and what an editor remembers of its cells."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for place, cell in enumerate(notebook.cells):
        cell.metadata = nbformat.from_dict({})
        cell.id = f"cell-{place:02}"
    return notebook


def main(names: list[str]) -> None:
    """Execute the notebooks called `names`, or all."""
    for path in paths():
        if not names or path.stem in names:
            nbformat.write(executed(path), path)
            print(f"wrote {path.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main(sys.argv[1:])
