"""Assignments and definitions: `=` for `+=`, a result that is not kept, the wrong default, a missing decorator."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.operators.operands import operator_span
from riallm.code.operators.target import Change, Target
from riallm.code.source import Function

_AUGMENTED = (
    ("+=", 1.0),
    ("-=", 0.4),
    ("*=", 0.2),
    ("|=", 0.2),
    ("&=", 0.1),
    ("//=", 0.05),
    ("%=", 0.05),
    ("/=", 0.05),
)


def assign_or_augment(target: Target) -> Iterator[Change]:
    """`x = y` and `x += y`."""
    item, source = target.item, target.source
    if (
        isinstance(item, ast.Assign)
        and len(item.targets) == 1
        and not isinstance(item.targets[0], ast.Tuple | ast.List)
    ):
        found = operator_span(target, source.span(item.targets[0])[1], source.span(item.value)[0])
        if found is not None:
            for text, weight in _AUGMENTED:
                yield Change(*found, text, weight)
    elif isinstance(item, ast.AugAssign):
        found = operator_span(target, source.span(item.target)[1], source.span(item.value)[0])
        if found is not None:
            yield Change(*found, "=", 1.0)


def keep_result(target: Target) -> Iterator[Change]:
    """`x.f()` becomes `x = x.f()` or `y = x.f()`; `x = x.f()` becomes `x.f()`."""
    item, source = target.item, target.source
    start = target.span[0]
    if isinstance(item, ast.Expr) and isinstance(item.value, ast.Call | ast.BinOp | ast.Compare):
        node = item.value
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
            found = operator_span(target, source.span(node.left)[1], source.span(node.comparators[0])[0])
            if found is not None:
                yield Change(*found, "=", 3.0)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name | ast.Attribute):
                yield Change(start, start, f"{source.segment(node.func.value)} = ", 2.0)
            for each in node.args[:2]:
                if isinstance(each, ast.Name):
                    yield Change(start, start, f"{each.id} = ", 1.0)
        for name, weight in target.variables[:6]:
            if name != "None":
                yield Change(start, start, f"{name} = ", 0.5 * weight)
    elif isinstance(item, ast.Assign) and isinstance(item.value, ast.Call):
        yield Change(start, source.span(item.value)[0], "", 1.0)


def change_default(target: Target) -> Iterator[Change]:
    """Another default of a parameter, a default more, a default less."""
    item, source = target.item, target.source
    if not isinstance(item, Function):
        return
    spec = item.args
    plain = ("None", "True", "False", "0", "1", '""', "()")
    for default in (*spec.defaults, *spec.kw_defaults):
        slot = None if default is None else target.slot_of(default)
        if slot is not None:
            for text in plain:
                if text != slot.text:
                    yield slot.put(text, 1.0 if text == "None" else 0.5)
            for text, weight in target.vocabulary.numbers(source, item)[:4]:
                yield slot.put(text, 0.2 * weight)
    positional = [*spec.posonlyargs, *spec.args]
    bare = positional[: len(positional) - len(spec.defaults)]
    if bare and bare[-1].arg not in ("self", "cls"):
        end = source.span(bare[-1])[1]
        mark = " = " if bare[-1].annotation is not None else "="
        for text in plain:
            yield Change(end, end, f"{mark}{text}", 0.4 if text == "None" else 0.2)
    if spec.defaults:
        end = source.span(positional[-len(spec.defaults)])[1]
        yield Change(end, source.span(spec.defaults[0])[1], "", 0.3)


def change_decorator(target: Target) -> Iterator[Change]:
    """A method's `staticmethod`, `classmethod` or `property` more or less."""
    item, source = target.item, target.source
    if not isinstance(item, Function) or not isinstance(target.place.parent, ast.ClassDef) or not target.alone:
        return
    start = target.span[0]
    for decorator in item.decorator_list:
        line = source.line_of(source.span(decorator)[0])
        following = source.line_starts[source.line_of(source.span(decorator)[1])]
        yield Change(source.line_starts[line - 1], following, "", 0.5)
    if item.decorator_list:
        return
    first = item.args.args[0].arg if item.args.args else ""
    weights = {"staticmethod": 0.2 if first == "self" else 1.0, "classmethod": 2.0 if first == "cls" else 0.1}
    weights["property"] = 1.0 if first == "self" and len(item.args.args) == 1 else 0.0
    for name, weight in weights.items():
        if weight:
            yield Change(start, start, f"@{name}{source.newline}{target.indent}", weight)
