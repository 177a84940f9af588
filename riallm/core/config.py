"""Configurations: frozen dataclasses to and from JSON values, and `a.b=c` overrides. Unknown keys are refused."""

from __future__ import annotations

import ast
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from riallm.core.errors import UsageError

_T = TypeVar("_T")


def to_json(value: Any) -> Any:
    """JSON values of a configuration; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[_T], value: Mapping[str, Any], *, where: str = "") -> _T:
    """A `kind` from what `to_json` gave. Raises UsageError for unknown or missing keys and for wrong types."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{where or kind.__name__}: expected an object, got {value!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise UsageError(f"{where or kind.__name__}: no {', '.join(unknown)}; there are {', '.join(sorted(fields))}")
    hints = typing.get_type_hints(kind)
    made = {name: _convert(hints[name], item, f"{where}.{name}".strip(".")) for name, item in value.items()}
    needed = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in made]
    if missing:
        raise UsageError(f"{where or kind.__name__}: {', '.join(missing)} must be given")
    return kind(**made)


def override(config: _T, assignments: Sequence[str]) -> _T:
    """The configuration with each "a.b=value" carried out; values are read as Python literals, else as text. One of
    several configurations goes by its `name`, or by its number where they have none."""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise UsageError(f"'{assignment}' is no override; write name=value, for instance dtype=float32")
        config = _with(config, name.split("."), text, name)
    return config


def _with(config: Any, path: Sequence[str], text: str, name: str) -> Any:
    known = parts(config)
    if path[0] not in known:
        there = f"is not one of {', '.join(known)}" if known else f"is sought in {config!r}, which is given as a whole"
        raise UsageError(f"no setting '{name}': '{path[0]}' {there}")
    old, named = known[path[0]], dataclasses.is_dataclass(config)
    if len(path) > 1:
        value = _with(old, path[1:], text, name)
    else:
        value = _convert(typing.get_type_hints(type(config))[path[0]] if named else type(old), _literal(text), name)
    if named:
        return dataclasses.replace(config, **{path[0]: value})
    return tuple(value if key == path[0] else each for key, each in known.items())


def parts(config: Any) -> dict[str, Any]:
    """What a configuration, or several in a tuple, has by name; empty for a plain value."""
    if dataclasses.is_dataclass(config):
        return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    if isinstance(config, tuple) and all(map(dataclasses.is_dataclass, config)):
        return {getattr(each, "name", str(number)): each for number, each in enumerate(config)}
    return {}


def differing(one: Any, other: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Settings in which two JSON values of configurations differ, as `override` names them, with both values; None for
    one that is not there."""
    known = _named(one), _named(other)
    several = isinstance(one, list) and list(known[0]) != list(known[1])
    if not all(known) or several:
        return [] if one == other else [(where, one, other)]
    names = dict.fromkeys([*known[0], *known[1]])
    left, right = known
    return [
        found for name in names for found in differing(left.get(name), right.get(name), f"{where}.{name}".strip("."))
    ]


def _named(value: Any) -> dict[str, Any]:
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        found = {str(each.get("name", number)): each for number, each in enumerate(value)}
        return found if len(found) == len(value) else {}
    return value if isinstance(value, dict) else {}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "null": None, "none": None}.get(text.lower(), text)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type hint says, or UsageError. A whole number serves for a float, a list for a tuple."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        for option in (arg for arg in args if arg is not type(None)):
            try:
                return _convert(option, value, where)
            except UsageError:
                continue
    elif origin is typing.Literal:
        if value in args:
            return value
    elif dataclasses.is_dataclass(hint):
        kind = typing.cast(type[Any], hint)
        return value if isinstance(value, kind) else from_json(kind, value, where=where)
    elif origin is tuple and isinstance(value, list | tuple):
        if args[-1:] == (Ellipsis,):
            return tuple(_convert(args[0], item, f"{where}[{at}]") for at, item in enumerate(value))
        if len(args) == len(value):
            pairs = zip(args, value, strict=True)
            return tuple(_convert(arg, item, f"{where}[{at}]") for at, (arg, item) in enumerate(pairs))
    elif origin in (dict, Mapping, types.MappingProxyType) or (origin and issubclass(origin, Mapping)):
        if isinstance(value, Mapping):
            return {key: _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise UsageError(f"{where}: expected {_name(hint)}, got {value!r}")


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
