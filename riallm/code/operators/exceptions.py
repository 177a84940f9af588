"""Errors: the wrong type raised or caught, too narrow a clause, a call that may raise."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from riallm.code.operators.target import Change, Slot, Target


def _types(target: Target) -> Iterator[Slot]:
    """Names of exception types that the item raises, catches or tests for."""
    item = target.item
    if isinstance(item, ast.Raise):
        roots = [item.exc.func if isinstance(item.exc, ast.Call) else item.exc]
    elif isinstance(item, ast.ExceptHandler):
        roots = list(item.type.elts) if isinstance(item.type, ast.Tuple) else [item.type]
    else:
        return
    for node in roots:
        slot = target.slot_of(node) if isinstance(node, ast.Name | ast.Attribute) else None
        if slot is not None:
            yield slot


def change_exception(target: Target) -> Iterator[Change]:
    """Another exception type."""
    for slot in _types(target):
        for name, weight in target.vocabulary.exceptions(target.source)[:20]:
            if name != slot.text:
                yield slot.put(name, weight)


def widen_exception(target: Target) -> Iterator[Change]:
    """One more type is caught, or one less, or everything."""
    item = target.item
    if not isinstance(item, ast.ExceptHandler) or item.type is None:
        return
    slot = target.slot_of(item.type)
    if slot is None:
        return
    if isinstance(item.type, ast.Tuple):
        for each in item.type.elts:
            yield slot.put(target.source.segment(each), 0.5)
        if item.type.elts:
            end = target.source.span(item.type.elts[-1])[1]
            for name, weight in target.vocabulary.exceptions(target.source)[:12]:
                yield Change(end, end, f", {name}", weight)
        return
    for name, weight in target.vocabulary.exceptions(target.source)[:12]:
        if name != slot.text:
            yield slot.put(f"({slot.text}, {name})", weight)


def wrap_in_try(target: Target) -> Iterator[Change]:
    """An error of the statement is caught: passed over, or answered by a plain value."""
    item, source = target.item, target.source
    if not target.alone or not isinstance(item, ast.Assign | ast.AugAssign | ast.Expr | ast.Return | ast.Delete):
        return
    if not any(isinstance(slot.node, ast.Call | ast.Subscript | ast.BinOp | ast.Attribute) for slot in target.slots):
        return
    start, end = target.span
    answers = [("pass", 0.5)] if not isinstance(item, ast.Return) else []
    if target.in_loop():
        answers.append(("continue", 1.0))
    if target.function is not None:
        answers += [("return", 0.4), ("return None", 0.2), ("return False", 0.4), ("return []", 0.2)]
    if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
        answers += [(f"{item.targets[0].id} = {text}", 0.4) for text in ("None", "0", '""', "[]")]
    inner = source.newline + target.indent + target.step
    outer = source.newline + target.indent
    for name, weight in target.vocabulary.exceptions(source)[:6]:
        for answer, share in answers:
            text = f"try:{inner}{source.text[start:end]}{outer}except {name}:{inner}{answer}"
            yield Change(start, end, text, weight * share)
