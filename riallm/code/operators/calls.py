"""A call around an expression too many or too few: conversions, bounds, copies, parentheses, `await`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from riallm.code.facts import tail
from riallm.code.operators.target import Change, Slot, Target
from riallm.code.precedence import AWAIT

_BUILTIN: dict[str, float] = {
    "str": 1.0,
    "int": 1.0,
    "len": 0.8,
    "list": 0.8,
    "float": 0.4,
    "sorted": 0.4,
    "set": 0.4,
    "tuple": 0.4,
    "dict": 0.3,
    "abs": 0.3,
    "bool": 0.25,
    "repr": 0.25,
    "range": 0.25,
    "enumerate": 0.2,
    "reversed": 0.2,
    "max": 0.2,
    "min": 0.2,
    "sum": 0.2,
    "iter": 0.15,
    "next": 0.15,
    "any": 0.15,
    "all": 0.15,
    "round": 0.15,
    "frozenset": 0.05,
}
_FIELD = re.compile(r"\{[A-Za-z_][\w.\[\]]*(?:[!:][^{}]*)?\}")


def _wrappable(slot: Slot) -> float:
    """How likely an expression is what a call should have been put around; 0 where it cannot be."""
    if not slot.loaded or slot.callee or isinstance(slot.parent, ast.Expr | ast.JoinedStr | ast.Starred):
        return 0.0
    if isinstance(slot.node, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr | ast.Lambda):
        return 0.0
    if isinstance(slot.node, ast.Constant):
        return 0.1
    return 0.3 if isinstance(slot.parent, ast.Attribute | ast.FormattedValue) else 1.0


def wrap_call(target: Target) -> Iterator[Change]:
    """`x` becomes `f(x)`: builtins, and functions that this file calls."""
    weights = dict(_BUILTIN)
    for name, weight in target.vocabulary.callees(target.source, target.item)[:25]:
        weights[name] = weights.get(name, 0.1) + 0.2 * weight
    for slot in target.slots:
        share = _wrappable(slot)
        inner = slot.text[1:-1] if slot.text[:1] == "(" and isinstance(slot.node, ast.GeneratorExp) else slot.text
        parent = slot.parent
        around = tail(parent.func) if isinstance(parent, ast.Call) and len(parent.args) == 1 else ""
        if share:
            for name, weight in weights.items():
                if name != around:
                    yield slot.put(f"{name}({inner})", share * weight)


def bound_value(target: Target) -> Iterator[Change]:
    """`x` becomes `min(x, y)` or `max(x, y)` for a variable, 0 or 1."""
    for slot in target.slots:
        share = _wrappable(slot)
        if share < 1.0 or isinstance(slot.node, ast.Compare | ast.BoolOp | ast.List | ast.Dict | ast.JoinedStr):
            continue
        for name, weight in (("0", 1.0), ("1", 0.6), *target.names(slot)[:6]):
            if name not in (slot.text, "None"):
                low, high = (1.0, 0.3) if name in "01" else (0.7, 0.7)
                yield slot.put(f"max({slot.text}, {name})", low * weight)
                yield slot.put(f"min({slot.text}, {name})", high * weight)


def unwrap_call(target: Target) -> Iterator[Change]:
    """`f(x)` becomes `x`."""
    for slot in target.find(ast.Call):
        node = slot.node
        for argument in node.args[:4] if isinstance(node, ast.Call) else ():
            part = target.slot_of(argument)
            if part is not None:
                weight = 1.0 if len(getattr(node, "args", [])) == 1 else 0.3
                yield slot.put(part.text, weight, part.level)


def call_parentheses(target: Target) -> Iterator[Change]:
    """A call that was forgotten (`x.keys` for `x.keys()`), or made where the function itself was meant."""
    called = set(target.facts.methods.get("", ()))
    for slot in target.slots:
        node = slot.node
        if isinstance(node, ast.Call) and not node.args and not node.keywords:
            yield Change(target.source.span(node.func)[1], slot.end, "", 1.0)
        elif slot.loaded and not slot.callee and isinstance(node, ast.Name | ast.Attribute):
            word = tail(node)
            known = word in target.facts.signatures or word in target.facts.callees or word in called
            weight = 1.0 if known else 0.1
            if not isinstance(slot.parent, ast.Attribute) or known:
                yield slot.put(f"{slot.text}()", weight)


def copy_value(target: Target) -> Iterator[Change]:
    """A copy is handed on, stored or walked over, and not the thing itself."""
    deep = "copy" in target.facts.bound
    for slot in target.find(ast.Name, ast.Attribute, ast.Subscript):
        if _wrappable(slot) < 1.0 or isinstance(slot.parent, ast.BinOp | ast.Compare | ast.Subscript):
            continue
        for text, weight in (("list({})", 1.0), ("{}.copy()", 1.0), ("{}[:]", 0.7), ("dict({})", 0.4)):
            yield slot.put(text.format(slot.text), weight)
        if deep:
            yield slot.put(f"copy.deepcopy({slot.text})", 1.0)
            yield slot.put(f"copy.copy({slot.text})", 0.7)


def change_await(target: Target) -> Iterator[Change]:
    """`await`, `async for` and `async with` where they were forgotten, in functions that may use them."""
    if not isinstance(target.function, ast.AsyncFunctionDef):
        return
    for slot in target.slots:
        if isinstance(slot.node, ast.Call) and not isinstance(slot.parent, ast.Await):
            yield slot.put(f"await {slot.text}", 1.0, AWAIT)
        elif isinstance(slot.node, ast.Await):
            part = target.slot_of(slot.node.value)
            if part is not None:
                yield slot.put(part.text, 0.5)
    start = target.span[0]
    if isinstance(target.item, ast.For | ast.With):
        yield Change(start, start, "async ", 1.0)


def convert_string(target: Target) -> Iterator[Change]:
    """The `f` of an f-string forgotten or needless, `!r` in one, a value for `%` that is a tuple."""
    for slot in target.slots:
        node = slot.node
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not isinstance(slot.parent, ast.Expr):
            if slot.text[:1] in "\"'" and _FIELD.search(slot.text):
                yield slot.put("f" + slot.text, 2.0)
            if slot.text[:1] in "\"'" and "\\" in slot.text:
                yield slot.put("r" + slot.text, 0.3)
        elif isinstance(node, ast.JoinedStr) and slot.text[:1] in "fF":
            yield slot.put(slot.text[1:], 0.3)
        elif isinstance(slot.parent, ast.FormattedValue):
            after = target.source.text[slot.end : slot.end + 1]
            if after == "}":
                yield Change(slot.end, slot.end, "!r", 0.5)
        elif isinstance(slot.parent, ast.BinOp) and isinstance(slot.parent.op, ast.Mod) and slot.field == "right":
            yield slot.put(f"({slot.text},)", 0.5)
            yield slot.put(f"str({slot.text})", 0.2)
