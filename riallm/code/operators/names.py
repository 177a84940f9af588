"""Wrong names: another variable, another function, a forgotten `self`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.builtins_table import builtins_like, members_of, methods_beside
from riallm.code.facts import tail
from riallm.code.operators.target import Change, Target


def likeness(one: str, other: str) -> float:
    """1 for unrelated names, up to 3 for names that share words or most letters."""
    if one == other:
        return 3.0
    words = set(one.lower().split("_")) & set(other.lower().split("_")) - {""}
    prefix = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        prefix += 1
    close = prefix >= 3 or (abs(len(one) - len(other)) <= 1 and len(set(one) ^ set(other)) <= 2)
    return 1.0 + (1.0 if words else 0.0) + (1.0 if close else 0.0)


def change_identifier(target: Target) -> Iterator[Change]:
    """Another visible name where a variable is read, or (less often) bound."""
    for slot in target.slots:
        node = slot.node
        if not isinstance(node, ast.Name) or slot.callee or isinstance(node.ctx, ast.Del):
            continue
        share = 1.0 if slot.loaded else 0.3
        if isinstance(slot.parent, ast.Attribute):
            module = target.facts.bound.get(node.id) == "import"
            share = 0.05 if module else 0.2 if node.id in ("self", "cls") else 1.0
        for name, weight in target.names(slot)[:60]:
            if name != node.id and (slot.loaded or name != "None"):
                yield slot.put(name, share * weight * likeness(node.id, name))


def change_function(target: Target) -> Iterator[Change]:
    """Another function is called."""
    callees = target.vocabulary.callees(target.source, target.item)[:60]
    for slot in target.find(ast.Name):
        if slot.callee:
            weights = dict(callees)
            for name in builtins_like(slot.text):
                weights[name] = 1.0 + weights.get(name, 0.0)
            for name, weight in weights.items():
                if name != slot.text:
                    yield slot.put(name, weight * likeness(slot.text, name))


def change_method(target: Target) -> Iterator[Change]:
    """Another method of the same receiver is called."""
    for slot in target.find(ast.Attribute):
        node = slot.node
        if slot.callee and isinstance(node, ast.Attribute):
            end = slot.end
            start = end - len(node.attr)
            if target.source.text[start:end] != node.attr:
                continue
            for name, weight in _methods(target, node).items():
                if name != node.attr:
                    yield Change(start, end, name, weight * likeness(node.attr, name))


def _methods(target: Target, node: ast.Attribute) -> dict[str, float]:
    """Names that could stand for `node.attr` in a call: of the module, of the builtin types, of the vocabulary."""
    word = tail(node.value)
    if isinstance(node.value, ast.Name) and target.facts.bound.get(word) == "import":
        weights = dict.fromkeys(members_of(word), 0.2)
        for name in target.vocabulary.facts(target.source).methods.get(word, ()):
            weights[name] = 0.6
        return weights
    weights = dict(target.vocabulary.methods(target.source, target.item, word)[:40])
    for name in methods_beside(node.attr):
        weights[name] = 0.15 + weights.get(name, 0.0)
    return weights


def change_caller(target: Target) -> Iterator[Change]:
    """The same method of another variable."""
    for slot in target.find(ast.Name):
        parent = slot.parent
        if isinstance(parent, ast.Attribute):
            for name, weight in target.names(slot)[:40]:
                if name not in (slot.text, "None"):
                    yield slot.put(name, weight * likeness(slot.text, name))


def add_self(target: Target) -> Iterator[Change]:
    """`name` becomes `self.name` where the class has such a member, and the other way round."""
    owner = target.source.class_of(target.item)
    function = target.function
    if owner is None or function is None or not function.args.args:
        return
    first = function.args.args[0].arg
    members = {
        name
        for groups in (target.facts.attributes, target.facts.methods)
        for name in groups.get(f"self@{owner.name}", ())
    }
    for slot in target.slots:
        node = slot.node
        if isinstance(node, ast.Name) and node.id != first and node.id not in slot.inner and node.id in members:
            yield slot.put(f"{first}.{node.id}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == first:
            visible = target.vocabulary.scope(target.source, target.item).names
            yield slot.put(node.attr, 1.0 if node.attr in visible or node.attr in target.facts.bound else 0.1)
