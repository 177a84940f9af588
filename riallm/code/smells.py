"""Patches that pass tests for the wrong reason: what makes one suspicious, read off the changed syntax.

A suspicious patch may still be right; it is ranked last, and the reader is told why.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import lru_cache

from riallm.code.edit import Edit
from riallm.code.regions import changed_trees, shape
from riallm.code.source import Source

SMELLS: dict[str, str] = {
    "deletes-check": "an assert, a raise or a condition is taken out",
    "deletes-statement": "a statement is taken out, or does nothing any more",
    "leaves-unused": "a value that the function computes is not used any more",
    "widens-guard": "a condition holds more often than before",
    "constant-condition": "a condition is always true or always false",
    "special-case": "a value that occurs in the tests is written into the program",
    "constant-return": "a computed result is replaced by a constant",
    "swallows-exception": "an error is caught and passed over, or every error is caught",
}
"""Flag -> what it means, in words for the user."""

_COMMON = frozenset({"None", "True", "False", "0", "1", "-1", "2", "''", "b''", "0.0", "1.0"})
_BROAD = frozenset({"Exception", "BaseException"})
_NAME = re.compile(r"[^\W\d]\w*")
_TELLING = re.compile(
    r"""[\d'"]|\b(?:and|or|not|if|while|assert|raise|return|except|pass|for|try|del|with)\b|\b(?:True|False|None|Exception|BaseException)\b|\[\s*\]|\{\s*\}|\(\s*\)|\n|\.\.\."""
)
"""An edit in whose old and new text nothing of this stands only exchanges names, operators and calls: no smell."""


def smells(source: Source, edit: Edit, *, tests: str = "") -> frozenset[str]:
    """Flags of one edit, of the keys of `SMELLS`; `tests` is the text of the failing tests, where there is one."""
    exchanged = edit.text.strip() and edit.original.strip() and not _TELLING.search(f"{edit.original} {edit.text}")
    if exchanged and not any(isinstance(item, ast.Expr) for item in source.items_at(source.line_of(edit.start))):
        return frozenset(_unused(source, edit))
    return smells_of_trees(source, edit, tests)


def smells_of_trees(source: Source, edit: Edit, tests: str = "") -> frozenset[str]:
    """The same, always from the syntax trees: what `smells` is tested against."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trees = changed_trees(source, edit)
        if trees is None:
            return frozenset()
        before, after = trees
        found = (
            _deleted(before, after),
            _guards(before, after),
            _values(before, after, tests),
            _swallowed(before, after),
            _unused(source, edit),
        )
        return frozenset(flag for flags in found for flag in flags)


@lru_cache(maxsize=4)
def _walk(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a tree; one edit's two trees are looked through many times."""
    return tuple(ast.walk(tree))


