"""An expression of the same function in place of this one: what most larger fixes are made of."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.operators.target import Change, Slot, Target

_MOST = 160


def replace_expression(target: Target) -> Iterator[Change]:
    """Another expression that the function uses; those of the same kind and the nearest first."""
    source, item = target.source, target.item
    stock = target.vocabulary.ingredients(source, item).expressions
    line = source.line_of(target.span[0])
    near = sorted(stock, key=lambda each: (abs(each.line - line), each.line, each.text))[:24]
    changes = []
    for slot in target.slots:
        share = _replaceable(slot)
        if not share:
            continue
        names = {node.id for node in ast.walk(slot.node) if isinstance(node, ast.Name)}
        for each in near:
            if each.text == slot.text:
                continue
            if each.line == line and slot.text in each.text:
                continue
            weight = share * (2.0 if isinstance(slot.node, each.kind) else 1.0)
            weight *= 1.5 if each.names & names else 1.0
            weight /= 1.0 + abs(each.line - line) / 6
            changes.append(slot.put(each.text, weight, each.level))
    changes.sort(key=lambda change: (-change.weight, change.start, change.text))
    yield from changes[:_MOST]


def _replaceable(slot: Slot) -> float:
    """How well an expression can be exchanged as a whole; 0 where it cannot."""
    if not slot.loaded or slot.callee or isinstance(slot.parent, ast.Expr | ast.Attribute | ast.FormattedValue):
        return 0.0
    if isinstance(slot.node, ast.Name):
        return 1.0 if slot.text not in ("self", "cls") else 0.1
    return 0.5 if isinstance(slot.node, ast.Constant) else 0.8
