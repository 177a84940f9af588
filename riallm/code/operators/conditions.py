"""Conditions that are too loose, too strict, the wrong way round, or ask for truth where they should ask for None."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.operators.target import Change, Slot, Target, grown
from riallm.code.precedence import AND, ATOM, BIT_OR, COMPARISON, NOT, OR

_SIMPLE = (
    ("{}", 0.6, ATOM),
    ("not {}", 0.4, NOT),
    ("{} is not None", 0.6, COMPARISON),
    ("{} is None", 0.3, COMPARISON),
)


def _tests(target: Target) -> Iterator[tuple[Slot, float]]:
    """Conditions of the item, with how far each is one: branches fully, returned and stored truths less."""
    for slot in target.slots:
        if slot.condition or isinstance(slot.parent, ast.Assert):
            yield slot, 1.0
        elif isinstance(slot.parent, ast.Return | ast.Assign | ast.keyword | ast.Call) and isinstance(
            slot.node, ast.Compare | ast.BoolOp
        ):
            yield slot, 0.4


def more_conditions(target: Target, slot: Slot) -> list[tuple[str, float, int]]:
    """(text, weight, level of precedence): conditions of the function, then simple ones on variables in sight."""
    found: dict[str, tuple[float, int]] = {}
    used = {node.id for node in ast.walk(slot.node) if isinstance(node, ast.Name)}
    visible = {name for name, _ in target.names(slot)} | set(target.facts.bound)
    own = {target.source.segment(each) for each in getattr(slot.node, "values", ())} | {slot.text}
    for each in target.vocabulary.ingredients(target.source, target.item).conditions:
        if each.text not in own and each.names <= visible | {"len", "isinstance", "hasattr", "not", "self", "cls"}:
            found.setdefault(each.text, (1.0 if each.names & used else 0.5, each.level))
    for name, weight in target.names(slot)[:8]:
        if name != "None":
            share = weight * (1.0 if name in used else 0.5)
            for text, part, level in _SIMPLE:
                found.setdefault(text.format(name), (share * part, level))
    for text in sorted({ast.unparse(node) for node in ast.walk(slot.node) if isinstance(node, ast.Attribute)}):
        for form, part, level in _SIMPLE[:3:2]:
            found.setdefault(form.format(text), (0.4 * part, level))
    ranked = sorted(found.items(), key=lambda pair: (-pair[1][0], pair[0]))[:40]
    return [(text, weight, level) for text, (weight, level) in ranked]


def _joined(slot: Slot, word: str, other: str) -> Iterator[tuple[str, float]]:
    """`slot word other` and the reverse, with parentheses only where the meaning needs them."""
    mine = slot.at(AND if word == "and" else OR)
    yield f"{mine} {word} {other}", 1.0
    yield f"{other} {word} {mine}", 0.6


def stricter_condition(target: Target) -> Iterator[Change]:
    """`if a` becomes `if a and b`; an alternative of `a or b` is dropped."""
    yield from _extended(target, "and")
    yield from _shortened(target, ast.Or)


def looser_condition(target: Target) -> Iterator[Change]:
    """`if a` becomes `if a or b`; a part of `a and b` is dropped."""
    yield from _extended(target, "or")
    yield from _shortened(target, ast.And)


def _extended(target: Target, word: str) -> Iterator[Change]:
    for slot, share in _tests(target):
        for other, weight, _ in more_conditions(target, slot):
            for text, part in _joined(slot, word, other):
                yield slot.put(text, share * weight * part, AND if word == "and" else OR)


def _shortened(target: Target, kind: type[ast.boolop]) -> Iterator[Change]:
    text = target.source.text
    for slot in target.find(ast.BoolOp):
        node = slot.node
        if isinstance(node, ast.BoolOp) and isinstance(node.op, kind):
            spans = [grown(text, *target.source.span(value), slot.start) for value in node.values]
            for index, (start, end) in enumerate(spans):
                if index + 1 < len(spans):
                    yield Change(start, spans[index + 1][0], "", 3.0)
                else:
                    yield Change(spans[index - 1][1], end, "", 3.0)


def change_condition(target: Target) -> Iterator[Change]:
    """Another condition of the function in place of this one."""
    for slot, share in _tests(target):
        for other, weight, level in more_conditions(target, slot)[:25]:
            yield slot.put(other, share * weight, level)


def change_truth_test(target: Target) -> Iterator[Change]:
    """`x`, `x is not None`, `len(x) > 0`; `not x`, `x is None`; `type(x) == T` and `isinstance`."""
    for slot in target.slots:
        node = slot.node
        asked = slot.condition or isinstance(slot.parent, ast.BoolOp | ast.Return | ast.Assign | ast.Assert)
        if not asked or not slot.loaded:
            continue
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript | ast.Call):
            share = 1.0 if slot.condition or isinstance(slot.parent, ast.BoolOp) else 0.2
            yield slot.put(f"{slot.text} is not None", share, COMPARISON)
            yield slot.put(f"{slot.text} is None", 0.4 * share, COMPARISON)
            yield slot.put(f"len({slot.text}) > 0", 0.1 * share, COMPARISON)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            part = target.slot_of(node.operand)
            if part is not None:
                yield slot.put(f"{part.at(BIT_OR)} is None", 1.0, COMPARISON)
                yield slot.put(f"{part.at(BIT_OR)} is not None", 0.3, COMPARISON)
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            part = target.slot_of(node.left)
            other = node.comparators[0]
            if part is None:
                continue
            if isinstance(other, ast.Constant) and not other.value:
                positive = isinstance(node.ops[0], ast.IsNot | ast.NotEq | ast.Gt)
                yield slot.put(part.text if positive else f"not {part.text}", 1.0, part.level if positive else NOT)
            yield from _kinds(target, slot, node, part)


def _kinds(target: Target, slot: Slot, node: ast.Compare, part: Slot) -> Iterator[Change]:
    right = target.slot_of(node.comparators[0])
    if right is not None and isinstance(part.node, ast.Call) and part.text.startswith("type(") and part.node.args:
        value = target.slot_of(part.node.args[0])
        if value is not None:
            yield slot.put(f"isinstance({value.text}, {right.text})", 1.0)
