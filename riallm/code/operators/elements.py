"""Lists, tuples, sets and dicts with an element too few, too many or out of order, and single values not in one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from riallm.code.operators.target import Change, Slot, Target, grown


def _spans(target: Target, slot: Slot) -> list[tuple[int, int]]:
    text, source, node = target.source.text, target.source, slot.node
    if isinstance(node, ast.Dict):
        spans = []
        for key, value in zip(node.keys, node.values, strict=True):
            end = grown(text, *source.span(value), slot.start + 1)[1]
            start = grown(text, *source.span(key), slot.start + 1)[0] if key is not None else -1
            if start < 0:
                start = text.rindex("**", 0, source.span(value)[0])
            spans.append((start, end))
        return spans
    low = slot.start + 1 if text[slot.start] in "([{" else slot.start
    elements = getattr(node, "elts", [])
    return [grown(text, *source.span(each), low) for each in elements]


def add_element(target: Target) -> Iterator[Change]:
    """One more element: a variable, a string or number of the function, a constant; at the end or at the front."""
    for slot in target.find(ast.List, ast.Tuple, ast.Set, ast.Dict):
        spans = _spans(target, slot)
        if not spans and not slot.text.startswith(("[", "(", "{")):
            continue
        for text, weight in _fillings(target, slot, isinstance(slot.node, ast.Dict)):
            if spans:
                end = spans[-1][1]
                yield Change(end, end, f", {text}", weight)
                start = spans[0][0]
                yield Change(start, start, f"{text}, ", 0.2 * weight)
            else:
                comma = "," if isinstance(slot.node, ast.Tuple) else ""
                yield Change(slot.start + 1, slot.start + 1, text + comma, weight)


def _fillings(target: Target, slot: Slot, pairs: bool) -> Iterator[tuple[str, float]]:
    names = [(name, weight) for name, weight in target.names(slot)[:15]]
    strings = [(repr(text), weight) for text, weight in target.vocabulary.strings(target.source, target.item)[:12]]
    numbers = target.vocabulary.numbers(target.source, target.item)[:4]
    if not pairs:
        texts = any(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in _elements(slot.node))
        yield from names
        yield from ((text, weight * (1.0 if texts else 0.4)) for text, weight in strings)
        yield from ((text, 0.5 * weight) for text, weight in (*numbers, ('""', 0.3), ("None", 0.3)))
        return
    for name, weight in names:
        if name != "None":
            yield f'"{name}": {name}', weight
    for key, share in strings[:6]:
        for name, weight in (*names[:3], ("None", 0.3), ("True", 0.3)):
            yield f"{key}: {name}", 0.4 * share * weight


def _elements(node: ast.expr) -> list[ast.expr]:
    found: list[ast.expr] = getattr(node, "elts", [])
    return found


def remove_element(target: Target) -> Iterator[Change]:
    """One element less."""
    for slot in target.slots:
        if not isinstance(slot.node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            continue
        spans = _spans(target, slot)
        if isinstance(slot.node, ast.Tuple) and len(spans) < 3:
            continue
        for index, (start, end) in enumerate(spans[:20]):
            if index + 1 < len(spans):
                end = spans[index + 1][0]
            elif index:
                start = spans[index - 1][1]
            yield Change(start, end, "", 1.0)


def swap_elements(target: Target) -> Iterator[Change]:
    """Two neighbouring elements change places; in a dict, two values."""
    text = target.source.text
    for slot in target.slots:
        node = slot.node
        if isinstance(node, ast.List | ast.Tuple):
            spans = _spans(target, slot)
        elif isinstance(node, ast.Dict):
            spans = [grown(text, *target.source.span(value), slot.start + 1) for value in node.values]
        else:
            continue
        for one, other in pairwise(spans[:8]):
            swapped = text[slice(*other)] + text[one[1] : other[0]] + text[slice(*one)]
            yield Change(one[0], other[1], swapped, 1.0)


def collect_value(target: Target) -> Iterator[Change]:
    """`x` becomes `[x]` or `(x,)`, and a literal with one element that element."""
    for slot in target.slots:
        node = slot.node
        if not slot.loaded or slot.callee or isinstance(slot.parent, ast.Attribute | ast.Expr | ast.FormattedValue):
            continue
        if isinstance(node, ast.List | ast.Tuple | ast.Set) and len(node.elts) == 1:
            part = target.slot_of(node.elts[0])
            if part is not None:
                yield slot.put(part.text, 1.0, part.level)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Constant | ast.Subscript | ast.BinOp):
            weight = 0.3 if isinstance(node, ast.Constant) else 1.0
            yield slot.put(f"[{slot.text}]", weight)
            yield slot.put(f"({slot.text},)", 0.6 * weight)
