"""The wrong attribute, an attribute or a method call too many or too few."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.facts import tail
from riallm.code.operators.names import likeness
from riallm.code.operators.target import Change, Slot, Target
from riallm.code.precedence import ATOM

_COMMON_METHODS = ("strip", "lower", "upper", "items", "keys", "values", "copy", "split", "decode", "encode", "rstrip")


def change_attribute(target: Target) -> Iterator[Change]:
    """Another attribute of the same receiver."""
    source = target.source
    for slot in target.slots:
        node = slot.node
        if not isinstance(node, ast.Attribute) or slot.callee:
            continue
        start = slot.end - len(node.attr)
        if source.text[start : slot.end] != node.attr:
            continue
        word = tail(node.value)
        share = 1.0 if slot.loaded else 0.4
        for name, weight in target.vocabulary.attributes(source, target.item, word)[:40]:
            if name != node.attr:
                yield Change(start, slot.end, name, share * weight * likeness(node.attr, name))
        for name, weight in target.vocabulary.plain_methods(source, target.item, word)[:6]:
            if name != node.attr and slot.loaded:
                yield Change(start, slot.end, f"{name}()", 0.2 * weight)


def _is_value(slot: Slot) -> bool:
    """Whether something may be appended to the expression with a dot."""
    if not slot.loaded or slot.callee or isinstance(slot.parent, ast.Expr | ast.FormattedValue):
        return False
    return isinstance(slot.node, ast.Name | ast.Attribute | ast.Call | ast.Subscript)


def add_attribute(target: Target) -> Iterator[Change]:
    """`x` becomes `x.name`, of a name seen on `x` elsewhere."""
    for slot in target.slots:
        if _is_value(slot):
            seen = target.vocabulary.attributes(target.source, target.item, tail(slot.node))
            for name, weight in seen[:10]:
                if not (isinstance(slot.parent, ast.Attribute) and slot.parent.attr == name):
                    yield slot.put(f"{slot.text}.{name}", weight)


def remove_attribute(target: Target) -> Iterator[Change]:
    """`x.name` becomes `x`."""
    for slot in target.find(ast.Attribute):
        node = slot.node
        if isinstance(node, ast.Attribute) and not slot.callee:
            part = target.slot_of(node.value)
            if part is not None:
                yield Change(part.end, slot.end, "", 1.0)


def add_method_call(target: Target) -> Iterator[Change]:
    """`x` becomes `x.name()`: a method called so on `x` elsewhere, on anything here, or common on strings and dicts."""
    for slot in target.slots:
        if not _is_value(slot) and not isinstance(slot.node, ast.BinOp | ast.Constant):
            continue
        if isinstance(slot.node, ast.Constant) and not isinstance(slot.node.value, str):
            continue
        if not slot.loaded or slot.callee or isinstance(slot.parent, ast.Expr | ast.FormattedValue | ast.JoinedStr):
            continue
        weights = dict(target.vocabulary.plain_methods(target.source, target.item, tail(slot.node))[:14])
        for name in _COMMON_METHODS:
            weights.setdefault(name, 0.05)
        share = 0.3 if isinstance(slot.parent, ast.Attribute) or isinstance(slot.node, ast.Constant) else 1.0
        for name, weight in weights.items():
            yield slot.put(f"{slot.at(ATOM)}.{name}()", share * weight)


def remove_method_call(target: Target) -> Iterator[Change]:
    """`x.name(...)` becomes `x`."""
    for slot in target.find(ast.Call):
        node = slot.node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            part = target.slot_of(node.func.value)
            if part is not None:
                weight = 1.0 if not node.args else 0.5
                yield slot.put(part.text, weight, part.level)
