"""Frozen dataclasses to plain JSON data and back, for records and jobs. Free of torch.

A dataclass becomes {"kind": class name, field: value, ...}; enums, tuples and None follow. Reading
checks every key against the class, so a misspelt or unknown key is an error, never ignored. A field
that `hybrid.spec.added` declares is left out at its default, so that equal values keep equal text
when a class gets a new field.
"""

import dataclasses
import json
import types
import typing
from enum import StrEnum
from typing import Any

from hybrid.spec import OMIT_DEFAULT


def encode(value: Any) -> Any:
    """Return JSON data for a dataclass instance built of dataclasses, tuples, enums and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f for f in dataclasses.fields(value) if not _is_omitted(f, value)]
        pairs = {f.name: encode(getattr(value, f.name)) for f in fields}
        return {"kind": type(value).__name__, **pairs}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, StrEnum):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot encode {value!r} of type {type(value).__name__}")


def decode(kind: Any, data: Any, where: str = "") -> Any:
    """Return the instance of type `kind` (a class or a union of classes) that `data` describes.

    Raises ValueError naming the place, the key or value given and what would be right.
    """
    where = where or getattr(kind, "__name__", str(kind))
    if isinstance(kind, types.UnionType):
        return _decode_union(kind, data, where)
    if typing.get_origin(kind) is tuple:
        return _decode_tuple(kind, data, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if not isinstance(data, str) or data not in set(kind):
            raise ValueError(f"{where}: {data!r} must be one of {', '.join(map(str, kind))}")
        return kind(data)
    return _decode_scalar(kind, data, where)


def dumps(value: Any) -> str:
    """Return `encode(value)` as JSON text with sorted keys: equal values give equal text."""
    return json.dumps(encode(value), sort_keys=True)


def loads(kind: Any, text: str) -> Any:
    """Return the instance of `kind` that the JSON `text` describes; errors as `decode`."""
    return decode(kind, json.loads(text))


def _is_omitted(field: dataclasses.Field, value: Any) -> bool:
    return OMIT_DEFAULT in field.metadata and getattr(value, field.name) == field.default


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict) or data.get("kind") != kind.__name__:
        raise ValueError(f"{where}: {data!r} must be an object with kind={kind.__name__!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(data.keys() - fields.keys() - {"kind"})
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known keys are {sorted(fields)}")
    required = {name for name, f in fields.items() if f.default is dataclasses.MISSING}
    missing = sorted(required - data.keys())
    if missing:
        raise ValueError(f"{where}: key {missing[0]!r} is missing")
    given = fields.keys() & data.keys()
    return kind(**{name: decode(hints[name], data[name], f"{where}.{name}") for name in given})


def _decode_union(kind: Any, data: Any, where: str) -> Any:
    options = typing.get_args(kind)
    if data is None and types.NoneType in options:
        return None
    classes = [
        option
        for option in options
        if isinstance(option, type) and dataclasses.is_dataclass(option)
    ]
    if isinstance(data, dict):
        for option in classes:
            if data.get("kind") == option.__name__:
                return decode(option, data, where)
        names = [option.__name__ for option in classes]
        raise ValueError(f"{where}: kind={data.get('kind')!r} must be one of {names}")
    rest = [option for option in options if option not in (*classes, types.NoneType)]
    if len(rest) != 1:
        raise ValueError(f"{where}: {data!r} must be {kind}")
    return decode(rest[0], data, where)


def _decode_tuple(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, list):
        raise ValueError(f"{where}: {data!r} must be a list")
    kinds = typing.get_args(kind)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise ValueError(f"{where}: {data!r} must have {len(kinds)} items")
    pairs = enumerate(zip(kinds, data, strict=True))
    return tuple(decode(each, item, f"{where}[{i}]") for i, (each, item) in pairs)


def _decode_scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is float and type(data) is int:
        try:
            return float(data)
        except OverflowError:
            raise ValueError(
                f"{where}: a number of {data.bit_length()} bits is too large"
            ) from None
    if type(data) is not kind:
        raise ValueError(f"{where}: {data!r} must be of type {kind.__name__}")
    return data
