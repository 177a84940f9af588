"""Names and constants that a filling may come from, the likelier first.

Build one for the project (`Vocabulary.build(sources)`) and hand it to `propose`. It knows files that it was not
built of as well: their own facts are collected when first asked for.

Weights are relative shares: what stands nearer (this function, this file) and what is used more often weighs more.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from riallm.code.facts import BUILTINS, Facts, Signature, facts_of
from riallm.code.ingredients import Ingredients, ingredients_of
from riallm.code.scopes import Scope, scope_of
from riallm.code.source import Function, Item, Source

Ranked = list[tuple[str, float]]
"""Words with their weights, heaviest first; the weights are positive and not normalised."""


@dataclass(slots=True)
class _File:
    facts: Facts
    scopes: dict[Function | None, Scope]
    constants: dict[Function | None, Facts]
    ingredients: dict[Function | None, Ingredients]


class Vocabulary:
    """Facts of a project's files, asked for by position."""

    def __init__(self) -> None:
        self._files: WeakKeyDictionary[Source, _File] = WeakKeyDictionary()
        self.project = Facts()

    @staticmethod
    def build(sources: Iterable[Source]) -> Vocabulary:
        """The vocabulary of these files together."""
        vocabulary = Vocabulary()
        for source in sources:
            vocabulary.add(source)
        return vocabulary

    def add(self, source: Source) -> None:
        """Count one more file in."""
        self.project.add(self._file(source).facts)

    def _file(self, source: Source) -> _File:
        found = self._files.get(source)
        if found is None:
            found = self._files[source] = _File(facts_of(source), {}, {}, {})
        return found

    def facts(self, source: Source) -> Facts:
        """Facts of one file."""
        return self._file(source).facts

    def function_facts(self, source: Source, node: Item) -> Facts:
        """Facts of the innermost function around an item; of the whole file outside functions."""
        function = source.function_of(node)
        if function is None:
            return self.facts(source)
        cache = self._file(source).constants
        if function not in cache:
            part = ast.Module(body=[function], type_ignores=[])
            cache[function] = facts_of(Source(path=source.path, text="", encoding="utf-8", tree=part))
        return cache[function]

    def scope(self, source: Source, node: Item) -> Scope:
        """What the innermost function around an item binds, the module's own scope outside functions."""
        function = source.function_of(node)
        if function is node:  # defaults and decorators are evaluated outside
            place = source.places[node]
            function = source.function_of(place.parent) if isinstance(place.parent, Item) else None
        cache = self._file(source).scopes
        if function not in cache:
            cache[function] = scope_of(source, function)
        return cache[function]

    # words, ranked

    def variables(self, source: Source, node: Item) -> Ranked:
        """Names that hold values at an item: locals and parameters, then enclosing, module, imported ones."""
        scope = self.scope(source, node)
        facts = self.facts(source)
        line = source.line_of(source.item_span(node)[0])
        weights: dict[str, float] = {}
        for name, (first, uses) in scope.locals.items():
            distance = min(abs(line - use) for use in uses)
            weights[name] = (1.0 if first <= line else 0.2) * (0.4 + 1.0 / (1 + distance / 4))
        for depth, names in enumerate(scope.enclosing, 1):
            for name in names:
                weights.setdefault(name, 0.4 / depth)
        for name, kind in facts.bound.items():
            share = {"variable": 0.25, "function": 0.05, "class": 0.05}.get(kind, 0.03)
            weights.setdefault(name, share if facts.names[name] else share / 3)
        for name in ("None",):
            weights.setdefault(name, 0.1)
        return _ranked(weights)

    def callees(self, source: Source, node: Item) -> Ranked:
        """Names that can be called: those called in this file, defined in it, imported, then builtins in use."""
        scope, facts = self.scope(source, node), self.facts(source)
        near = self.function_facts(source, node).callees
        visible = set(facts.bound) | scope.names
        weights: dict[str, float] = {}
        for name, count in facts.callees.items():
            if name in visible or name in BUILTINS:
                weights[name] = 0.3 + 0.7 * _damped(count) + (0.5 if name in near else 0.0)
        for name, kind in facts.bound.items():
            if kind in ("function", "class"):
                weights.setdefault(name, 0.3)
            elif kind == "import":
                weights.setdefault(name, 0.1)
        for name, count in self.project.callees.items():
            if name in BUILTINS:
                weights.setdefault(name, 0.1 + 0.2 * _damped(count))
        return _ranked(weights)

    def attributes(self, source: Source, node: Item, receiver: str) -> Ranked:
        """Attributes read on a receiver of this name (`facts.tail`): in this file, in the project, then on any."""
        return self._members(source, node, receiver, "attributes")

    def methods(self, source: Source, node: Item, receiver: str) -> Ranked:
        """Methods called on a receiver of this name, as `attributes`."""
        return self._members(source, node, receiver, "methods")

    def plain_methods(self, source: Source, node: Item, receiver: str) -> Ranked:
        """Methods called without arguments on a receiver of this name, as `attributes`."""
        return self._members(source, node, receiver, "plain")

    def keys(self, source: Source, receiver: str) -> Ranked:
        """Constant subscripts (as written by `repr`) seen on a receiver of this name."""
        weights: dict[str, float] = {}
        for groups, weight in ((self.facts(source).keys, 1.0), (self.project.keys, 0.5)):
            for key, count in groups.get(receiver, Counter()).items():
                weights.setdefault(key, weight * (0.4 + 0.6 * _damped(count)))
        return _ranked(weights)

    def ingredients(self, source: Source, node: Item) -> Ingredients:
        """Texts of the innermost function around an item, of the file's top level outside functions."""
        function = source.function_of(node)
        cache = self._file(source).ingredients
        if function not in cache:
            cache[function] = ingredients_of(source, function)
        return cache[function]

    def _members(self, source: Source, node: Item, receiver: str, kind: str) -> Ranked:
        if receiver in ("self", "cls"):
            owner = source.class_of(node)
            receiver = f"self@{owner.name}" if owner is not None else receiver
        weights: Counter[str] = Counter()
        here: Mapping[str, Counter[str]] = getattr(self.facts(source), kind)
        project: Mapping[str, Counter[str]] = getattr(self.project, kind)
        for groups, key, weight in (
            (here, receiver, 1.0),
            (project, receiver, 0.5),
            (here, "", 0.15),
            (project, "", 0.04),
        ):
            for name, count in groups.get(key, Counter()).most_common(40):
                weights[name] += weight * (0.4 + 0.6 * _damped(count))  # type: ignore[assignment]
        return _ranked(weights)

    def keywords(self, source: Source, callee: str) -> Ranked:
        """Keyword names that calls of this callee were seen with, and its parameters where the project defines it."""
        weights: dict[str, float] = {}
        for counts, weight in (
            (self.facts(source).keywords.get(callee, Counter()), 1.0),
            (self.project.keywords.get(callee, Counter()), 0.7),
        ):
            for name, count in counts.items():
                weights[name] = max(weights.get(name, 0.0), weight * (0.4 + 0.6 * _damped(count)))
        signature = self.signature(source, callee)
        for name in (*signature.positional, *signature.keywords) if signature else ():
            weights.setdefault(name, 0.5)
        return _ranked(weights)

    def signature(self, source: Source, callee: str) -> Signature | None:
        """The parameters of a function of this name in the file, else in the project."""
        return self.facts(source).signatures.get(callee) or self.project.signatures.get(callee)

    def strings(self, source: Source, node: Item) -> Ranked:
        """String constants of the function, the file, and the project's most frequent."""
        return self._constants(source, node, "strings")

    def numbers(self, source: Source, node: Item) -> Ranked:
        """Number constants (as written by `repr`) of the function, the file, and the project's most frequent."""
        return self._constants(source, node, "numbers")

    def _constants(self, source: Source, node: Item, kind: str) -> Ranked:
        weights: dict[str, float] = {}
        near: Counter[str] = getattr(self.function_facts(source, node), kind)
        here: Counter[str] = getattr(self.facts(source), kind)
        far: Counter[str] = getattr(self.project, kind)
        for counts, weight in ((near.most_common(60), 1.0), (here.most_common(60), 0.3), (far.most_common(20), 0.1)):
            for value, count in counts:
                weights.setdefault(value, weight * (0.5 + 0.5 * _damped(count)))
        return _ranked(weights)

    def exceptions(self, source: Source) -> Ranked:
        """Exception types raised or caught in the file, in the project, then the common builtin ones."""
        weights: dict[str, float] = {}
        bound = self.facts(source).bound
        for counts, weight in ((self.facts(source).exceptions, 1.0), (self.project.exceptions, 0.5)):
            for name, count in counts.items():
                if name in BUILTINS or name in bound:
                    weights.setdefault(name, weight * (0.4 + 0.6 * _damped(count)))
        for name in ("ValueError", "TypeError", "KeyError", "IndexError", "AttributeError", "Exception"):
            weights.setdefault(name, 0.2)
        return _ranked(weights)


def _damped(count: int) -> float:
    """Grows from 0 towards 1 with a count, ever slower."""
    return count / (count + 4.0)


def _ranked(weights: Mapping[str, float]) -> Ranked:
    return sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))
