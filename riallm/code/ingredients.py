"""Texts of one function that a repair may use again: its conditions, its larger expressions, its plain statements.

Most fixes use what the program already says somewhere near; this is that stock, as written.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from riallm.code.precedence import TUPLE, level_of
from riallm.code.source import Function, Source, is_compound

_LONGEST = 60
"""Characters; longer texts are rarely wanted twice."""

_EXPRESSIONS = (ast.Call, ast.Attribute, ast.Subscript, ast.BinOp, ast.Compare, ast.BoolOp, ast.List, ast.Tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """A text and the names that it reads. `level`: how tightly it binds (`precedence`)."""

    text: str
    names: frozenset[str]
    kind: type[ast.AST]
    line: int
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """In the order of the file, each text once."""

    conditions: tuple[Ingredient, ...]
    expressions: tuple[Ingredient, ...]
    statements: tuple[Ingredient, ...]


def ingredients_of(source: Source, function: Function | None) -> Ingredients:
    """The stock of a function; for None, of the file's top level without the insides of functions and classes."""
    body: list[ast.stmt] = source.tree.body if function is None else function.body
    conditions: dict[str, Ingredient] = {}
    expressions: dict[str, Ingredient] = {}
    statements: dict[str, Ingredient] = {}
    for node in _nodes(body):
        for test in _tests(node):
            for part in _conjuncts(test):
                _keep(source, part, conditions)
        if isinstance(node, _EXPRESSIONS) and isinstance(getattr(node, "ctx", None), ast.Load | None):
            _keep(source, node, expressions)
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.Return) and not is_compound(node):
            _keep(source, node, statements)
    return Ingredients(
        conditions=tuple(conditions.values()),
        expressions=tuple(expressions.values()),
        statements=tuple(statements.values()),
    )


def _nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What the function itself evaluates; comprehensions, lambdas and f-strings are taken whole."""
    stack: list[ast.AST] = list(reversed(body))
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, Function | ast.ClassDef | ast.Lambda | ast.JoinedStr):
            continue
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            stack.append(node.generators[0].iter)
            continue
        stack.extend(reversed([child for child in ast.iter_child_nodes(node) if not _is_annotation(node, child)]))


def _is_annotation(node: ast.AST, child: ast.AST) -> bool:
    return getattr(node, "annotation", None) is child


def _tests(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
        return [node.test]
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Compare | ast.BoolOp):
        return [node.value]
    return []


def _conjuncts(test: ast.expr) -> Iterator[ast.expr]:
    if isinstance(test, ast.BoolOp):
        for value in test.values:
            yield from _conjuncts(value)
        return
    if not isinstance(test, ast.Constant):
        yield test


def _keep(source: Source, node: ast.AST, found: dict[str, Ingredient]) -> None:
    text = source.segment(node)
    if len(text) > _LONGEST or "\n" in text or "\r" in text or text in found or _is_text(node):
        return
    if any(isinstance(each, ast.NamedExpr | ast.Yield | ast.YieldFrom | ast.Await) for each in ast.walk(node)):
        return
    found[text] = Ingredient(
        text=text,
        names=frozenset(
            each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)
        ),
        kind=type(node),
        line=node.lineno,  # type: ignore[attr-defined]
        level=level_of(node) if isinstance(node, ast.expr) else TUPLE,
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
