"""What an injector sees: one function of one file, and a library of how other code writes such things."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from riallm.code.edit import Edit
from riallm.code.scopes import scope_of
from riallm.code.source import Function, Item, Source, is_compound
from riallm.code.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What other code holds, gathered once over a project (or several).

    attributes: (is it called, number of arguments) -> attribute name -> how often.
    keywords: callee name -> keyword names that calls of it pass.
    keys: string constants that stand as a subscript or a first argument, by how often.
    callees: number of arguments -> plain function names called with so many.
    statements: statements of functions by type name, each with the file it is from.
    vocabulary: what the repair's own operators draw from.
    """

    attributes: dict[tuple[bool, int], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    keywords: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    keys: Counter[str] = field(default_factory=Counter)
    callees: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    statements: dict[str, list[tuple[str, Function, ast.stmt]]] = field(default_factory=lambda: defaultdict(list))
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    @staticmethod
    def of(sources: Iterable[Source]) -> Library:
        """Gather from parsed files."""
        sources = list(sources)
        library = Library(vocabulary=Vocabulary.build(sources))
        for source in sources:
            library._gather(source)
        return library

    def _gather(self, source: Source) -> None:
        called = {id(node.func) for node in ast.walk(source.tree) if isinstance(node, ast.Call)}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                count = len(node.args) + len(node.keywords)
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if isinstance(node.func, ast.Attribute):
                    self.attributes[True, count][name] += 1
                elif name:
                    self.callees[count][name] += 1
                for keyword in node.keywords:
                    if keyword.arg:
                        self.keywords[name][keyword.arg] += 1
                if node.args and _is_key(node.args[0]):
                    self.keys[node.args[0].value] += 1  # type: ignore[attr-defined]
            elif isinstance(node, ast.Attribute) and id(node) not in called and isinstance(node.ctx, ast.Load):
                self.attributes[False, 0][node.attr] += 1
            elif isinstance(node, ast.Subscript) and _is_key(node.slice):
                self.keys[node.slice.value] += 1  # type: ignore[attr-defined]
        for item, place in source.places.items():
            function = source.function_of(item)
            if isinstance(item, ast.stmt) and function is not None and function is not item and place is not None:
                self.statements[type(item).__name__].append((source.path, function, item))


def _is_key(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 30


@dataclass(frozen=True, kw_only=True)
class Site:
    """One function of one file, and the library."""

    source: Source
    function: Function
    library: Library

    @cached_property
    def items(self) -> list[ast.stmt]:
        """Statements of the function's body at any depth, without functions and classes in it and docstrings."""
        found = []
        for item in self.source.places:
            if not isinstance(item, ast.stmt) or item is self.function or self._is_docstring(item):
                continue
            if self.source.function_of(item) is self.function and not isinstance(item, ast.ClassDef):
                found.append(item)
        return found

    def _is_docstring(self, item: Item) -> bool:
        return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Nodes below `items`, the headers of compound statements and whole simple ones."""
        found: list[ast.AST] = []
        for item in self.items:
            if is_compound(item):
                for name, value in ast.iter_fields(item):
                    if name not in ("body", "orelse", "finalbody", "handlers", "cases"):
                        for child in value if isinstance(value, list) else [value]:
                            if isinstance(child, ast.AST):
                                found.extend(ast.walk(child))
            else:
                found.extend(ast.walk(item))
        return found

    @cached_property
    def names(self) -> list[str]:
        """Local names of the function, parameters first, `self` and `cls` left out."""
        scope = scope_of(self.source, self.function)
        ordered = [*scope.parameters, *(name for name in scope.locals if name not in scope.parameters)]
        return [name for name in ordered if name not in ("self", "cls")]

    def lines_of(self, item: ast.stmt) -> tuple[int, int] | None:
        """(start of its first line, start of the line after it), or None where it shares a line with others."""
        start, end = self.source.item_span(item)
        text = self.source.text
        begin = text.rfind("\n", 0, start) + 1
        finish = self.source.line_end(end)
        rest = text[end:finish].strip()
        if text[begin:start].strip() or (rest and not rest.startswith("#")):
            return None
        after = finish + len(self.source.newline) if finish < len(text) else finish
        return begin, after

    def indent_of(self, item: ast.stmt) -> str:
        """White space before the statement on its line."""
        start, _ = self.source.item_span(item)
        return self.source.text[self.source.text.rfind("\n", 0, start) + 1 : start]

    def block(self, item: ast.stmt) -> list[Item]:
        """The block that the statement stands in, docstrings left out."""
        return [other for other in self.source.places[item].siblings if not self._is_docstring(other)]

    def edit(self, start: int, end: int, text: str, name: str) -> Edit:
        """An edit of this file by the injector `name`."""
        return Edit(
            path=self.source.path,
            start=start,
            original=self.source.text[start:end],
            text=text,
            line=self.source.line_of(start),
            operator=name,
        )

    def replace(self, node: ast.AST, text: str, name: str) -> Edit:
        """An edit that replaces a node's text."""
        return self.edit(*self.source.span(node), text, name)
