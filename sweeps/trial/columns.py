"""Columns of a dataclass: one field, one column, with its meaning and its unit.

@dataclass(frozen=True, kw_only=True)
class Seen:
    decode_ms: dict[int, float] | None = column("one token", "ms", optional=True)

schema_of(Seen)  # decode_ms: map<int64, double>
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any

import pyarrow as pa

VERSION_KEY = b"hybrid_workbench_version"  # in a file's metadata


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the columns were changed to, and in which commit.

    Reading undoes `renamed` (old name -> new name). An optional column that was added needs no
    entry to be read: in an older file it is null, to older code it is unknown.
    """

    version: int
    commit: str
    added: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a kind of file holds: all columns, those that are never null, and how they came to be.

    A file is written with the last change's version in its metadata.
    """

    schema: pa.Schema
    required: frozenset[str]
    changes: tuple[Change, ...]

    @property
    def version(self) -> int:
        return self.changes[-1].version


def column(meaning: str, unit: str = "", optional: bool = False) -> Any:
    """Return a dataclass field whose meaning and unit stand in the data dictionary."""
    default = None if optional else MISSING
    return field(default=default, metadata={"meaning": meaning, "unit": unit})


def columns_of(
    kind: type, changes: tuple[Change, ...], key: Sequence[tuple[str, pa.DataType]] = ()
) -> Columns:
    """Return the columns of a dataclass, those of `key` before them."""
    schema = pa.schema([*key, *schema_of(kind)])
    required = {f.name for f in fields(kind) if f.default is MISSING} | {name for name, _ in key}
    return Columns(
        schema=schema.with_metadata({VERSION_KEY: str(changes[-1].version)}),
        required=frozenset(required),
        changes=changes,
    )


def schema_of(kind: type) -> pa.Schema:
    """Return the Arrow schema of a dataclass from its annotations."""
    hints = typing.get_type_hints(kind)
    return pa.schema([(f.name, _arrow(hints[f.name])) for f in fields(kind)])


def _arrow(hint: Any) -> pa.DataType:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        (one,) = (option for option in arguments if option is not types.NoneType)
        return _arrow(one)
    if typing.get_origin(hint) is dict:
        return pa.map_(_arrow(arguments[0]), _arrow(arguments[1]))
    if typing.get_origin(hint) is list:
        return pa.list_(_arrow(arguments[0]))
    return ARROW_SCALARS[StrEnum if issubclass(hint, StrEnum) else hint]


ARROW_SCALARS = {
    str: pa.string(),
    StrEnum: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
}
