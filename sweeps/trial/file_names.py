"""Checks names that people give, and makes file names of them.

    require_folder_name("Sweep: name", "ratio")             # the folder of its records
    require_name("Sweep 'ratio': arm", "1:7")               # a part of a trial's name
    run_id("ratio", "cpu", "1:7", 0, "3f9c2a1b")            # ratio-cpu-1to7-s0-3f9c2a1b

A colon, which some file systems refuse, is written "to". All other characters of a valid name stay
as they are. So two valid names give one file name only where `key` is equal for both.
"""

import unicodedata
from collections.abc import Sequence

from hybrid.spec import require

MOST_BYTES = 255  # of one file name, on the usual file systems of Linux and macOS
# Separators of paths, and what Windows, its shares and patterns of file names give a meaning.
FORBIDDEN = frozenset('/\\<>"|?*[]')
UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control, half of a pair, line breaks
IN_FOLDERS = frozenset(":@")  # besides those: "@" separates a sweep's name from a text's
RESERVED = ("bench", "eval")  # folders of other records, beside those of sweeps
# What the longest of all names made from a trial's adds: scratch files of weights, up to the
# attempt 999.
GLUED = len(f".-999.safetensors.{'0' * 32}.tmp")


def file_part(name: str) -> str:
    """Return a valid name as a part of a file name."""
    return name.replace(":", "to")


def key(name: str) -> str:
    """Return what two names have in common that are one file name on some file system.

    Some file systems ignore case. Some have one form for letters with accents.
    """
    composed = unicodedata.normalize("NFC", file_part(name))
    return unicodedata.normalize("NFC", composed.casefold())


def run_id(sweep: str, scale: str, arm: str, seed: int, digest: str) -> str:
    """Return the name of a trial, which its files and its folder have."""
    return f"{sweep}-{scale}-{file_part(arm)}-s{seed}-{digest}"


def require_name(what: str, name: object, forbidden: frozenset[str] = FORBIDDEN) -> None:
    """Raise ValueError unless `name` can be a part of a file name. `what` says whose name it is."""
    require(
        isinstance(name, str) and name != "" and name == name.strip(),
        f"{what}: {name!r} must be a string that is not empty and has no blank at its ends",
    )
    odd = [x for x in str(name) if x in forbidden or unicodedata.category(x) in UNPRINTED]
    require(
        not odd,
        f"{what}: {name!r} must not have {odd[0] if odd else ''!r}: it becomes part of a file name",
    )


def require_plain_name(what: str, name: object) -> None:
    """Raise ValueError unless `name` can begin a file name and be an option's value."""
    require_name(what, name, FORBIDDEN | IN_FOLDERS)
    require(
        not str(name).startswith((".", "-")),
        f"{what}: {name!r} must not begin with {str(name)[0]!r}",
    )


def require_folder_name(what: str, name: object) -> None:
    """Raise ValueError unless `name` can be a sweep's, whose records lie in the folder `name`."""
    require_plain_name(what, name)
    require(
        not str(name).endswith(".py"),
        f"{what}: {name!r} must not end in '.py': the commands would take it for a file",
    )
    require(
        key(str(name)) not in RESERVED,
        f"{what}: {name!r} must be another: the results of other commands lie in this folder",
    )


def require_distinct(what: str, names: Sequence[str]) -> None:
    """Raise ValueError where two of these names are equal, or are one as file names."""
    seen: dict[str, str] = {}
    for name in names:
        if key(name) in seen:
            _refuse_pair(what, seen[key(name)], name)
        seen[key(name)] = name


def _refuse_pair(what: str, one: str, other: str) -> None:
    if one == other:
        raise ValueError(f"{what}: {one!r} is given twice; each must be there once")
    raise ValueError(f"{what}: {one!r} and {other!r} make one file name; rename one of them")


def require_short(what: str, name: str) -> None:
    """Raise ValueError for a file name that is longer than file systems allow."""
    size = len(name.encode())
    require(
        size <= MOST_BYTES,
        f"{what}: the file name {name:.60}... would have {size} bytes and may have {MOST_BYTES}; "
        "shorten what it is made of",
    )
