"""Which names a position can see: what its function binds and where it is used, and what encloses that.

Comprehensions and lambdas see what is around them; what they bind themselves is kept apart by `inner`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from riallm.code.source import Function, Item, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Names visible in one function, or at the top of the file.

    locals: name -> (line where it is first bound, lines where it occurs).
    parameters: names of the function's parameters, which are locals too.
    enclosing: names bound by the functions around, the nearest first.
    inner: names that only comprehensions and lambdas inside bind.
    roles: name -> what it is used as, in words of `role_of`.
    """

    locals: dict[str, tuple[int, list[int]]]
    parameters: tuple[str, ...]
    enclosing: tuple[frozenset[str], ...]
    inner: frozenset[str]
    roles: dict[str, frozenset[str]]

    @property
    def names(self) -> set[str]:
        """All names of the function and those around it."""
        return set(self.locals).union(*self.enclosing)


def scope_of(source: Source, function: Function | None) -> Scope:
    """The scope of a function of the file; of its top level for None, where module names are not locals."""
    if function is None:
        return Scope(locals={}, parameters=(), enclosing=(), inner=frozenset(), roles={})
    walker = _Bindings(function)
    enclosing = []
    outer = _outer_function(source, function)
    while outer is not None:
        enclosing.append(frozenset(_Bindings(outer).first))
        outer = _outer_function(source, outer)
    return Scope(
        locals={name: (line, walker.uses.get(name) or [line]) for name, line in walker.first.items()},
        parameters=tuple(parameters(function)),
        enclosing=tuple(enclosing),
        inner=frozenset(walker.inner - set(walker.first)),
        roles=_roles(function),
    )


def _outer_function(source: Source, node: Function) -> Function | None:
    parent = source.places[node].parent
    return source.function_of(parent) if isinstance(parent, Item) else None


def role_of(parent: ast.AST, field: str) -> str:
    """What an expression at `parent.field` is used as: "receiver", "index", "number", ...; "" for others."""
    return _ROLES.get((type(parent), field), "")


_ROLES: dict[tuple[type[ast.AST], str], str] = {
    (ast.Attribute, "value"): "receiver",
    (ast.Subscript, "value"): "container",
    (ast.Subscript, "slice"): "index",
    (ast.Slice, "lower"): "index",
    (ast.Slice, "upper"): "index",
    (ast.BinOp, "left"): "number",
    (ast.BinOp, "right"): "number",
    (ast.AugAssign, "value"): "number",
    (ast.Compare, "left"): "compared",
    (ast.Compare, "comparators"): "compared",
    (ast.For, "iter"): "walked",
    (ast.comprehension, "iter"): "walked",
    (ast.Call, "args"): "argument",
    (ast.Call, "func"): "called",
    (ast.If, "test"): "truth",
    (ast.While, "test"): "truth",
    (ast.BoolOp, "values"): "truth",
    (ast.UnaryOp, "operand"): "truth",
}


def _roles(function: Function) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for parent in ast.walk(function):
        for field, value in ast.iter_fields(parent):
            for node in value if isinstance(value, list) else (value,):
                if isinstance(node, ast.Name) and (role := role_of(parent, field)):
                    found.setdefault(node.id, set()).add(role)
    return {name: frozenset(roles) for name, roles in found.items()}


def parameters(function: Function | ast.Lambda) -> list[str]:
    """Names of all parameters, in order."""
    spec = function.args
    found = [arg.arg for arg in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    return found + [arg.arg for arg in (spec.vararg, spec.kwarg) if arg is not None]


class _Bindings(ast.NodeVisitor):
    """First binding and uses of each name of a function, without the insides of functions in it."""

    def __init__(self, function: Function) -> None:
        self.first: dict[str, int] = dict.fromkeys(parameters(function), function.lineno)
        self.uses: dict[str, list[int]] = {}
        self.inner: set[str] = set()
        self._depth = 0
        for statement in function.body:
            self.visit(statement)

    def _bind(self, name: str, line: int) -> None:
        if self._depth:
            self.inner.add(name)
        else:
            self.first.setdefault(name, line)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id, node.lineno)
        self.uses.setdefault(node.id, []).append(node.lineno)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._nested(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._nested(node)

    def _nested(self, node: Function) -> None:
        self._bind(node.name, node.lineno)
        for default in (*node.args.defaults, *node.args.kw_defaults, *node.decorator_list):
            if default is not None:
                self.visit(default)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name, node.lineno)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._bind((alias.asname or alias.name).split(".")[0], node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name != "*":
                self._bind(alias.asname or alias.name, node.lineno)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bind(node.name, node.lineno)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name:
            self._bind(node.name, node.lineno)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self._bind(node.name, node.lineno)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._depth += 1
        self.inner.update(parameters(node))
        self.visit(node.body)
        self._depth -= 1

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1
