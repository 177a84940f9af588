"""Calls with an argument too few, too many, in the wrong order, or under the wrong keyword."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from riallm.code.builtins_table import arity
from riallm.code.facts import BUILTINS, tail
from riallm.code.operators.target import Change, Slot, Target, grown

_MANY = 255


@dataclass(frozen=True, slots=True)
class Call:
    """A call with the places of its arguments: `open` is after its parenthesis, `parts` are whole arguments."""

    slot: Slot
    node: ast.Call
    open: int
    parts: list[tuple[int, int]]

    @property
    def last_positional(self) -> int:
        """Where one more positional argument is put."""
        return self.parts[len(self.node.args) - 1][1] if self.node.args else self.open


def calls(target: Target) -> Iterator[Call]:
    """Calls of the item whose arguments can be told apart by position."""
    text = target.source.text
    for slot in target.find(ast.Call):
        node = slot.node
        if not isinstance(node, ast.Call) or (len(node.args) == 1 and isinstance(node.args[0], ast.GeneratorExp)):
            continue
        start = target.source.span(node.func)[1]
        while text[start] in " \t)":
            start += 1
        if text[start] != "(":
            continue
        parts = [grown(text, *target.source.span(each), start + 1) for each in (*node.args, *node.keywords)]
        if parts == sorted(parts):
            yield Call(slot, node, start + 1, parts)


def bounds(target: Target, node: ast.Call) -> tuple[int, int]:
    """Fewest and most positional arguments that the callee takes, as far as the project or Python says."""
    func = node.func
    if any(isinstance(each, ast.Starred) for each in node.args):
        return 0, _MANY
    known = None
    if isinstance(func, ast.Name) and func.id in BUILTINS and func.id not in target.facts.bound:
        known = arity(func.id)
    elif isinstance(func, ast.Attribute) and target.facts.bound.get(tail(func.value)) == "import":
        known = arity(f"{tail(func.value)}.{func.attr}")
    if known is None:
        signature = target.vocabulary.signature(target.source, tail(func))
        if signature is None or signature.open:
            return 0, _MANY
        known = signature.required, len(signature.positional)
    named = sum(keyword.arg is not None for keyword in node.keywords)
    return max(0, known[0] - named), known[1]


def add_argument(target: Target) -> Iterator[Change]:
    """One more positional argument: a variable or a plain constant, at the end or at the front."""
    for call in calls(target):
        signature = target.vocabulary.signature(target.source, tail(call.node.func))
        given = len(call.node.args)
        fewest, most = bounds(target, call.node)
        room = 2.0 if given < fewest else 1.0 if given < most else 0.01
        wanted = signature.positional[given] if signature and given < len(signature.positional) else ""
        used = {each.id for each in call.node.args if isinstance(each, ast.Name)}
        fillings = [(name, weight * (0.3 if name in used else 1.0)) for name, weight in target.names(call.slot)[:20]]
        fillings += [("True", 0.3), ("False", 0.3), ("0", 0.3), ("1", 0.3), ('""', 0.1)]
        more = ", " if call.parts else ""
        for text, weight in fillings:
            weight *= room * (5.0 if text == wanted else 1.0)
            if call.node.args:
                yield Change(call.last_positional, call.last_positional, f", {text}", weight)
            yield Change(call.open, call.open, f"{text}{more}", weight * (0.25 if call.node.args else 1.0))


def add_keyword(target: Target) -> Iterator[Change]:
    """One more keyword argument, of a name that this callee takes elsewhere or by its definition."""
    for call in calls(target):
        given = {keyword.arg for keyword in call.node.keywords}
        end = call.parts[-1][1] if call.parts else call.open
        comma = ", " if call.parts else ""
        for name, weight in target.vocabulary.keywords(target.source, tail(call.node.func))[:12]:
            if name not in given:
                for text, share in _values(target, call.slot, name):
                    yield Change(end, end, f"{comma}{name}={text}", weight * share)


def _values(target: Target, slot: Slot, name: str) -> Iterator[tuple[str, float]]:
    names = [each for each, _ in target.names(slot)[:30]]
    if name in names:
        yield name, 2.0
    for text in ("True", "False", "None", "0", "1"):
        yield text, 0.5
    for each in names[:4]:
        if each not in (name, "None"):
            yield each, 0.3


def remove_argument(target: Target) -> Iterator[Change]:
    """One argument less."""
    for call in calls(target):
        fewest = bounds(target, call.node)[0]
        for index, (start, end) in enumerate(call.parts):
            if index + 1 < len(call.parts):
                end = call.parts[index + 1][0]
            elif index:
                start = call.parts[index - 1][1]
            weight = 1.0 if index + 1 == len(call.parts) else 0.6
            if index < len(call.node.args) <= fewest:
                weight = 0.02
            yield Change(start, end, "", weight)


def swap_arguments(target: Target) -> Iterator[Change]:
    """Two positional arguments change places, or two keywords their values."""
    text = target.source.text
    for call in calls(target):
        count = len(call.node.args)
        values = [grown(text, *target.source.span(each.value), call.open) for each in call.node.keywords if each.arg]
        for spans in (call.parts[:count][:6], values[:5]):
            for first, one in enumerate(spans):
                for second in range(first + 1, len(spans)):
                    other = spans[second]
                    swapped = text[slice(*other)] + text[one[1] : other[0]] + text[slice(*one)]
                    yield Change(one[0], other[1], swapped, 1.0 if second == first + 1 else 0.4)


def change_keyword(target: Target) -> Iterator[Change]:
    """Another keyword for a value; a positional argument given by its keyword, and the other way round."""
    text = target.source.text
    for call in calls(target):
        word = tail(call.node.func)
        known = target.vocabulary.keywords(target.source, word)[:15]
        given = {keyword.arg for keyword in call.node.keywords}
        for keyword in call.node.keywords:
            if keyword.arg is None:
                continue
            start = target.source.span(keyword)[0]
            for name, weight in known:
                if name not in given:
                    yield Change(start, start + len(keyword.arg), name, weight)
            yield Change(start, grown(text, *target.source.span(keyword.value), call.open)[0], "", 0.3)
        signature = target.vocabulary.signature(target.source, word)
        if call.node.args and not isinstance(call.node.args[-1], ast.Starred):
            start = call.parts[len(call.node.args) - 1][0]
            names = [name for name, _ in known] if signature is None else [*signature.positional, *signature.keywords]
            for name in names[:8]:
                if name not in given:
                    yield Change(start, start, f"{name}=", 0.4)
