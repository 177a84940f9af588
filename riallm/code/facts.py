"""What one file says: names and where they are bound, attributes by receiver, callees, keywords, constants, signatures.

Collected in one walk over the file; `vocabulary` adds the files of a project up.
"""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from dataclasses import dataclass, field

from riallm.code.source import Function, Source

BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Parameters of a function of the project, without `self` or `cls`.

    required: how many of `positional` have no default; open: takes *args or **kwargs.
    """

    positional: tuple[str, ...]
    keywords: tuple[str, ...]
    required: int
    open: bool
    method: bool


@dataclass(slots=True)
class Facts:
    """Counts of one file, or the sum over several.

    bound: names bound at the top of the file and how ("import", "function", "class", "variable").
    attributes, methods: by receiver (`tail` of its expression; `self@Class` for self) and, under "", all together.
    plain: those methods that were called without arguments.
    keys: constant subscripts, as written by `repr`, by receiver.
    """

    names: Counter[str] = field(default_factory=Counter)
    callees: Counter[str] = field(default_factory=Counter)
    attributes: dict[str, Counter[str]] = field(default_factory=dict)
    methods: dict[str, Counter[str]] = field(default_factory=dict)
    plain: dict[str, Counter[str]] = field(default_factory=dict)
    keywords: dict[str, Counter[str]] = field(default_factory=dict)
    keys: dict[str, Counter[str]] = field(default_factory=dict)
    strings: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)
    exceptions: Counter[str] = field(default_factory=Counter)
    signatures: dict[str, Signature] = field(default_factory=dict)
    bound: dict[str, str] = field(default_factory=dict)

    def add(self, other: Facts) -> None:
        """Add the counts of another file; what it binds at its top stays its own."""
        for mine, theirs in (
            (self.names, other.names),
            (self.callees, other.callees),
            (self.strings, other.strings),
            (self.numbers, other.numbers),
            (self.exceptions, other.exceptions),
        ):
            mine.update(theirs)
        for groups, more in (
            (self.attributes, other.attributes),
            (self.methods, other.methods),
            (self.plain, other.plain),
            (self.keywords, other.keywords),
            (self.keys, other.keys),
        ):
            for key, counts in more.items():
                groups.setdefault(key, Counter()).update(counts)
        for name, signature in other.signatures.items():
            self.signatures.setdefault(name, signature)


def tail(node: ast.expr) -> str:
    """The word by which an expression is known to its readers: its last name; "" when it has none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return tail(node.func) + "()"
    if isinstance(node, ast.Subscript):
        return tail(node.value) + "[]"
    if isinstance(node, ast.Await):
        return tail(node.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return '""'
    return ""


def facts_of(source: Source) -> Facts:
    """Walk the file once."""
    walker = _Walker()
    walker.visit(source.tree)
    _bind_top(source.tree.body, walker.facts.bound)
    return walker.facts


def _bind_top(statements: list[ast.stmt], bound: dict[str, str]) -> None:
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                bound[(alias.asname or alias.name).split(".")[0]] = "import"
        elif isinstance(statement, Function):
            bound[statement.name] = "function"
        elif isinstance(statement, ast.ClassDef):
            bound[statement.name] = "class"
        elif isinstance(statement, ast.If | ast.Try | ast.TryStar | ast.With | ast.For | ast.While):
            for name in ("body", "orelse", "finalbody"):
                _bind_top(getattr(statement, name, []), bound)
            for handler in getattr(statement, "handlers", []):
                _bind_top(handler.body, bound)
        for target in stored_names(statement):
            bound.setdefault(target, "variable")
    bound.pop("*", None)


def stored_names(statement: ast.stmt) -> list[str]:
    """Names that the statement's own targets bind (not those of its blocks)."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign | ast.For | ast.AsyncFor):
        targets = [statement.target]
    elif isinstance(statement, ast.With | ast.AsyncWith):
        targets = [item.optional_vars for item in statement.items if item.optional_vars is not None]
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


class _Walker(ast.NodeVisitor):
    def __init__(self) -> None:
        self.facts = Facts()
        self.classes: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.classes.append(node.name)
        self.generic_visit(node)
        self.classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: Function) -> None:
        signature = signature_of(node)
        self.facts.signatures.setdefault(node.name, signature)
        if self.classes:
            if node.name == "__init__":
                self.facts.signatures.setdefault(self.classes[-1], signature)
            if signature.method:
                self.facts.methods.setdefault(f"self@{self.classes[-1]}", Counter())[node.name] += 1
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.facts.names[node.id] += 1

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._attribute(node, self.facts.attributes)
        self.visit(node.value)

    def _attribute(self, node: ast.Attribute, groups: dict[str, Counter[str]]) -> None:
        for receiver in {"", self.receiver(node.value)}:
            groups.setdefault(receiver, Counter())[node.attr] += 1

    def receiver(self, node: ast.expr) -> str:
        word = tail(node)
        return f"self@{self.classes[-1]}" if word in ("self", "cls") and self.classes else word

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self._attribute(node.func, self.facts.methods)
            if not node.args and not node.keywords:
                self._attribute(node.func, self.facts.plain)
            self.visit(node.func.value)
        else:
            if isinstance(node.func, ast.Name):
                self.facts.callees[node.func.id] += 1
            self.visit(node.func)
        named = [keyword.arg for keyword in node.keywords if keyword.arg]
        if named and (word := tail(node.func)):
            self.facts.keywords.setdefault(word, Counter()).update(named)
        for child in (*node.args, *node.keywords):
            self.visit(child)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.slice, ast.Constant) and len(repr(node.slice.value)) <= 40:
            self.facts.keys.setdefault(tail(node.value), Counter())[repr(node.slice.value)] += 1
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and len(node.value) <= 60 and "\n" not in node.value:
            self.facts.strings[node.value] += 1
        elif isinstance(node.value, int | float) and not isinstance(node.value, bool):
            self.facts.numbers[repr(node.value)] += 1

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        if node.exc is not None:
            self._exception(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            for kind in node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]:
                self._exception(kind)
        self.generic_visit(node)

    def _exception(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name) and node.id[:1].isupper():
            self.facts.exceptions[node.id] += 1


def signature_of(node: Function) -> Signature:
    """The parameters of a function; the first is left out where it is `self` or `cls`."""
    positional = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
    method = bool(positional) and positional[0] in ("self", "cls")
    names = positional[1:] if method else positional
    return Signature(
        positional=tuple(names),
        keywords=tuple(arg.arg for arg in node.args.kwonlyargs),
        required=max(0, len(names) - len(node.args.defaults)),
        open=node.args.vararg is not None or node.args.kwarg is not None,
        method=method,
    )
