"""Whole statements: two in the wrong order, one too many, one too few, one at the wrong depth, the wrong keyword."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.ingredients import Ingredient
from riallm.code.operators.target import Change, Target
from riallm.code.source import Function, Item, is_compound

_FIXED = (Function, ast.ClassDef, ast.Import, ast.ImportFrom, ast.excepthandler, ast.match_case)


def _siblings(target: Target) -> tuple[Target | None, Target | None]:
    place = target.place
    around = []
    for index in (place.index - 1, place.index + 1):
        node: Item | None = place.siblings[index] if 0 <= index < len(place.siblings) else None
        around.append(None if node is None else Target(source=target.source, vocabulary=target.vocabulary, item=node))
    return around[0], around[1]


def swap_statements(target: Target) -> Iterator[Change]:
    """The statement changes places with the one before it or after it."""
    if isinstance(target.item, _FIXED) or not target.alone:
        return
    text = target.source.text
    for one, other in zip((_siblings(target)[0], target), (target, _siblings(target)[1]), strict=True):
        if one is None or other is None or isinstance(one.item, _FIXED) or isinstance(other.item, _FIXED):
            continue
        if one.alone and other.alone and not _is_docstring(one.item) and not _leaves(one.item) | _leaves(other.item):
            (start, middle), (after, end) = one.span, other.span
            yield Change(start, end, text[after:end] + text[middle:after] + text[start:middle], 1.0)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def delete_statement(target: Target) -> Iterator[Change]:
    """The statement goes; `pass` stands for it where the block would be empty."""
    item, source = target.item, target.source
    if isinstance(item, (*_FIXED, ast.Pass)):
        return
    start, end = target.span
    weight = 0.3 if is_compound(item) or isinstance(item, ast.Return | ast.Raise | ast.Assert) else 1.0
    if len(target.place.siblings) == 1 or not target.alone:
        if source.text.startswith("elif", start):
            return
        yield Change(start, end, "pass", weight)
        return
    line, last = source.line_of(start), source.line_of(end)
    whole = source.line_starts[last] if last < len(source.line_starts) else len(source.text)
    yield Change(source.line_starts[line - 1], whole, "", weight)


def move_statement(target: Target) -> Iterator[Change]:
    """The last statement of a block moves out of it; the one after a block moves to its end."""
    source, item, place = target.source, target.item, target.place
    if not target.alone or isinstance(item, _FIXED) or _has_long_string(item):
        return
    start, end = target.span
    indent = target.indent
    parent = place.parent
    if isinstance(parent, ast.stmt) and not isinstance(parent, Function | ast.ClassDef) and place.index > 0:
        outer = Target(source=source, vocabulary=target.vocabulary, item=parent)
        if place.siblings[-1] is item and outer.span[1] == end and not source.text.startswith("elif", outer.span[0]):
            yield _indented(target, start, end, indent, outer.indent)
    before = _siblings(target)[0]
    if before is None or not is_compound(before.item) or isinstance(before.item, _FIXED) or not before.alone:
        return
    node: Item = before.item
    while is_compound(node) and not isinstance(node, Function | ast.ClassDef):
        block = [each for each in source.children(node) if not isinstance(each, ast.excepthandler)] or source.children(
            node
        )
        node = block[-1]
        first = source.item_span(node)[0]
        inner = source.text[source.line_starts[source.line_of(first) - 1] : first]
        if not inner.isspace() or not inner.startswith(indent) or source.item_span(node)[1] != before.span[1]:
            return
        if not isinstance(node, ast.match_case | ast.excepthandler):
            yield _indented(target, start, end, indent, inner)


def _indented(target: Target, start: int, end: int, now: str, then: str) -> Change:
    source = target.source
    line = source.line_starts[source.line_of(start) - 1]
    lines = source.text[line:end].split(source.newline)
    moved = [then + each[len(now) :] if each.startswith(now) else each for each in lines]
    return Change(line, end, source.newline.join(moved), 1.0)


def _has_long_string(item: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Constant | ast.JoinedStr) and node.lineno != node.end_lineno for node in ast.walk(item)
    )


def insert_statement(target: Target) -> Iterator[Change]:
    """A statement of the same function is put before this one, or at the end of its block, perhaps with other names."""
    item, source = target.item, target.source
    if not target.alone or isinstance(item, (ast.excepthandler, ast.match_case)) or target.function is item:
        return
    stock = target.vocabulary.ingredients(source, item).statements
    line = source.line_of(target.span[0])
    near = sorted(stock, key=lambda each: (abs(each.line - line), each.line))[:14]
    start, end = target.span
    at = source.line_end(end)
    last = target.place.index + 1 == len(target.place.siblings) and not _leaves(item)
    for each in near:
        if each.kind is ast.Return:
            continue
        distance = 1.0 / (1.0 + abs(each.line - line) / 4)
        for text, weight in _varied(target, each):
            yield Change(start, start, f"{text}{source.newline}{target.indent}", weight * distance)
            if last:
                yield Change(at, at, f"{source.newline}{target.indent}{text}", weight * distance)
    if target.in_loop() and last:
        for text in ("break", "continue"):
            yield Change(at, at, f"{source.newline}{target.indent}{text}", 1.0)


def _leaves(item: ast.AST) -> bool:
    return isinstance(item, ast.Return | ast.Raise | ast.Break | ast.Continue)


def _varied(target: Target, each: Ingredient) -> Iterator[tuple[str, float]]:
    """The statement as it is, and with one of its names replaced."""
    yield each.text, 0.6
    try:
        statement = ast.parse(each.text).body[0]
    except SyntaxError:
        return
    if not each.text.isascii():
        return
    names = [name for name, _ in target.variables[:7] if name != "None"]
    for node in ast.walk(statement):
        if not isinstance(node, ast.Name) or node.lineno != 1 or node.end_col_offset is None:
            continue
        if node.id not in target.vocabulary.scope(target.source, target.item).names:
            continue
        for name in names:
            if name != node.id:
                yield each.text[: node.col_offset] + name + each.text[node.end_col_offset :], 0.3


def change_keyword_word(target: Target) -> Iterator[Change]:
    """`if` and `while`, `if` and `elif`."""
    item, source = target.item, target.source
    start = target.span[0]
    if isinstance(item, ast.While):
        yield Change(start, start + len("while"), "if", 1.0)
    elif isinstance(item, ast.If):
        if source.text.startswith("elif", start):
            yield Change(start, start + len("elif"), "if", 2.0)
            return
        if not (item.orelse and source.text.startswith("elif", source.item_span(item.orelse[0])[0])):
            yield Change(start, start + len("if"), "while", 1.0)
        before = _siblings(target)[0]
        if before is not None and isinstance(before.item, ast.If) and target.alone and not _ends_in_else(before.item):
            yield Change(start, start, "el", 2.0)


def _ends_in_else(node: ast.If) -> bool:
    while len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        node = node.orelse[0]
    return bool(node.orelse)
