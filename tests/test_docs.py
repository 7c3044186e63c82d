"""Commands in README.md, CONTRIBUTING.md and docs/: each is one that its program understands.

Those of the README are run as well (tests/test_readme.py), and what docs/commands.md shows of
`sweeps` and `ablations` is invoked (tests/test_cli.py, tests/test_findings.py). Here nothing is
executed: a command that is gone, an option that has another name or an argument too few is found.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from ablations.__main__ import app as ablations
from hybrid.__main__ import app as hybrid
from sweeps.cli import app as sweeps

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # of the click that typer brings
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HISTORY = "log.md"  # what was run, by the code of then
PROGRAMS = {"sweeps": sweeps, "hybrid": hybrid, "ablations": ablations}
NAMES = "|".join(PROGRAMS)
LINE = re.compile(rf"^python -m ({NAMES})\b(?!\.)([^#\n]*)", re.MULTILINE)
INLINE = re.compile(rf"`python -m ({NAMES})\b(?!\.)([^`]*)`")
ELSE = ("...", "[", "|")  # in what stands for several commands, or for a part of one


def shown(page: Path) -> list[tuple[str, str]]:
    """Return program and words of every command on a page, in blocks and in sentences.

    A sentence may name a command alone, without what it is given.
    """
    text = page.read_text()
    found = [(name, " ".join(rest.split())) for name, rest in LINE.findall(text)]
    inline = [(name, " ".join(rest.split())) for name, rest in INLINE.findall(text)]
    found += [(name, rest if " " in rest else f"{rest} --help") for name, rest in inline]
    return [(name, rest) for name, rest in found if not any(mark in rest for mark in ELSE)]


def parse(name: str, words: list[str]) -> None:
    """Read the words as the program would, and do nothing."""
    program = get_command(PROGRAMS[name])
    with program.make_context(name, list(words), resilient_parsing=True) as context:
        assert isinstance(program, TyperGroup)
        rest = [*context._protected_args, *context.args]
        if not rest:
            return  # such as `python -m ablations`
        called, command, after = program.resolve_command(context, rest)
        if command is None:
            raise UsageError(f"there is no command {rest[0]!r}")
        if "--help" not in after:
            command.make_context(called, after, parent=context)


COMMANDS = {command: page.name for page in PAGES if page.name != HISTORY for command in shown(page)}


@pytest.mark.parametrize(("name", "rest"), COMMANDS, ids=[" ".join(words) for words in COMMANDS])
def test_a_command_that_is_shown_is_understood(name: str, rest: str) -> None:
    try:
        parse(name, shlex.split(rest))
    except UsageError as error:
        pytest.fail(f"{COMMANDS[name, rest]}: python -m {name} {rest}: {error}")


@pytest.mark.parametrize("rest", ["tabel ratio", "table ratio --marckdown", "table"])
def test_a_command_that_is_wrong_would_be_found(rest: str) -> None:
    with pytest.raises(UsageError):
        parse("sweeps", rest.split())


def test_pages_that_show_how_are_read():
    pages = set(COMMANDS.values())
    assert pages >= {"README.md", "commands.md", "evaluation.md", "scale.md", "reliability.md"}
