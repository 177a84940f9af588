"""Wrong constants: numbers, truth values, strings, and constants of another type."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.operators.target import Change, Slot, Target
from riallm.code.precedence import ATOM, UNARY


def _number(slot: Slot) -> int | float | None:
    value = slot.node.value if isinstance(slot.node, ast.Constant) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def change_number(target: Target) -> Iterator[Change]:
    """Off by one, 0, 1, -1, the negation, ten times, other numbers of the function and file, or a variable."""
    for slot in target.find(ast.Constant):
        value = _number(slot)
        if value is None:
            continue
        near = {value + 1: 1.0, value - 1: 1.0, 0: 0.6, 1: 0.6, -1: 0.3, -value: 0.4, 2: 0.2, value * 10: 0.1}
        for other, weight in near.items():
            if other != value:
                yield slot.put(repr(other), weight, ATOM if other >= 0 else UNARY)
        for text, weight in target.vocabulary.numbers(target.source, target.item)[:12]:
            yield slot.put(text, 0.4 * weight)
        for name, weight in target.names(slot)[:8]:
            yield slot.put(name, 0.15 * weight)


def flip_boolean(target: Target) -> Iterator[Change]:
    """True and False, and either and None."""
    for slot in target.find(ast.Constant):
        value = slot.node.value if isinstance(slot.node, ast.Constant) else 0
        if value is True or value is False:
            yield slot.put(str(not value))
            yield slot.put("None", 0.15)
        elif value is None:
            yield slot.put("True", 0.5)
            yield slot.put("False", 0.5)


def _quoted(slot: Slot, value: str) -> str | None:
    """`value` in the quotes and with the prefix that the literal has; None where it cannot be."""
    body = slot.text.lstrip("rRuUbB")
    quote = next((mark for mark in ('"""', "'''", '"', "'") if body.startswith(mark)), "")
    if not quote or not body.endswith(quote) or len(body) < 2 * len(quote):
        return None
    text = repr(value)[1:-1]
    if quote[0] == '"':
        text = text.replace("\\'", "'").replace('"', '\\"') if repr(value)[0] == "'" else text
        if repr(value)[0] == '"':
            return None
    return quote + text + quote


def change_string(target: Target) -> Iterator[Change]:
    """Another string of the function or the file, other case, a character less, a space or line end more or less."""
    for slot in _strings(target):
        value = slot.node.value if isinstance(slot.node, ast.Constant) else None
        if isinstance(value, str):
            for other, weight in _other_strings(target, value).items():
                text = _quoted(slot, other)
                if other != value and text is not None:
                    yield slot.put(text, weight)


def _strings(target: Target) -> Iterator[Slot]:
    for slot in target.find(ast.Constant):
        if isinstance(slot.node, ast.Constant) and isinstance(slot.node.value, str) and len(slot.text) < 200:
            if isinstance(slot.parent, ast.Expr | ast.FormattedValue):
                continue
            yield slot


def _other_strings(target: Target, value: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for other, weight in target.vocabulary.strings(target.source, target.item)[:30]:
        found[other] = weight
    for other in (value.strip(), value.lower(), value.upper(), value[1:], value[:-1], value + " ", " " + value, ""):
        found.setdefault(other, 0.4)
    found.setdefault(value + "\n" if not value.endswith("\n") else value[:-1], 0.2)
    if value:
        found.setdefault(value[0].swapcase() + value[1:], 0.3)
    return found


def change_constant_type(target: Target) -> Iterator[Change]:
    """A number as a string, a string of digits as a number, an integer as a float, a string as bytes, [] and None."""
    for slot in target.find(ast.Constant):
        value = slot.node.value if isinstance(slot.node, ast.Constant) else None
        if isinstance(value, bool):
            yield slot.put(str(int(value)))
        elif isinstance(value, int):
            yield slot.put(f'"{value}"')
            yield slot.put(f"{value}.0")
        elif isinstance(value, float) and value.is_integer():
            yield slot.put(str(int(value)))
        elif isinstance(value, str) and not isinstance(slot.parent, ast.Expr):
            if value.isdigit():
                yield slot.put(value)
            yield slot.put("None", 0.5)
            if value.isascii() and slot.text[:1] in "\"'":
                yield slot.put("b" + slot.text, 0.3)
        elif isinstance(value, bytes) and slot.text[:1] in "bB":
            yield slot.put(slot.text[1:])
        elif value is None:
            for text in ('""', "0", "[]", "{}", "()"):
                yield slot.put(text)
    for slot in target.find(ast.List, ast.Dict, ast.Tuple):
        if slot.text in ("[]", "{}", "()"):
            for text in ("None", "[]", "{}", "set()", "()"):
                if text != slot.text:
                    yield slot.put(text, 0.6)
