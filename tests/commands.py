"""The commands of `python -m sweeps`, in the tests' own process."""

import shlex
from pathlib import Path

from typer.testing import CliRunner, Result

from sweeps import cli


def invoke(command: str) -> Result:
    return CliRunner().invoke(cli.app, shlex.split(command))


def assert_one_sentence(command: str, message: str, folder: Path) -> None:
    """Check that a command is refused, says why, and leaves nothing in the folder it stands in."""
    result = invoke(command)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert list(folder.iterdir()) == []
