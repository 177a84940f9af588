"""An edit without a new import: the live functions of the edited file get their new code objects."""

from __future__ import annotations

import ast
import importlib
import io
import tokenize
import types
from collections.abc import Iterator
from typing import Any


class Reimport(Exception):
    """The edit changes what runs at import, or cannot be mapped: collect again."""


SAME = (
    "co_code",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_argcount",
    "co_kwonlyargcount",
    "co_flags",
)
OPTIMIZED = 0x1  # set on functions, not on class and module bodies
AT_ONCE = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


def same_but_code(old: types.CodeType, new: types.CodeType) -> bool:
    if any(getattr(old, name) != getattr(new, name) for name in SAME) or len(old.co_consts) != len(new.co_consts):
        return False
    return all(
        isinstance(a, types.CodeType) == isinstance(b, types.CodeType)
        and (isinstance(a, types.CodeType) or (type(a) is type(b) and repr(a) == repr(b)))
        for a, b in zip(old.co_consts, new.co_consts)
    )


def inner(code: types.CodeType) -> list[types.CodeType]:
    return [const for const in code.co_consts if isinstance(const, types.CodeType)]


def pair_imported(old: types.CodeType, new: types.CodeType, pairs: list[Any]) -> None:
    """Walk code that runs at import; it must be the same but for the functions that it only defines."""
    if not same_but_code(old, new):
        raise Reimport
    for a, b in zip(inner(old), inner(new)):
        if a.co_flags & OPTIMIZED and a.co_name not in AT_ONCE:
            pair_functions(a, b, pairs)
        else:
            pair_imported(a, b, pairs)


def pair_functions(old: types.CodeType, new: types.CodeType, pairs: list[Any]) -> None:
    pairs.append((old, new))
    olds, news = inner(old), inner(new)
    if [code.co_name for code in olds] == [code.co_name for code in news]:
        for a, b in zip(olds, news):
            pair_functions(a, b, pairs)
    else:
        pairs.extend((code, None) for code in walk_code(olds))


def walk_code(codes: list[types.CodeType]) -> Iterator[types.CodeType]:
    for code in codes:
        yield code
        yield from walk_code(inner(code))


def decode(data: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding)


class File:
    """A source file as imported: what is needed to compile one edited top-level statement alone."""

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            self.data = file.read()
        tree = ast.parse(self.data, path)
        self.compiled: dict[tuple[int, int], types.CodeType] = {}
        self.spans: list[tuple[int, int]] = []
        for node in tree.body:
            first = min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])
            self.spans.append((first, node.end_lineno or first))
        self.flags = 0
        future = importlib.import_module("__future__")
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                for alias in node.names:
                    self.flags |= getattr(future, alias.name).compiler_flag

    def edited(self, request: dict[str, Any]) -> bytes:
        new: bytes = request["bytes"].encode("latin-1")
        return self.data[: request["start"]] + new + self.data[request["end"] :]

    def statement(self, data: bytes, first: int, last: int) -> types.CodeType:
        lines = decode(data).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        text = "\n" * (first - 1) + "\n".join(lines[first - 1 : last]) + "\n"
        code: types.CodeType = compile(text, self.path, "exec", self.flags, dont_inherit=True)
        return code

    def pairs(self, request: dict[str, Any]) -> list[Any]:
        """(old, new) code objects that the edit changes; Reimport when it reaches past functions."""
        start = self.data.count(b"\n", 0, request["start"]) + 1
        end = start + self.data.count(b"\n", request["start"], request["end"])
        span = next(((a, b) for a, b in self.spans if a <= start and end <= b), None)
        if span is None or b"\r" in self.data.replace(b"\r\n", b""):
            raise Reimport
        grown = request["bytes"].count("\n") - (end - start)
        found: list[Any] = []
        if span not in self.compiled:
            self.compiled[span] = self.statement(self.data, *span)
        new = self.statement(self.edited(request), span[0], span[1] + grown)
        pair_imported(self.compiled[span], new, found)
        return [(a, b) for a, b in found if b is None or a != b]


def swap(file: File, pairs: list[Any], live: dict[str, list[Any]], import_calls: set[tuple[str, str, int]]) -> None:
    """Give the live functions of the edited file their new code; Reimport when that would not be the same."""
    changed = {}
    for old, new in pairs:
        key = (old.co_name, old.co_firstlineno)
        ran = (file.path, *key) in import_calls and (new is None or not same_but_code(old, new))
        if ran or key in changed:  # what only defines a changed function may have run: those that live are swapped
            raise Reimport
        changed[key] = new
    for function in live.get(file.path, ()):
        key = (function.__code__.co_name, function.__code__.co_firstlineno)
        if key in changed:
            if changed[key] is None:
                raise Reimport
            try:
                function.__code__ = changed[key]
            except ValueError:  # other free variables
                raise Reimport from None
