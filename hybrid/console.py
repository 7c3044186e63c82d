"""Turns errors into one sentence, where a person made the mistake, and into a traceback elsewhere.

The traceback decides, by its innermost frame that no library owns:

- The frame is in a person's own file. The sentence has file, line, class and message.
- The frame is one of this project's and stands at a `raise`. The message is meant for a person, and
  is printed alone, or after the place in a person's file that led there.
- The operating system refused a file that the error names. The sentence has its name.
- Anything else is a bug of this project. It is not caught.

    FILE, line 12: KeyError: 'smoke'
"""

import dis
import os
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from traceback import walk_tb
from types import CodeType

import typer
from rich.console import Console

MISTAKES = (ValueError, LookupError, OSError, ImportError)  # what this project raises on purpose
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(str(ROOT / name) + os.sep for name in ("hybrid", "sweeps", "ablations"))
LIBRARIES = tuple(
    os.path.realpath(path) + os.sep
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Print what a person got wrong as one sentence, without a traceback, and exit with 2.

    An error that `sentence` does not explain is raised again, as it is.
    """

    @wraps(command)
    def wrapped(*args, **kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Exception as error:
            said = sentence(error)
            if said is None:
                raise
            # As it is: brackets are no markup, as in package[extra], and a path is not broken up.
            Console(stderr=True).print(
                f"error: {said}", style="red", highlight=False, markup=False, soft_wrap=True
            )
            raise typer.Exit(2) from None

    return wrapped


def sentence(error: Exception) -> str | None:
    """Return an error that a person can mend as one sentence, or None for a bug."""
    if isinstance(error, SyntaxError) and error.filename and _is_a_persons(error.filename):
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    place = place_in_own_file(error)
    frames = [(frame.f_code, at) for frame, at in _frames(error)]
    known = [(code, at) for code, at in frames if not _is_a_librarys(code.co_filename)]
    if known and _is_a_persons(known[-1][0].co_filename):
        return f"{place}: {type(error).__name__}: {_message(error)}"
    if not isinstance(error, MISTAKES):
        return None
    on_purpose = bool(known) and known[-1] == frames[-1] and _raises(*frames[-1])
    if not (on_purpose and " " in _message(error)) and not _is_of_a_file(error):
        return None
    return _message(error) if place is None else f"{place}: {_message(error)}"


def place_in_own_file(error: BaseException) -> str | None:
    """Return "FILE, line N" for the innermost frame in a person's own file, or None."""
    found = None
    for frame, line in walk_tb(error.__traceback__):
        if _is_a_persons(frame.f_code.co_filename):
            found = f"{frame.f_code.co_filename}, line {line}"
    return found


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Put `what`, such as an option as it was typed, before the message of a mistake made inside.

    The class of the error becomes ValueError. An error that is no person's mistake is left alone.
    """
    try:
        yield
    except MISTAKES as error:
        if sentence(error) is None:
            raise
        raise ValueError(f"{what}: {_message(error)}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise ValueError that names `path` for whatever error its reading raises.

    A sentence that names the file already is left as it is. Libraries raise many classes for one
    damaged file, so no class is listed here.
    """
    try:
        yield
    except Exception as error:
        if str(path) in str(error) and sentence(error) is not None:
            raise
        raise ValueError(f"{path}: cannot be read: {described(error)}") from error


def described(error: BaseException) -> str:
    """Return what an error says in one line, with its class, which alone may tell what is wrong."""
    said = _message(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _frames(error: BaseException) -> list:
    """Return (frame, index of its last instruction) of each frame, the innermost last."""
    found, at = [], error.__traceback__
    while at is not None:
        found.append((at.tb_frame, at.tb_lasti))
        at = at.tb_next
    return found


def _raises(code: CodeType, at: int) -> bool:
    """Return whether the instruction at index `at` is a `raise`, not a call or a look-up."""
    return dis.opname[code.co_code[at]] == "RAISE_VARARGS"


def _message(error: BaseException) -> str:
    """Return the message of an error, without the quotes that KeyError puts around it."""
    sayings = [x for x in error.args if isinstance(x, str) and " " in x]
    return sayings[0] if isinstance(error, KeyError) and sayings else str(error)


def _is_of_a_file(error: BaseException) -> bool:
    """Return whether the operating system refused a file, and the error says which."""
    return isinstance(error, OSError) and error.errno is not None and error.filename is not None


@cache
def _is_a_librarys(filename: str) -> bool:
    """Return whether code of this file is neither this project's nor a person's."""
    path = os.path.realpath(filename)
    if path.startswith(PACKAGES):
        return False
    return (
        filename.startswith("<")
        or path.startswith(LIBRARIES)
        or bool({"site-packages", "dist-packages"} & set(Path(path).parts))
    )


@cache
def _is_a_persons(filename: str) -> bool:
    return not _is_a_librarys(filename) and not os.path.realpath(filename).startswith(PACKAGES)
