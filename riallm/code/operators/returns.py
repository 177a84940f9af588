"""What a function gives back: another value, a forgotten return, a return too early, `return` for `yield`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.operators.target import Change, Target
from riallm.code.precedence import NOT, TUPLE

_PLAIN = (
    ("None", 0.5),
    ("True", 0.5),
    ("False", 0.5),
    ("0", 0.4),
    ("1", 0.2),
    ("[]", 0.4),
    ('""', 0.3),
    ("{}", 0.2),
    ("-1", 0.1),
)


def change_return(target: Target) -> Iterator[Change]:
    """Another variable or a plain value is returned; a pair; nothing."""
    item = target.item
    if not isinstance(item, ast.Return):
        return
    if item.value is None:
        end = target.span[1]
        for text, weight in (*target.variables[:15], *_PLAIN):
            if text != "None":
                yield Change(end, end, f" {text}", weight)
        return
    slot = target.slot_of(item.value)
    if slot is None:
        return
    for text, weight in (*target.variables[:15], *_PLAIN):
        if text != slot.text:
            yield slot.put(text, weight)
    for name, weight in target.variables[:5]:
        if name not in ("None", slot.text):
            yield slot.put(f"{slot.text}, {name}", 0.2 * weight, TUPLE)
    yield slot.put(f"not {slot.at(NOT)}", 0.2, NOT)
    yield slot.put(f"bool({slot.text})", 0.2)


def return_or_yield(target: Target) -> Iterator[Change]:
    """`return` and `yield`, `yield` and `yield from`."""
    item, text = target.item, target.source.text
    start = target.span[0]
    if isinstance(item, ast.Return) and item.value is not None:
        yield Change(start, start + len("return"), "yield", 1.0)
        yield Change(start, start + len("return"), "yield from", 0.5)
    elif isinstance(item, ast.Expr) and isinstance(item.value, ast.Yield | ast.YieldFrom):
        if not text.startswith("yield", start):
            return
        value = item.value.value
        if isinstance(item.value, ast.YieldFrom):
            end = start + text[start:].index("from") + len("from")
            yield Change(start, end, "yield", 1.0)
            yield Change(start, end, "return", 0.3)
        elif value is not None:
            yield Change(start, start + len("yield"), "yield from", 1.0)
            yield Change(start, start + len("yield"), "return", 0.5)


def insert_return(target: Target) -> Iterator[Change]:
    """A result that is thrown away or only stored is returned; a return after the last statement of a block."""
    item, source = target.item, target.source
    function = target.function
    if function is None or item is function:
        return
    start, end = target.span
    if isinstance(item, ast.Expr) and not isinstance(item.value, ast.Yield | ast.YieldFrom | ast.Constant):
        yield Change(start, start, "return ", 2.0)
    elif isinstance(item, ast.Assign) and len(item.targets) == 1:
        yield Change(start, source.span(item.value)[0], "return ", 0.7)
    elif isinstance(item, ast.AugAssign):
        yield Change(start, source.span(item.value)[0], "return ", 0.1)
    last = target.place.index + 1 == len(target.place.siblings)
    if not last or not target.alone or isinstance(item, ast.Return | ast.Raise | ast.Break | ast.Continue):
        return
    if isinstance(item, ast.excepthandler | ast.match_case):
        return
    at = source.line_end(end)
    share = 1.0 if target.place.parent is function else 0.4
    plain = ("self",) if "self" in [arg.arg for arg in function.args.args[:1]] else ()
    for text, weight in (*target.variables[:12], *((name, 0.7) for name in plain), *_PLAIN[:6]):
        if text != "None":
            yield Change(at, at, f"{source.newline}{target.indent}return {text}", share * weight)
