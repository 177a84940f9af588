"""What an operator works on: one statement, or the header of a compound one, and its expressions with their places."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from riallm.code.facts import Facts
from riallm.code.precedence import ATOM, TUPLE, level_of, wanted
from riallm.code.regions import shape
from riallm.code.scopes import parameters, role_of
from riallm.code.source import Function, Item, Place, Source, header_nodes
from riallm.code.vocabulary import Ranked, Vocabulary


class Change(NamedTuple):
    """Replace [start, end) by `text`. `weight` is relative to the other changes of the same operator here."""

    start: int
    end: int
    text: str
    weight: float


Operator = Callable[["Target"], Iterator[Change]]

_CONDITIONS: frozenset[tuple[type, str]] = frozenset(
    {(ast.If, "test"), (ast.While, "test"), (ast.IfExp, "test"), (ast.comprehension, "ifs"), (ast.match_case, "guard")}
)


def grown(text: str, start: int, end: int, low: int) -> tuple[int, int]:
    """The span with the pairs of parentheses around it that begin at `low` or later."""
    while True:
        left = start - 1
        while left >= low and text[left].isspace():
            left -= 1
        right = end
        while right < len(text) and text[right].isspace():
            right += 1
        if left < low or right >= len(text) or text[left] != "(" or text[right] != ")":
            return start, end
        start, end = left, right + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slot:
    """An expression and where it stands: `getattr(parent, field)` is the node, or holds it at `index`.

    inner: names that comprehensions and lambdas around it bind.
    text: as written, without parentheses around it.
    """

    node: ast.expr
    parent: ast.AST
    field: str
    index: int
    start: int
    end: int
    text: str
    inner: frozenset[str]
    wanted: int
    """The loosest level of precedence that can stand here without parentheses."""

    @property
    def loaded(self) -> bool:
        """Whether the expression is read (neither bound nor deleted)."""
        return isinstance(getattr(self.node, "ctx", None), ast.Load | None)

    @property
    def condition(self) -> bool:
        """Whether it decides a branch, a loop or a filter."""
        return (type(self.parent), self.field) in _CONDITIONS

    @property
    def callee(self) -> bool:
        """Whether it is what a call calls."""
        return isinstance(self.parent, ast.Call) and self.field == "func"

    @property
    def level(self) -> int:
        """How tightly the expression binds."""
        return level_of(self.node)

    def at(self, level: int) -> str:
        """The text, in parentheses where a place that wants this level needs them."""
        node = self.node
        if level == ATOM and isinstance(node, ast.Constant) and isinstance(node.value, int | float | complex):
            return f"({self.text})"
        if isinstance(node, ast.Tuple) and self.text.startswith("(") and self.text.endswith(")"):
            return self.text
        return self.text if self.level >= level else f"({self.text})"

    def put(self, text: str, weight: float = 1.0, level: int = ATOM) -> Change:
        """Replace the expression by a text that binds at `level`."""
        if level < self.wanted or self._own_parentheses:
            text = f"({text})"
        return Change(self.start, self.end, text, weight)

    @property
    def _own_parentheses(self) -> bool:
        """`ast` gives a lone generator argument the parentheses of its call."""
        return isinstance(self.node, ast.GeneratorExp) and isinstance(self.parent, ast.Call)


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A statement or a compound statement's header, with what operators ask about it."""

    source: Source
    vocabulary: Vocabulary
    item: Item
    slots: list[Slot] = field(default_factory=list)
    _names: dict[tuple[str, frozenset[str]], Ranked] = field(default_factory=dict)

    @cached_property
    def place(self) -> Place:
        """Where the item stands in its block."""
        return self.source.places[self.item]

    @cached_property
    def function(self) -> Function | None:
        """The innermost function around the item."""
        return self.source.function_of(self.item)

    @cached_property
    def facts(self) -> Facts:
        """Facts of the item's file."""
        return self.vocabulary.facts(self.source)

    @cached_property
    def span(self) -> tuple[int, int]:
        """(start, end) of the item, with its blocks and decorators."""
        return self.source.item_span(self.item)

    @cached_property
    def indent(self) -> str:
        """White space before the item on its line; empty where it shares the line with something else."""
        start = self.span[0]
        line = self.source.text[self.source.line_starts[self.source.line_of(start) - 1] : start]
        return line if line.isspace() else ""

    @cached_property
    def alone(self) -> bool:
        """Whether the item has its lines for itself, so that lines can be put before and after it.

        Never said of a table of data: such a statement is not worth the time to parse it again and again.
        """
        source, (start, end) = self.source, self.span
        if end - start > _LARGE and source.header_end(self.item) == end:
            return False
        before = source.text[source.line_starts[source.line_of(start) - 1] : start]
        after = source.text[end : source.line_end(end)].lstrip()
        return not before.strip() and (not after or after.startswith("#")) and not source.text.startswith("elif", start)

    @cached_property
    def step(self) -> str:
        """One level of indentation, as the file writes it around here."""
        for node in (*self.source.owners(self.item), *self.source.top_level):
            body = getattr(node, "body", None)
            if body:
                outer, inner = self.source.item_span(node)[0], self.source.item_span(body[0])[0]
                widths = [
                    self.source.text[self.source.line_starts[self.source.line_of(at) - 1] : at] for at in (outer, inner)
                ]
                if not widths[0].strip() and not widths[1].strip() and widths[1].startswith(widths[0]):
                    return widths[1][len(widths[0]) :] or "    "
        return "    "

    @cached_property
    def variables(self) -> Ranked:
        """Names with values that are visible here."""
        return self.vocabulary.variables(self.source, self.item)

    def names(self, slot: Slot) -> Ranked:
        """`variables` with what comprehensions and lambdas around the slot bind; those used alike elsewhere lead."""
        role = role_of(slot.parent, slot.field)
        known = self._names.get((role, slot.inner))
        if known is not None:
            return known
        scope = self.vocabulary.scope(self.source, self.item)
        found = [(name, 1.2) for name in sorted(slot.inner)]
        for name, weight in self.variables:
            if name in ("self", "cls"):
                weight *= 0.5 if role == "receiver" else 0.15
            elif role and name in scope.roles:
                weight *= 1.0 if role in scope.roles[name] else 0.3 if role in ("receiver", "container") else 0.6
            if name not in slot.inner:
                found.append((name, weight))
        known = self._names[role, slot.inner] = sorted(found, key=lambda pair: (-pair[1], pair[0]))
        return known

    def find(self, *kinds: type[ast.expr]) -> Iterator[Slot]:
        """Slots whose node is one of the kinds and is read."""
        return (slot for slot in self.slots if isinstance(slot.node, kinds) and slot.loaded)

    def slot_of(self, node: ast.AST) -> Slot | None:
        """The slot of a node of this item."""
        return self._slot_by_node.get(node)

    @cached_property
    def _slot_by_node(self) -> dict[ast.AST, Slot]:
        return {slot.node: slot for slot in self.slots}

    def in_loop(self) -> bool:
        """Whether `break` and `continue` can stand at the item."""
        node = self.item
        for owner in self.source.owners(self.item):
            if isinstance(owner, Function | ast.ClassDef):
                return False
            if isinstance(owner, ast.For | ast.AsyncFor | ast.While) and owner is not self.item:
                return node in owner.body
            node = owner
        return False


