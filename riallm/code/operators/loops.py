"""Loops: the wrong bounds, `break` and `continue`, what is walked over, filters of comprehensions."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.operators.arguments import calls
from riallm.code.operators.target import Change, Slot, Target, grown
from riallm.code.precedence import ATOM, SUM


def change_range(target: Target) -> Iterator[Change]:
    """Bounds of `range` one more or less, a start, a step, the other way round."""
    for call in calls(target):
        node = call.node
        if not isinstance(node.func, ast.Name) or node.func.id != "range" or node.keywords:
            continue
        parts = [target.slot_of(argument) for argument in node.args]
        texts = [part.at(SUM) for part in parts if part is not None]
        if len(texts) != len(parts) or not texts or len(call.parts) > 3:
            continue
        first, second = ("0", texts[0]) if len(texts) == 1 else (texts[0], texts[1])
        by = f", {texts[2]}" if len(texts) == 3 else ""
        forms = [
            (f"{first}, {second} + 1{by}", 1.0),
            (f"{first}, {second} - 1{by}", 0.8),
            (f"{first} + 1, {second}{by}" if first != "0" else f"1, {second}{by}", 1.0),
            (f"{first} - 1, {second}{by}", 0.3),
            (f"1, {second} + 1{by}", 0.5),
            (f"{second} - 1, {first} - 1, -1", 0.5),
            (f"{second}, {first}, -1", 0.4),
            (f"{first}, {second}, -1", 0.4),
            (f"{first}, {second}, 2", 0.2),
            (f"{second}", 0.3 if len(texts) > 1 else 0.0),
            (f"{first}, {second}", 0.5 if by else 0.0),
        ]
        if first == "0" and not by:
            forms[:2] = [(f"{second} + 1", 1.0), (f"{second} - 1", 0.8)]
        for text, weight in forms:
            if weight:
                yield Change(call.parts[0][0], call.parts[-1][1], text, weight)


def change_iterable(target: Target) -> Iterator[Change]:
    """`range(len(x))`, `enumerate(x)`, `x.items()`, `reversed(x)`, `list(x)` where a loop walks over `x`."""
    for slot in target.slots:
        if slot.field != "iter" or not isinstance(slot.parent, ast.For | ast.AsyncFor | ast.comprehension):
            continue
        pair = isinstance(slot.parent.target, ast.Tuple)
        for form, weight in (
            ("{}.items()", 2.0 if pair else 0.3),
            ("enumerate({})", 2.0 if pair else 0.2),
            ("enumerate({}, 1)", 0.3),
            ("range({})", 0.5),
            ("range(len({}))", 0.6),
            ("reversed({})", 0.6),
            ("sorted({})", 0.8),
            ("list({})", 0.8),
            ("{}.values()", 0.4),
            ("{}.keys()", 0.2),
            ("set({})", 0.3),
            ("{}[1:]", 0.4),
            ("{}[:-1]", 0.4),
        ):
            yield slot.put(form.format(slot.at(ATOM) if form[0] == "{" else slot.text), weight)
        for name, weight in target.names(slot)[:10]:
            if name not in ("None", slot.text):
                yield slot.put(name, weight)


def break_or_continue(target: Target) -> Iterator[Change]:
    """`break`, `continue`, `return` and `pass` for each other."""
    item = target.item
    start, end = target.span
    if isinstance(item, ast.Break | ast.Continue):
        words = ["break", "continue", "pass"] + (["return"] if target.function is not None else [])
    elif isinstance(item, ast.Pass) and target.in_loop():
        words = ["break", "continue"] + (["return"] if target.function is not None else [])
    elif isinstance(item, ast.Return) and target.in_loop():
        words = ["break", "continue"]
    else:
        return
    now = target.source.text[start:end]
    for word in words:
        if word != now:
            yield Change(start, end, word, 1.0)


def comprehension_condition(target: Target) -> Iterator[Change]:
    """A filter more or less in a comprehension."""
    text = target.source.text
    for slot in target.slots:
        node = slot.node
        if not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue
        for part in node.generators:
            ends = [grown(text, *target.source.span(each), slot.start + 1) for each in (part.iter, *part.ifs)]
            for index, (_, end) in enumerate(ends[1:]):
                yield Change(ends[index][1], end, "", 1.0)
            for condition, weight in _filters(target, slot, part):
                yield Change(ends[-1][1], ends[-1][1], f" if {condition}", weight)


def _filters(target: Target, slot: Slot, part: ast.comprehension) -> Iterator[tuple[str, float]]:
    bound = [node.id for node in ast.walk(part.target) if isinstance(node, ast.Name)]
    for name in bound[:3]:
        for form, weight in (("{}", 1.0), ("{} is not None", 0.7), ("not {}", 0.3), ("{} > 0", 0.2), ("{} != 0", 0.2)):
            yield form.format(name), weight
        for other, weight in target.names(slot)[:6]:
            if other not in (*bound, "None"):
                yield f"{name} != {other}", 0.4 * weight
                yield f"{name} not in {other}", 0.3 * weight
                yield f"{name} in {other}", 0.3 * weight
