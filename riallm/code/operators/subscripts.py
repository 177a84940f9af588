"""Subscripts and slices: the wrong index, a bound too many or too few, a missing key."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.facts import tail
from riallm.code.operators.target import Change, Slot, Target
from riallm.code.precedence import SUM, UNARY


def change_index(target: Target) -> Iterator[Change]:
    """First and last element, an element and a slice up to it or from it, another variable, two indices exchanged."""
    for slot in target.slots:
        if not isinstance(slot.parent, ast.Subscript) or slot.field != "slice" or isinstance(slot.node, ast.Tuple):
            continue
        for text, weight in (("0", 0.5), ("-1", 0.8), ("1", 0.4), ("-2", 0.1), (f"-{slot.at(UNARY)}", 0.3)):
            if text != slot.text:
                yield slot.put(text, weight)
        if slot.loaded:
            for form, weight in ((":{}", 0.5), ("{}:", 0.5), ("{} + 1:", 0.2), (":{} + 1", 0.2)):
                yield slot.put(form.format(slot.at(SUM)), weight)
        for key, weight in target.vocabulary.keys(target.source, tail(slot.parent.value))[:10]:
            yield slot.put(key, weight)
        inner = slot.parent.value
        other = target.slot_of(inner.slice) if isinstance(inner, ast.Subscript) else None
        if other is not None:
            between = target.source.text[other.end : slot.start]
            yield Change(other.start, slot.end, slot.text + between + other.text, 1.0)


def change_slice(target: Target) -> Iterator[Change]:
    """A bound dropped or added, bounds exchanged, a step, reversal."""
    source = target.source
    for slot in target.slots:
        node = slot.node
        if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Slice):
            continue
        start, end = source.span(node.slice)
        lower, upper, step = (
            "" if part is None else source.segment(part)
            for part in (node.slice.lower, node.slice.upper, node.slice.step)
        )
        forms: list[tuple[str, str, str, float]] = [
            ("", upper, step, 1.0),
            (lower, "", step, 1.0),
            (lower, upper, "", 0.5),
            (upper, lower, step, 0.7),
            (lower, upper, "-1", 0.5),
            (lower, upper, "2", 0.3),
            ("1", upper, step, 0.6 if not lower else 0.2),
            (lower, "-1", step, 0.6 if not upper else 0.2),
            (upper, "", step, 0.6),
            ("", lower, step, 0.6),
        ]
        if lower and upper:
            forms += [(lower, f"{lower} + {upper}", step, 0.6)]
        for name, weight in target.names(slot)[:8]:
            if name != "None":
                forms += [(name, upper, step, 0.4 * weight), (lower, name, step, 0.4 * weight)]
        if upper and not upper.startswith("-"):
            forms.append((lower, f"-{upper}", step, 0.3))
        for low, high, by, weight in forms:
            text = f"{low}:{high}" + (f":{by}" if by else "")
            yield Change(start, end, text, weight)


def _indexable(slot: Slot) -> bool:
    if not slot.loaded or slot.callee or isinstance(slot.parent, ast.Expr | ast.FormattedValue):
        return False
    return isinstance(slot.node, ast.Name | ast.Attribute | ast.Call | ast.Subscript)


def add_subscript(target: Target) -> Iterator[Change]:
    """`x` becomes an element or a part of itself."""
    for slot in target.slots:
        if not _indexable(slot):
            continue
        share = 0.4 if isinstance(slot.parent, ast.Attribute) else 1.0
        for text, weight in (("0", 1.0), ("-1", 0.7), ("1", 0.5), ("1:", 0.6), (":-1", 0.6), ("::-1", 0.4), (":", 0.3)):
            yield slot.put(f"{slot.text}[{text}]", share * weight)
        for key, weight in target.vocabulary.keys(target.source, tail(slot.node))[:8]:
            yield slot.put(f"{slot.text}[{key}]", share * weight)
        for name, weight in target.names(slot)[:6]:
            if name not in ("None", slot.text):
                yield slot.put(f"{slot.text}[{name}]", 0.4 * share * weight)


def remove_subscript(target: Target) -> Iterator[Change]:
    """`x[i]` becomes `x`."""
    for slot in target.slots:
        if isinstance(slot.node, ast.Subscript):
            end = target.source.span(slot.node.value)[1]
            if target.source.text[end : slot.end].lstrip().startswith("["):
                yield Change(end, slot.end, "", 1.0)


def dictionary_access(target: Target) -> Iterator[Change]:
    """`d[k]` and `d.get(k)`, with and without a default; `pop`, `getattr` and `next` with a default."""
    source = target.source
    for slot in target.slots:
        node = slot.node
        if isinstance(node, ast.Subscript) and slot.loaded and not isinstance(node.slice, ast.Slice | ast.Tuple):
            end = source.span(node.value)[1]
            key = source.segment(node.slice)
            for text, weight in (("", 1.0), (", 0", 0.4), (", None", 0.2), (", []", 0.3), (', ""', 0.3), (", {}", 0.3)):
                yield Change(end, slot.end, f".get({key}{text})", weight)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.keywords:
            yield from _methods(target, slot, node, node.func)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            wanted = {"getattr": 2, "next": 1}.get(node.func.id)
            if wanted == len(node.args):
                end = source.span(node.args[-1])[1]
                for text in ("None", "False", '""', "0"):
                    yield Change(end, end, f", {text}", 1.0 if text == "None" else 0.3)


def _methods(target: Target, slot: Slot, node: ast.Call, func: ast.Attribute) -> Iterator[Change]:
    source = target.source
    if func.attr == "get" and node.args:
        end = source.span(func.value)[1]
        yield Change(end, slot.end, f"[{source.segment(node.args[0])}]", 1.0)
        if len(node.args) == 1:
            at = source.span(node.args[0])[1]
            for text, weight in (("0", 0.6), ("[]", 0.5), ('""', 0.5), ("{}", 0.5), ("False", 0.2), ("1", 0.2)):
                yield Change(at, at, f", {text}", weight)
    elif func.attr == "pop" and len(node.args) == 1:
        at = source.span(node.args[0])[1]
        yield Change(at, at, ", None", 0.7)
    elif func.attr in ("append", "add", "extend", "update") and len(node.args) == 1:
        argument = target.slot_of(node.args[0])
        if argument is not None and func.attr in ("extend", "update"):
            yield argument.put(f"[{argument.text}]", 0.5)
