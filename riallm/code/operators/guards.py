"""Values that may be None or missing: a default, a guard before the statement or around it, a guard too many."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.operators.target import Change, Target
from riallm.code.precedence import BIT_OR, NOT, OR, TERNARY
from riallm.code.source import Function

_DEFAULTS = (("[]", 1.0), ('""', 0.8), ("{}", 0.8), ("0", 0.6), ("None", 0.5), ("()", 0.3), ("1", 0.2), ("False", 0.2))


def default_value(target: Target) -> Iterator[Change]:
    """`x` becomes `x or default`, or `x if x is not None else default`; a needless default goes."""
    for slot in target.slots:
        node = slot.node
        if not slot.loaded or slot.callee or slot.condition or isinstance(slot.parent, ast.Expr | ast.FormattedValue):
            continue
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and len(node.values) == 2:
            part = target.slot_of(node.values[0])
            if part is not None:
                test = f"{part.at(BIT_OR)} is not None"
                yield slot.put(f"{part.at(OR)} if {test} else {_second(target, node)}", 2.0, TERNARY)
        elif isinstance(node, ast.IfExp):
            for side in (node.body, node.orelse):
                part = target.slot_of(side)
                if part is not None:
                    yield slot.put(part.text, 0.5, part.level)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
            names = [(name, 0.5 * weight) for name, weight in target.names(slot)[:5] if name not in (slot.text, "None")]
            share = 0.4 if isinstance(slot.parent, ast.Attribute | ast.BinOp | ast.Compare) else 1.0
            for text, weight in (*_DEFAULTS, *names):
                if text != "None":
                    yield slot.put(f"{slot.text} or {text}", share * weight, OR)
                if not isinstance(node, ast.Call):
                    yield slot.put(f"{slot.text} if {slot.text} is not None else {text}", 0.3 * share * weight, TERNARY)


def _second(target: Target, node: ast.BoolOp) -> str:
    part = target.slot_of(node.values[1])
    return part.at(TERNARY) if part is not None else "None"


def _suspects(target: Target) -> list[tuple[str, float]]:
    """Variables and attributes that the statement reads and that could be None, empty or zero."""
    found: dict[str, float] = {}
    owner = target.function
    parameters = {arg.arg for arg in owner.args.args} if owner is not None else set()
    for slot in target.find(ast.Name, ast.Attribute):
        if slot.callee or slot.inner or slot.text in ("self", "cls") or "\n" in slot.text:
            continue
        if isinstance(slot.node, ast.Name) and slot.text in target.facts.bound and slot.text not in parameters:
            continue
        found.setdefault(slot.text, 1.5 if slot.text in parameters else 1.0 if isinstance(slot.node, ast.Name) else 0.6)
    return list(found.items())[:6]


def _conditions(target: Target) -> list[tuple[str, float]]:
    """Conditions under which the statement should not run."""
    found: dict[str, float] = {}
    suspects = _suspects(target)
    for name, weight in suspects:
        for form, share in (("{} is None", 1.0), ("not {}", 1.0), ("{} < 0", 0.2), ("{} == 0", 0.2)):
            found[form.format(name)] = weight * share
    names = {name for name, _ in suspects} | {"self"}
    for each in target.vocabulary.ingredients(target.source, target.item).conditions:
        if each.names & names:
            found.setdefault(each.text, 0.4)
    for first, _ in suspects[:3]:
        for second, _ in suspects[:3]:
            if first != second:
                found.setdefault(f"{first} == {second}", 0.15)
                found.setdefault(f"{first} > {second}", 0.15)
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:24]


def _exits(target: Target) -> list[tuple[str, float]]:
    """Ways to leave: those that the function uses already weigh most."""
    found: dict[str, float] = {}
    function = target.function
    if function is not None:
        for node in ast.walk(function):
            if isinstance(node, ast.Return | ast.Raise) and node is not target.item:
                text = target.source.segment(node)
                if len(text) <= 60 and "\n" not in text:
                    found.setdefault(text, 1.0)
        for text, weight in (("return", 0.8), ("return None", 0.3), ("return []", 0.3), ("return 0", 0.2)):
            found.setdefault(text, weight)
        for text in ("return False", "return True", 'return ""', "return {}", "return 1"):
            found.setdefault(text, 0.2)
        for name, weight in target.variables[:6]:
            if name != "None":
                found.setdefault(f"return {name}", 0.3 * weight)
    if target.in_loop():
        found["continue"] = 1.0
        found["break"] = 0.6
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:16]


def insert_guard(target: Target) -> Iterator[Change]:
    """Before the statement: `if x is None:` and the like, with a return, a raise, a continue, or a value for x."""
    if not target.alone or isinstance(target.item, Function | ast.ClassDef | ast.excepthandler | ast.match_case):
        return
    start, newline, indent = target.span[0], target.source.newline, target.indent
    exits = _exits(target)
    for condition, weight in _conditions(target):
        for text, share in exits:
            body = f"if {condition}:{newline}{indent}{target.step}{text}{newline}{indent}"
            yield Change(start, start, body, weight * share)
    for name, weight in _suspects(target):
        if not name.isidentifier():
            continue
        for value, share in _DEFAULTS[:5]:
            if value != "None":
                body = f"if {name} is None:{newline}{indent}{target.step}{name} = {value}{newline}{indent}"
                yield Change(start, start, body, 0.3 * weight * share)


def wrap_in_if(target: Target) -> Iterator[Change]:
    """The statement runs only under a condition on what it reads."""
    item = target.item
    if not target.alone or not isinstance(
        item, ast.Assign | ast.AugAssign | ast.Expr | ast.Return | ast.Delete | ast.Raise
    ):
        return
    start, end = target.span
    text, newline, indent = target.source.text[start:end], target.source.newline, target.indent
    conditions = [
        (form.format(name), weight * share)
        for name, weight in _suspects(target)
        for form, share in (("{} is not None", 1.0), ("{}", 1.0), ("not {}", 0.3), ("{} is None", 0.4), ("{} > 0", 0.2))
    ]
    for each in target.vocabulary.ingredients(target.source, item).conditions[:15]:
        conditions.append((each.text, 0.4))
        conditions.append((f"not {each.text}" if each.level >= NOT else f"not ({each.text})", 0.3))
    targets = item.targets if isinstance(item, ast.Assign) else []
    for node in targets[:1]:
        if isinstance(node, ast.Name):
            conditions.append((f"{node.id} is None", 0.4))
        elif isinstance(node, ast.Subscript):
            key, container = target.source.segment(node.slice), target.source.segment(node.value)
            conditions.append((f"{key} not in {container}", 1.0))
            conditions.append((f"{key} in {container}", 0.3))
    for condition, weight in conditions:
        yield Change(start, end, f"if {condition}:{newline}{indent}{target.step}{text}", weight)


def remove_guard(target: Target) -> Iterator[Change]:
    """An `if` without `else` goes and its body stays."""
    item, source = target.item, target.source
    if not isinstance(item, ast.If) or item.orelse or not target.alone:
        return
    start, end = target.span
    first = source.item_span(item.body[0])[0]
    outer, inner = target.indent, source.text[source.line_starts[source.line_of(first) - 1] : first]
    if inner.strip() or not inner.startswith(outer) or _has_long_string(item):
        return
    lines = source.text[first:end].split(source.newline + inner)
    yield Change(start, end, (source.newline + outer).join(lines), 1.0)


def _has_long_string(item: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Constant | ast.JoinedStr) and node.lineno != node.end_lineno for node in ast.walk(item)
    )
