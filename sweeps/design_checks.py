"""Checks what a Sweep and a Search have in common: names, scales, arms and seeds.

All functions raise ValueError that begins with `owner`, such as "Sweep 'ratio'".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybrid.spec import LARGEST, require
from sweeps.trial import file_names

DIGEST = "0" * 8  # as long as the hash in a trial's name


def check_name_and_scales(kind: str, name: str, scales: Mapping[str, Any]) -> str:
    """Check the name of a design and its scales' names, and return `owner` for further checks."""
    file_names.require_folder_name(f"{kind}: name", name)
    owner = f"{kind} {name!r}"
    require(len(scales) > 0, f"{owner}: scales={dict(scales)!r} must have at least one scale")
    for scale in scales:
        file_names.require_plain_name(f"{owner}: scale", scale)
    file_names.require_distinct(f"{owner}: scales", list(scales))
    return owner


def check_same_scales(owner: str, field: str, given: Iterable[str], scales: Iterable[str]) -> None:
    """Check that a field by scale is for the scales that there are."""
    require(
        set(given) == set(scales),
        f"{owner}: {field} is for {sorted(given)}, its scales are {sorted(scales)}",
    )


def check_arms(owner: str, arms: Sequence[str]) -> None:
    """Check that arms are there, and that no two have one file name."""
    require(
        isinstance(arms, Sequence) and not isinstance(arms, str) and len(arms) > 0,
        f"{owner}: arms={arms!r} must be a tuple of at least one name",
    )
    for arm in arms:
        file_names.require_name(f"{owner}: arm", arm)
    file_names.require_distinct(f"{owner}: arms", arms)


def check_seeds(owner: str, seeds: Sequence[int]) -> None:
    """Check that seeds are there, distinct, and such as a Recipe takes."""
    require(
        isinstance(seeds, Sequence) and len(seeds) > 0,
        f"{owner}: seeds={seeds!r} must be a tuple of at least one seed",
    )
    for seed in seeds:
        require(
            type(seed) is int and 0 <= seed <= LARGEST,
            f"{owner}: seed {seed!r} must be a whole number from 0 to {LARGEST}",
        )
    twice = [seed for seed in seeds if list(seeds).count(seed) > 1]
    require(not twice, f"{owner}: seeds={seeds!r} must be distinct")


def check_trial_names(
    owner: str, name: str, arms: Sequence[str], seeds: Mapping[str, Sequence[int]]
) -> None:
    """Check that names of trials fit a file name, and that no two scales share one."""
    pairs = [(scale, arm) for scale in seeds for arm in arms]
    file_names.require_distinct(
        f"{owner}: scale and arm", [f"{scale}-{file_names.file_part(arm)}" for scale, arm in pairs]
    )
    for scale, arm in pairs:
        run_id = file_names.run_id(name, scale, arm, max(seeds[scale]), DIGEST)
        file_names.require_short(f"{owner}: arm {arm!r}", run_id + "." * file_names.GLUED)
