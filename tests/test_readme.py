"""What README.md shows: every command and every block of Python runs, as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
SHELL = [
    command
    for language, block in BLOCKS
    if language == ""
    for line in block.splitlines()
    if (command := line.partition("#")[0].strip())
]
COMMANDS = [command for command in SHELL if command.startswith("python -m ")]
OWN = ("pytest",)  # of the checkout, not of the copy
# Not run here: what installs, what is this very test run, and the map of files.
LEFT = re.compile(r"(make (demo|test)|pip install .*|MAMBA_KEEP_CUDA_BUILD=TRUE pip install .*)$")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder where the commands may write, with what they read of the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "results").mkdir()
    (folder / "docs").mkdir()
    (folder / "results/published").symlink_to(ROOT / "results/published")
    (folder / "README.md").write_text(README)
    return folder


def test_every_command_is_run_or_known_not_to_be():
    before_map = README[: README.index("## Map")]
    of_map = set(README[README.index("## Map") :].splitlines())
    unknown = [
        command
        for command in SHELL
        if not LEFT.match(command)
        and command not in COMMANDS
        and not any(line.strip().startswith(command) for line in of_map)
    ]
    assert unknown == []
    assert len(COMMANDS) >= 10
    assert before_map.count("\n## Five minutes") == 3


@pytest.mark.slow
def test_every_command_runs_in_the_order_shown(checkout):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in COMMANDS:
        words = [sys.executable, *shlex.split(command)[1:]]
        where = ROOT if words[2] in OWN else checkout
        done = subprocess.run(
            words, cwd=where, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (checkout / "docs/report.html").exists()
    assert (checkout / "README.md").read_text() == README


@pytest.mark.slow
@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python"])
def test_the_python_runs(code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out
