"""Digests of a person's functions by what they compute, as far as their code tells.

    digest(suggest)  # changes with its code, its constants, and what it calls in its own files

A function is described by its compiled code, which has neither comments nor line numbers, by its
defaults and what it closes over, and by the global values that it names. Functions and classes of
the same package, or of a file in the same folder, are followed. Those of other packages are known
by their name alone, so another version of a library is no change, and neither is what a function
reads while it runs. Compiled code differs between versions of Python.
"""

import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

PLAIN = (type(None), bool, int, float, complex, str, bytes, Ellipsis.__class__)
DIGITS = 16


def digest(*values: Any) -> str:
    """Return a digest that is equal for values that are described equally."""
    described = "\n".join(_Description().of(value) for value in values)
    return hashlib.sha256(described.encode()).hexdigest()[:DIGITS]


class _Description:
    """Describes values as text. Each function, class and object is described once."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}  # holds what was described, so that no id comes twice
        self.home = ""  # what the first function belongs to

    def of(self, value: Any) -> str:
        """Return a text that tells `value` from values that compute something else."""
        if isinstance(value, PLAIN):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, Enum):
            return f"{_name(type(value))}.{value.name}"
        if isinstance(value, tuple | list):
            return f"{type(value).__name__} [{', '.join(map(self.of, value))}]"
        if isinstance(value, set | frozenset):
            return f"{type(value).__name__} {sorted(map(self.of, value))}"
        if isinstance(value, Mapping):
            pairs = [f"{self.of(k)}: {self.of(v)}" for k, v in value.items()]
            return f"{type(value).__name__} {{{', '.join(pairs)}}}"
        if id(value) in self.seen:
            return f"seen {list(self.seen).index(id(value))}"
        self.seen[id(value)] = value
        return self._of_object(value)

    def _of_object(self, value: Any) -> str:
        if isinstance(value, FunctionType):
            return self._of_function(value)
        if isinstance(value, MethodType):
            return f"method {self.of(value.__self__)} {self.of(value.__func__)}"
        if isinstance(value, partial):
            return f"partial {self.of((value.func, value.args, value.keywords))}"
        if isinstance(value, CodeType):
            return f"code {''.join(self._of_code(value, {}))}"
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if hasattr(value, "__wrapped__"):  # such as a cache around a function
            return f"{_name(type(value))} {self.of(value.__wrapped__)}"
        if isinstance(value, type):
            return self._of_class(value)
        return self._of_instance(value)

    def _of_function(self, function: FunctionType) -> str:
        self.home = self.home or _home(function.__module__)
        parts = [_name(function)]
        if _home(function.__module__) == self.home:
            parts = [*self._of_code(function.__code__, function.__globals__, function.__doc__)]
        parts += [self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        parts += [self.of(_content(cell)) for cell in function.__closure__ or ()]
        return f"function ({'; '.join(parts)})"

    def _of_code(
        self, code: CodeType, names: Mapping[str, Any], doc: str | None = None
    ) -> Iterator[str]:
        """Yield the code, its constants, and the global values that it names."""
        yield code.co_code.hex()
        yield repr((code.co_varnames, code.co_freevars, code.co_names))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._of_code(constant, names)
            elif constant is not None and constant != doc:  # None stands where no docstring is
                yield self.of(constant)
        for name in code.co_names:
            if name in names:
                yield f"{name} is {self._of_global(names[name], code.co_names)}"

    def _of_global(self, value: Any, names: tuple[str, ...]) -> str:
        """Describe a global value, or what is taken out of a module of the same home."""
        if isinstance(value, ModuleType) and _home(value.__name__) == self.home:
            taken = [name for name in names if hasattr(value, name)]
            said = [f"{name} {self.of(getattr(value, name))}" for name in taken]
            return f"module {value.__name__} ({'; '.join(said)})"
        return self.of(value)

    def _of_class(self, kind: type) -> str:
        self.home = self.home or _home(kind.__module__)
        if _home(kind.__module__) != self.home:
            return f"class {_name(kind)}"
        skipped = ("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__")
        members = {k: v for k, v in sorted(vars(kind).items()) if k not in skipped}
        described = {k: _inside(v) for k, v in members.items() if not inspect.isbuiltin(v)}
        return f"class {kind.__qualname__} {self.of(kind.__bases__)} {self.of(described)}"

    def _of_instance(self, value: Any) -> str:
        kind = type(value)
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return f"{self.of(fields)} of {self.of(kind)}"  # its fields say what home is
        if _home(kind.__module__) == self.home and hasattr(value, "__dict__"):
            return f"{self.of(vars(value))} of {self.of(kind)}"
        said = repr(value)
        return f"{_name(kind)} {'' if ' at 0x' in said else said}"


def _inside(member: Any) -> Any:
    """Return what a static method, a class method or a property holds."""
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, property):
        return (member.fget, member.fset)
    return member


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is bound later
        return None


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _home(module: str) -> str:
    """Return what a module's code belongs to: its package, or else the folder of its file."""
    package = module.partition(".")[0]
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if file is None or "." in module or hasattr(sys.modules.get(package), "__path__"):
        return package
    return str(Path(file).resolve().parent)
