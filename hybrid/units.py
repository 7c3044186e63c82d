"""Lengths, counts and sizes as people write them: 256k tokens, 80GB, 12B parameters. Free of torch.

A context is in units of 1024: 256k is 262,144. Counts are in thousands: 12B is 12 times 10^9.
Memory is as written: 80GB is 80 times 10^9 bytes, 80GiB is 80 times 2^30.
"""

import re
from math import inf

CONTEXT = {"": 1, "k": 1 << 10, "m": 1 << 20}
MEMORY = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
COUNT = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
NUMBER = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_context(text: str) -> int:
    """Return tokens from "4096", "256k" or "1M"."""
    return _parse(text, CONTEXT, "context", "a number of tokens such as 4096, 256k or 1M")


def parse_memory(text: str) -> int:
    """Return bytes from "80GB" (10^9) or "80GiB" (2^30); a unit must be given."""
    return _parse(text, MEMORY, "memory", "a size with its unit, such as 80GB, 80GiB or 512MiB")


def parse_count(text: str) -> int:
    """Return a count from "12B", "300M" or "24000000000"."""
    return _parse(text, COUNT, "count", "a number such as 12B, 300M or 24000000000")


def _parse(text: str, units: dict[str, int], what: str, right: str) -> int:
    found = NUMBER.fullmatch(text)
    unit = found[2].lower() if found else ""
    if not found or unit not in units:
        raise ValueError(f"{what} {text!r} must be {right}")
    value = float(found[1].replace(",", "").replace("_", "")) * units[unit]
    if not 1 <= value < inf or value != int(value):
        raise ValueError(f"{what} {text!r} is {value:g}; it must be a whole number of 1 or more")
    return int(value)


def tokens_text(tokens: int | None) -> str:
    """Return "262,144", or what `longest_context` means by None and 0."""
    if tokens is None:
        return "no limit"
    return f"{tokens:,}" if tokens else "does not fit"


def bytes_text(value: float) -> str:
    """Return decimal units from kB on: "51.6 GB"."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.0f} B"


def binary_text(value: float) -> str:
    """Return binary units: "4 GiB", which the Jamba paper writes as 4GB."""
    for power, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 2**power:
            return f"{value / 2**power:.4g} {name}"
    return f"{value:.0f} B"


def count_text(value: float) -> str:
    """Return three figures and a unit: "12.1B"."""
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.0f}"