_LARGE = 3000
"""Characters from which on only the expressions on the asked line are looked at: tables of data, mostly."""


def target_of(source: Source, vocabulary: Vocabulary, item: Item, line: int | None = None) -> Target:
    """The item with the expressions of its own text; of a very long one, only those on `line`."""
    target = Target(source=source, vocabulary=vocabulary, item=item)
    large = source.header_end(item) - source.item_span(item)[0] > _LARGE
    collect = _Collector(source, target.slots, line if large else None)
    for child in header_nodes(item):
        name, index = _field_of(item, child)
        collect.enter(child, _parent_of(item, child), name, index, frozenset())
    return target


def _field_of(item: ast.AST, child: ast.AST) -> tuple[str, int]:
    for name, value in ast.iter_fields(item):
        if value is child:
            return name, 0
        if isinstance(value, list) and any(each is child for each in value):
            return name, next(index for index, each in enumerate(value) if each is child)
        if isinstance(value, ast.arguments):
            found = _field_of(value, child)
            if found[0]:
                return found
        if isinstance(value, list) and value and isinstance(value[0], ast.withitem):
            for index, each in enumerate(value):
                name = _field_of(each, child)[0]
                if name:
                    return name, index
    return "", 0


def _parent_of(item: Item, child: ast.AST) -> ast.AST:
    spec = getattr(item, "args", None)
    if isinstance(spec, ast.arguments) and any(each is child for each in ast.iter_child_nodes(spec)):
        return spec
    for each in getattr(item, "items", []):
        if each.context_expr is child or each.optional_vars is child:
            found: ast.AST = each
            return found
    return item


class _Collector:
    def __init__(self, source: Source, slots: list[Slot], line: int | None) -> None:
        self.source = source
        self.slots = slots
        self.line = line

    def enter(self, node: ast.AST, parent: ast.AST, field: str, index: int, inner: frozenset[str]) -> None:
        """Record an expression and go on into it; annotations and types are left alone."""
        if field in ("annotation", "returns", "type_params") or isinstance(node, ast.pattern):
            return
        if self.line is not None and isinstance(node, ast.expr | ast.keyword):
            assert node.end_lineno is not None
            if not node.lineno <= self.line <= node.end_lineno:
                return
        if isinstance(node, ast.expr) and not isinstance(node, ast.Slice | ast.Starred | ast.FormattedValue):
            self._record(node, parent, field, index, inner)
        if isinstance(node, ast.Lambda):
            inner = inner | set(parameters(node))
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            inner = inner | {
                each.id for part in node.generators for each in ast.walk(part.target) if isinstance(each, ast.Name)
            }
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                if not isinstance(node, ast.FormattedValue) or self._trusted(value):
                    self.enter(value, node, name, 0, inner)
            elif isinstance(value, list):
                for position, child in enumerate(value):
                    if isinstance(child, ast.AST) and not (
                        isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)
                    ):
                        self.enter(child, node, name, position, inner)

    def _record(self, node: ast.expr, parent: ast.AST, field: str, index: int, inner: frozenset[str]) -> None:
        start, end = self.source.span(node)
        if end - start > _LARGE:
            return
        text = self.source.text
        level = wanted(parent, field)
        if level and grown(text, start, end, 0) != (start, end):
            level = TUPLE
        self.slots.append(
            Slot(
                node=node,
                parent=parent,
                field=field,
                index=index,
                start=start,
                end=end,
                text=text[start:end],
                inner=inner,
                wanted=level,
            )
        )

    def _trusted(self, node: ast.AST) -> bool:
        """Whether a node inside an f-string stands where `ast` says (before Python 3.12 it may not)."""
        if not isinstance(node, ast.expr):
            return False
        start, end = self.source.span(node)
        try:
            found = ast.parse(f"({self.source.text[start:end]})", mode="eval").body
        except (SyntaxError, ValueError):
            return False
        return shape(found) == shape(node)
