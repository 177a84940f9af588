"""What is known of Python's own functions, types and small modules without looking at the project.

Members come from the running interpreter's builtins and from a short list of pure modules of its library; they are
imported when first asked about, and never anything of the project.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
from collections.abc import Callable
from functools import lru_cache

_TYPES: tuple[type, ...] = (str, list, dict, set, bytes, tuple, int, float)
_MODULES = frozenset(
    {
        "bisect",
        "collections",
        "copy",
        "datetime",
        "functools",
        "itertools",
        "json",
        "math",
        "operator",
        "random",
        "re",
        "shutil",
        "statistics",
        "string",
        "textwrap",
        "time",
    }
)
_ALIKE: tuple[tuple[str, ...], ...] = (
    ("min", "max"),
    ("any", "all"),
    ("sorted", "reversed", "list"),
    ("list", "tuple", "set", "frozenset"),
    ("int", "float", "round", "abs"),
    ("str", "repr", "ascii", "format"),
    ("isinstance", "issubclass"),
    ("range", "enumerate", "len"),
    ("getattr", "hasattr", "setattr"),
    ("iter", "next"),
    ("ord", "chr"),
    ("zip", "map", "enumerate"),
    ("sum", "len", "max"),
)


@lru_cache(maxsize=4096)
def methods_beside(name: str) -> tuple[str, ...]:
    """Methods of the builtin types that have a method of this name, sorted; () for any other name."""
    owners = [kind for kind in _TYPES if callable(getattr(kind, name, None))] if not name.startswith("_") else []
    return tuple(sorted({each for kind in owners for each in dir(kind) if not each.startswith("_") and each != name}))


@lru_cache(maxsize=256)
def members_of(module: str) -> tuple[str, ...]:
    """Public members of one of the known modules of the standard library, sorted; () for any other name."""
    if module not in _MODULES:
        return ()
    return tuple(sorted(each for each in dir(importlib.import_module(module)) if not each.startswith("_")))


@lru_cache(maxsize=256)
def builtins_like(name: str) -> tuple[str, ...]:
    """Builtin functions that this one is easily taken for."""
    return tuple(dict.fromkeys(each for group in _ALIKE if name in group for each in group if each != name))


@lru_cache(maxsize=1024)
def arity(callee: str) -> tuple[int, int] | None:
    """(fewest, most) positional arguments of a builtin (`len`) or of a known module's function (`math.floor`).

    None where Python itself does not say or there is no bound.
    """
    module, _, name = callee.rpartition(".")
    if module and module not in _MODULES:
        return None
    owner = importlib.import_module(module) if module else builtins
    function: Callable[..., object] | None = getattr(owner, name, None)
    if function is None or not callable(function):
        return None
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return None
    plain = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return None
    return sum(each.default is each.empty for each in plain), len(plain)
