"""Wrong operands and operators: arithmetic, bits, comparisons, `and`/`or`, signs and `not`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from riallm.code.operators.target import Change, Slot, Target
from riallm.code.precedence import NOT, SUM, UNARY

_SKIP = re.compile(r"#[^\r\n]*|\\\r?\n|[\s()]+")
_ARITHMETIC = ("+", "-", "*", "/", "//", "%", "**")
_BITS = ("&", "|", "^", "<<", ">>")
_ORDER = ("<", "<=", ">", ">=", "==", "!=")
_CLOSEST = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
_ORDERED: dict[type[ast.operator], float] = {
    ast.Add: 0.3,
    ast.Mult: 0.05,
    ast.BitAnd: 0.05,
    ast.BitOr: 0.1,
    ast.BitXor: 0.05,
}
"""How much the order of operands matters to an operator; 1 where it does not stand here."""

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
}
_LIKE: dict[str, tuple[tuple[str, float], ...]] = {
    "is": (("is not", 1.0), ("==", 0.7), ("!=", 0.2)),
    "is not": (("is", 1.0), ("!=", 0.7), ("==", 0.2)),
    "in": (("not in", 1.0), ("==", 0.5), ("!=", 0.1)),
    "not in": (("in", 1.0), ("!=", 0.5), ("==", 0.1)),
}


def operator_span(target: Target, left: int, right: int) -> tuple[int, int] | None:
    """Where the operator stands between two operands; comments and parentheses are passed over."""
    text, at = target.source.text, left
    while at < right and (match := _SKIP.match(text, at, right)):
        at = match.end()
    start, end = at, right
    while True:
        trimmed = text[start:end].rstrip("( \t\r\n\f\\")
        cut = trimmed.find("#")
        end = start + (len(trimmed) if cut < 0 else cut)
        if cut < 0:
            break
    return (start, end) if start < end and "\n" not in text[start:end] else None


def change_operand(target: Target) -> Iterator[Change]:
    """Another variable, a constant or a close expression as operand of arithmetic or a comparison."""
    for slot in target.slots:
        if not isinstance(slot.parent, ast.BinOp | ast.Compare) or slot.field == "ops" or not slot.loaded:
            continue
        for name, weight in target.names(slot)[:30]:
            if name != slot.text:
                yield slot.put(name, weight)
        if not isinstance(slot.node, ast.Constant):
            for text, weight in (("0", 0.4), ("1", 0.4), ("2", 0.1), ('""', 0.1)):
                yield slot.put(text, weight)
            for name, weight in target.names(slot)[:6]:
                if name not in (slot.text, "None"):
                    yield slot.put(f"len({name})", 0.2 * weight)
        if not isinstance(slot.node, ast.Constant):
            yield slot.put(f"len({slot.text})", 0.3)


def swap_operands(target: Target) -> Iterator[Change]:
    """`a - b` becomes `b - a`; comparisons likewise."""
    text = target.source.text
    for slot in target.find(ast.BinOp, ast.Compare):
        node = slot.node
        if isinstance(node, ast.BinOp):
            left, right = target.slot_of(node.left), target.slot_of(node.right)
            weight = _ORDERED.get(type(node.op), 1.0)
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            weight = 0.05 if isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot) else 0.6
            left, right = target.slot_of(node.left), target.slot_of(node.comparators[0])
        else:
            continue
        if left is not None and right is not None:
            middle = text[left.end : right.start]
            yield Change(left.start, right.end, right.at(left.wanted) + middle + left.at(right.wanted), weight)


def drop_operand(target: Target) -> Iterator[Change]:
    """`a + b` becomes `a` or `b`, for any arithmetic or bit operator."""
    for slot in target.find(ast.BinOp):
        node = slot.node
        for side in (node.left, node.right) if isinstance(node, ast.BinOp) else ():
            part = target.slot_of(side)
            if part is not None:
                yield slot.put(part.text, 1.0, part.level)


def add_offset(target: Target) -> Iterator[Change]:
    """`x` becomes `x + 1` or `x - 1`, and the other way round."""
    for slot in target.slots:
        node = slot.node
        if not slot.loaded or slot.callee or isinstance(slot.parent, ast.Attribute | ast.Expr | ast.FormattedValue):
            continue
        if isinstance(node, ast.Name | ast.Subscript | ast.Attribute) or _is_len(node):
            weight = 1.0 if isinstance(slot.parent, ast.Slice | ast.Subscript | ast.Compare | ast.BinOp) else 0.4
            yield slot.put(f"{slot.text} + 1", weight, SUM)
            yield slot.put(f"{slot.text} - 1", weight, SUM)
        elif isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant) and node.right.value == 1:
            part = target.slot_of(node.left)
            if part is not None and isinstance(node.op, ast.Add | ast.Sub):
                yield slot.put(part.text, 2.0, part.level)


def _is_len(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("len", "max", "min", "int")
    )


def change_arithmetic(target: Target) -> Iterator[Change]:
    """Another arithmetic or bit operator, in expressions and in augmented assignments."""
    for slot in target.find(ast.BinOp):
        node = slot.node
        if isinstance(node, ast.BinOp):
            left, right = target.slot_of(node.left), target.slot_of(node.right)
            if left is not None and right is not None:
                yield from _operators(target, operator_span(target, left.end, right.start))
    item = target.item
    if isinstance(item, ast.AugAssign):
        found = operator_span(target, target.source.span(item.target)[1], target.source.span(item.value)[0])
        if found is not None:
            yield from _operators(target, (found[0], found[1] - 1))


def _operators(target: Target, found: tuple[int, int] | None) -> Iterator[Change]:
    if found is None:
        return
    now = target.source.text[found[0] : found[1]]
    groups = {"+": "-*", "-": "+/", "*": "/+", "/": "*"}
    for other in (*_ARITHMETIC, *_BITS):
        if other == now:
            continue
        same = (now in _ARITHMETIC) == (other in _ARITHMETIC)
        close = other in groups.get(now, "") or {now, other} in (
            {"/", "//"},
            {"%", "//"},
            {"&", "|"},
            {"<<", ">>"},
            {"|", "^"},
        )
        yield Change(*found, other, 1.0 if close else 0.4 if same else 0.05)


def change_comparison(target: Target) -> Iterator[Change]:
    """Another comparison: the close one most, identity and equality, membership and equality."""
    for slot in target.find(ast.Compare):
        node = slot.node
        if not isinstance(node, ast.Compare):
            continue
        operands = [node.left, *node.comparators]
        for index, operator in enumerate(node.ops):
            left, right = target.slot_of(operands[index]), target.slot_of(operands[index + 1])
            found = None if left is None or right is None else operator_span(target, left.end, right.start)
            if found is None:
                continue
            now = _COMPARISONS[type(operator)]
            for other, weight in _LIKE.get(now, ()) or _comparisons(now):
                yield Change(*found, other, weight)


def _comparisons(now: str) -> Iterator[tuple[str, float]]:
    for other in _ORDER:
        if other != now:
            yield other, 1.0 if _CLOSEST[now] == other else 0.4
    if now in ("==", "!="):
        yield ("is" if now == "==" else "is not"), 0.3
        yield ("in" if now == "==" else "not in"), 0.5


def change_boolean_operator(target: Target) -> Iterator[Change]:
    """`and` and `or`, one at a time."""
    for slot in target.find(ast.BoolOp):
        node = slot.node
        if not isinstance(node, ast.BoolOp):
            continue
        other = "or" if isinstance(node.op, ast.And) else "and"
        for first, second in zip(node.values, node.values[1:], strict=False):
            left, right = target.slot_of(first), target.slot_of(second)
            found = None if left is None or right is None else operator_span(target, left.end, right.start)
            if found is not None:
                yield Change(*found, other, 1.0)


def change_unary(target: Target) -> Iterator[Change]:
    """A sign or a `not` more or less."""
    for slot in target.slots:
        node = slot.node
        if not slot.loaded:
            continue
        if isinstance(node, ast.UnaryOp):
            part = target.slot_of(node.operand)
            if part is not None:
                yield slot.put(part.text, 1.5, part.level)
                for sign in "-+~":
                    if not isinstance(node.op, ast.Not) and not slot.text.startswith(sign):
                        yield slot.put(sign + part.at(UNARY), 0.1, UNARY)
        elif slot.condition or isinstance(slot.parent, ast.BoolOp):
            yield from _negated(target, slot)
        elif isinstance(slot.parent, ast.Return | ast.Assign) and isinstance(node, ast.Compare | ast.BoolOp | ast.Call):
            yield from _negated(target, slot, 0.3)
        elif _signed(slot):
            yield slot.put(f"-{slot.at(UNARY)}", 0.3, UNARY)


def _negated(target: Target, slot: Slot, weight: float = 1.0) -> Iterator[Change]:
    if not (isinstance(slot.node, ast.Compare) and len(slot.node.ops) == 1):
        yield slot.put(f"not {slot.at(NOT)}", weight, NOT)


def _signed(slot: Slot) -> bool:
    if not isinstance(
        slot.parent, ast.Return | ast.Assign | ast.BinOp | ast.Call | ast.Tuple | ast.Compare | ast.keyword
    ):
        return False
    node = slot.node
    return (isinstance(node, ast.Name) and not slot.callee) or isinstance(node, ast.BinOp | ast.Subscript)