def _count(tree: ast.AST, kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> int:
    return sum(isinstance(node, kinds) for node in _walk(tree))


def _deleted(before: ast.AST, after: ast.AST) -> Iterator[str]:
    if any(_count(after, kind) < _count(before, kind) for kind in (ast.Assert, ast.Raise, ast.If, ast.Try)):
        yield "deletes-check"
    if _statements(after) < _statements(before):
        yield "deletes-statement"


def _statements(tree: ast.AST) -> int:
    """How many statements do something."""
    return _count(tree, ast.stmt) - sum(isinstance(node, ast.Pass) or _is_idle(node) for node in _walk(tree))


def _is_idle(node: ast.AST) -> bool:
    """An expression by itself that calls nothing: `self.flush` where `self.flush()` was meant to run."""
    if not isinstance(node, ast.Expr) or isinstance(node.value, ast.Constant):
        return False
    return not any(isinstance(part, ast.Call | ast.Await | ast.Yield | ast.YieldFrom) for part in ast.walk(node))


def _unused(source: Source, edit: Edit) -> Iterator[str]:
    """A local variable that the function assigns, and that only the replaced text has read."""
    gone = Counter(_NAME.findall(edit.original)) - Counter(_NAME.findall(edit.text))
    function = source.function_at(edit.start) if gone else None
    if function is None:
        return
    lines = range(source.line_of(edit.start), source.line_of(edit.end) + 1)
    loads, stores = _uses(function)
    for name, count in gone.items():
        kept = name in edit.text or any(line not in lines for line in loads[name]) or len(loads[name]) > count
        if loads[name] and not kept and any(line not in lines for line in stores[name]):
            yield "leaves-unused"
            return


@lru_cache(maxsize=64)
def _uses(function: ast.AST) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The lines on which each name is read in a function, and those on which it is bound."""
    loads: dict[str, list[int]] = defaultdict(list)
    stores: dict[str, list[int]] = defaultdict(list)
    for node in _walk(function):
        if isinstance(node, ast.Name):
            (stores if isinstance(node.ctx, ast.Store) else loads)[node.id].append(node.lineno)
    return loads, stores


def _tests(tree: ast.AST) -> list[ast.expr]:
    found: list[ast.expr] = []
    for node in _walk(tree):
        if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
            found.append(node.test)
        elif isinstance(node, ast.comprehension):
            found += node.ifs
    return found


def _parts(test: ast.expr, kind: type[ast.boolop]) -> set[object]:
    values = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, kind) else [test]
    return {shape(value) for value in values}


def _guards(before: ast.AST, after: ast.AST) -> Iterator[str]:
    old, new = _tests(before), _tests(after)
    was_constant = {shape(test) for test in old if isinstance(test, ast.Constant)}
    for test in new:
        parts = test.values if isinstance(test, ast.BoolOp) else [test]
        if any(isinstance(part, ast.Constant) and shape(part) not in was_constant for part in parts):
            yield "constant-condition"
    if len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            alternatives, conjuncts = _parts(one, ast.Or), _parts(one, ast.And)
            if alternatives < _parts(other, ast.Or) or _parts(other, ast.And) < conjuncts:
                yield "widens-guard"
    elif len(new) < len(old) and _count(before, ast.comprehension) == _count(after, ast.comprehension) > 0:
        yield "widens-guard"


def _values(before: ast.AST, after: ast.AST, tests: str) -> Iterator[str]:
    known = _literals(tests) - {repr(value) for value in _constants(before)} - _COMMON
    compared = [
        part
        for node in _walk(after)
        if isinstance(node, ast.Compare | ast.MatchValue | ast.Return)
        for part in ast.walk(node)
    ]
    if any(isinstance(part, ast.Constant) and repr(part.value) in known for part in compared):
        yield "special-case"
    old = [node.value for node in _walk(before) if isinstance(node, ast.Return)]
    new = [node.value for node in _walk(after) if isinstance(node, ast.Return)]
    if len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            if one is not None and not _is_constant(one) and (other is None or _is_constant(other)):
                yield "constant-return"


def _swallowed(before: ast.AST, after: ast.AST) -> Iterator[str]:
    old = [node for node in _walk(before) if isinstance(node, ast.ExceptHandler)]
    new = [node for node in _walk(after) if isinstance(node, ast.ExceptHandler)]
    bodies = {shape(node.body) for node in old if len(old) == len(new)}
    silent = any(_passes_over(node.body) and shape(node.body) not in bodies for node in new)
    if silent or sum(map(_is_broad, new)) > sum(map(_is_broad, old)):
        yield "swallows-exception"


def _constants(tree: ast.AST) -> Iterator[object]:
    return (node.value for node in _walk(tree) if isinstance(node, ast.Constant))


@lru_cache(maxsize=8)
def _literals(text: str) -> frozenset[str]:
    """Constants of the tests; when they do not parse, none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return frozenset()
    return frozenset(repr(value) for value in _constants(tree))


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        return _is_constant(node.operand)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return all(_is_constant(each) for each in node.elts)
    if isinstance(node, ast.Dict):
        return not node.keys
    return isinstance(node, ast.Constant)


def _is_broad(node: ast.ExceptHandler) -> bool:
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _BROAD) for kind in kinds)


def _passes_over(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(each, ast.Pass | ast.Continue | ast.Break)
        or (isinstance(each, ast.Return) and (each.value is None or _is_constant(each.value)))
        for each in body
    )
