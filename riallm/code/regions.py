"""The smallest piece of a file that an edit changes, parsed by itself: what candidates are checked and deduplicated by.

Parsing a whole file for each candidate would cost more than running its tests. An edit touches a statement, the
header of a compound statement, or a run of neighbouring statements: that region alone is parsed, in a small
frame that makes it a program.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from riallm.code.edit import Edit
from riallm.code.source import Item, Source, header_nodes, is_compound

_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_FIELDS: dict[type, tuple[str, tuple[str, ...]]] = {}


def shape(node: object) -> object:
    """A value that is equal for two trees when their `ast.dump` is; several times faster to make."""
    kind = node.__class__
    if isinstance(node, ast.Name):
        return ("Name", node.id)
    if isinstance(node, ast.Constant):
        return (node.value.__class__.__name__, repr(node.value))
    if kind is list:
        return tuple([shape(child) for child in node])  # type: ignore[attr-defined]
    if not isinstance(node, ast.AST):
        return node
    known = _FIELDS.get(kind)
    if known is None:
        known = _FIELDS[kind] = kind.__name__, tuple(name for name in node._fields if name not in _LEFT_OUT)
    found: list[object] = [known[0]]
    for name in known[1]:
        value = node.__dict__.get(name)
        found.append(value if value is None or value.__class__ is str else shape(value))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A span of the file that can be parsed alone.

    frame: what is put before the span's text, and after it, to make a program of it.
    parent: the item that holds the region; None at the top of the file.
    anchor: the part of the span that does not depend on how much white space the edit takes along.
    """

    start: int
    end: int
    anchor: tuple[int, int]
    frame: tuple[str, str]
    parent: Item | None

    def tree(self, text: str) -> ast.Module:
        """The frame with `text` in it, parsed; raises what `ast.parse` raises."""
        return ast.parse(self.frame[0] + text + self.frame[1])

    def parse(self, text: str) -> object | None:
        """The shape of the region with `text` in it, or None when that is not Python."""
        try:
            return shape(self.tree(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def region_of(source: Source, start: int, end: int) -> Region:
    """The smallest region that a replacement of [start, end) changes; at the worst the whole file."""
    owner: Item | None = None
    while True:
        touched = source.touched(owner, start, end)
        if len(touched) == 1 and is_compound(touched[0]):
            node = touched[0]
            if source.item_span(node)[0] <= start and end <= source.header_end(node):
                return _header(source, node, owner)
            if start >= source.header_end(node):
                owner = node
                continue
        return _run(source, touched, owner, start, end)


def wider(source: Source, region: Region) -> Region | None:
    """The region of the statement that holds this one; None for the whole file."""
    node = region.parent
    if node is None:
        return None if region == _whole(source) else _whole(source)
    return _run(source, [node], _parent(source, node), *source.item_span(node))


def _whole(source: Source) -> Region:
    end = len(source.text)
    return Region(start=0, end=end, anchor=(0, end), frame=("", ""), parent=None)


def _parent(source: Source, node: Item) -> Item | None:
    parent = source.places[node].parent
    return parent if isinstance(parent, Item) else None


def _header(source: Source, node: Item, owner: Item | None) -> Region:
    start, end = source.item_span(node)[0], source.header_end(node)
    indent = _white(source, start)
    if start != source.line_starts[source.line_of(start) - 1]:
        indent = indent or " "
    before, after = f"if 0:\n{indent}" if indent else "", " pass"
    if isinstance(node, ast.ExceptHandler):
        before = "try:pass\n"
    elif isinstance(node, ast.match_case):
        before = "match 0:\n "
    elif source.text.startswith("elif", start):
        before = "if 0:pass\n"
    elif isinstance(node, ast.Try | ast.TryStar):
        after = f"pass\n{indent}finally:pass"
    elif isinstance(node, ast.Match):
        after = f"\n{indent} case _:pass"
    return Region(start=start, end=end, anchor=(start, end), frame=(before, after), parent=owner)


def _run(source: Source, nodes: list[Item], owner: Item | None, start: int, end: int) -> Region:
    """Neighbours of one block, taken together with what the edit covers beside them."""
    if not nodes:
        nodes = [node for node in source.children(owner) if source.item_span(node)[0] <= start][-1:]
    if not nodes or not _is_run(source, nodes):
        return _whole(source) if owner is None else _run(source, [owner], _parent(source, owner), start, end)
    first, last = source.item_span(nodes[0])[0], source.item_span(nodes[-1])[1]
    low, high = min(start, first), max(end, last)
    before = "0\n"
    if first != source.line_starts[source.line_of(first) - 1]:
        indent = _white(source, first) or " "
        own = source.text[source.line_starts[source.line_of(low) - 1] : low]
        filler = f"{indent}0\n" if len(nodes) < len(source.places[nodes[0]].siblings) else ""
        before = f"if 0:\n{filler}{own if not own.strip() else indent}"
    return Region(start=low, end=high, anchor=(first, last), frame=(before, ""), parent=owner)


def _is_run(source: Source, nodes: list[Item]) -> bool:
    """Whether the items are statements of one block that can stand in a frame; an `elif` cannot."""
    first = source.places[nodes[0]]
    return all(
        isinstance(node, ast.stmt)
        and source.places[node].parent is first.parent
        and source.places[node].field == first.field
        and not source.text.startswith("elif", source.item_span(node)[0])
        for node in nodes
    )


def _white(source: Source, offset: int) -> str:
    """The indentation of the item at `offset`; empty where it has none or shares its line."""
    line = source.text[source.line_starts[source.line_of(offset) - 1] : offset]
    return line if line.isspace() else ""


_LARGE = 600
"""Characters from which on a statement is checked by the element that changes, not as a whole."""


Key = tuple[int, int, object]
"""Start and end of a region and the shape that it takes."""


class Checker:
    """Checks edits of one file, keeping the shapes of its unchanged regions."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._before: dict[Region, object | None] = {}
        self._elements: dict[Item, list[tuple[int, int]]] = {}
        self._regions: dict[tuple[int, int], tuple[Region, Region | None]] = {}

    def key(self, edit: Edit) -> Key | None:
        """Where the edit changes the program and into what; None when it is not Python or changes nothing."""
        if not edit.original and (point := self._point(edit)) is not None:
            found = self._try(point, edit)
            if found:
                return found
        span = (edit.start, edit.end)
        if span not in self._regions:
            region = region_of(self._source, *span)
            large = region.end - region.start > _LARGE
            self._regions[span] = region, self._element(edit) if large else None
        region, element = self._regions[span]
        if element is not None:
            found = self._try(element, edit)
            if found is not None or not any(mark in edit.text for mark in ",=*"):
                return found or None
        lines = any(mark in text for text in (edit.text, edit.original) for mark in "\n\r") or _is_layout(edit)
        around: Region | None = region
        while around is not None:
            found = self._try(around, edit)
            if found is not None:
                return found or None
            if not lines and self._before[around] is not None:
                return None
            around = wider(self._source, around)
        return None

    def _point(self, edit: Edit) -> Region | None:
        """An empty region for whole lines put before or after a statement: that alone need not be parsed again."""
        source, text = self._source, edit.text
        break_ = max(text.rfind("\n"), text.rfind("\r")) + 1
        if break_ and not text[break_:].strip():
            item = source.item_at(edit.start)
            if not isinstance(item, ast.stmt) or source.item_span(item)[0] != edit.start:
                return None
            indent = source.text[source.line_starts[source.line_of(edit.start) - 1] : edit.start]
            if text[break_:] != indent or not text.strip() or text.startswith("@"):
                return None
            frame = (f"if 0:\n{indent}" if indent else "", "0")
            return Region(start=edit.start, end=edit.start, anchor=(edit.start, edit.start), frame=frame, parent=None)
        if text[:1] in ("\r", "\n") and edit.start == source.line_end(edit.start):
            first = text.lstrip("\r\n")
            indent = first[: len(first) - len(first.lstrip())]
            line = source.text[source.line_starts[source.line_of(edit.start) - 1] : edit.start]
            item = source.item_at(edit.start - len(line) + len(line.rstrip()))
            for owner in source.owners(item) if item is not None and "#" not in line else ():
                start, end = source.item_span(owner)
                if source.line_end(end) != edit.start or not isinstance(owner, ast.stmt):
                    return None
                if source.text[source.line_starts[source.line_of(start) - 1] : start] == indent:
                    frame = (f"if 0:\n{indent}0" if indent else "0", "")
                    return Region(
                        start=edit.start, end=edit.start, anchor=(edit.start, edit.start), frame=frame, parent=None
                    )
        return None

    def _try(self, region: Region, edit: Edit) -> Key | tuple[()] | None:
        """The key within the region; None when it does not parse there, () when nothing changes."""
        text = self._source.text[region.start : region.end]
        if region not in self._before:
            self._before[region] = region.parse(text)
        before = self._before[region]
        if before is None:
            return None
        at = edit.start - region.start
        after = region.parse(text[:at] + edit.text + text[at + len(edit.original) :])
        if after is None:
            return None
        if after == before:
            return ()
        if region.start == region.end:  # the same lines may be put at one place at different depths
            after = (region.frame[0], after)
        return *region.anchor, after

    def _element(self, edit: Edit) -> Region | None:
        """The smallest argument or element of a large statement that holds the whole edit."""
        item = self._source.item_at(edit.start)
        if item is None:
            return None
        if item not in self._elements:
            self._elements[item] = [self._source.span(node) for node in _elements(item)]
        around = [span for span in self._elements[item] if span[0] <= edit.start and edit.end <= span[1]]
        if not around:
            return None
        start, end = min(around, key=lambda span: span[1] - span[0])
        return Region(start=start, end=end, anchor=(start, end), frame=("(", "\n)"), parent=item)


def _elements(item: Item) -> Iterator[ast.expr]:
    """Expressions that stand between commas in an item's own text."""
    for part in header_nodes(item):
        for node in ast.walk(part):
            if isinstance(node, ast.Call):
                yield from (child for child in node.args if not isinstance(child, ast.Starred | ast.GeneratorExp))
                yield from (keyword.value for keyword in node.keywords)
            elif isinstance(node, ast.List | ast.Set | ast.Tuple):
                yield from (child for child in node.elts if not isinstance(child, ast.Starred))
            elif isinstance(node, ast.Dict):
                yield from (child for child in (*node.keys, *node.values) if child is not None)


def _is_layout(edit: Edit) -> bool:
    """Whether the edit may be right only together with the lines around: another depth, an `if` that turns `elif`."""
    return edit.original[:1] in (" ", "\t") or edit.text == "el"


def changed_trees(source: Source, edit: Edit) -> tuple[ast.Module, ast.Module] | None:
    """What the edit changes, parsed before and after; None when the result is not Python.

    A change in the body of an `except` is shown with its `try`, since it says what becomes of the error.
    """
    region: Region | None = region_of(source, edit.start, edit.end)
    if region is not None and isinstance(region.parent, ast.ExceptHandler):
        region = wider(source, region)
    while region is not None:
        text, at = source.text[region.start : region.end], edit.start - region.start
        after = text[:at] + edit.text + text[at + len(edit.original) :]
        try:
            return region.tree(text), region.tree(after)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            region = wider(source, region)
    return None


@lru_cache(maxsize=32)
def checker_of(source: Source) -> Checker:
    """The checker of a file, kept for the files asked about last."""
    return Checker(source)


def statement_key(source: Source, edit: Edit) -> str:
    """Path, position and a digest of the changed statement's syntax: equal for edits that make the same program.

    Returns "" for an edit that does not parse or changes nothing but the writing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # doubtful escapes in the user's strings
        key = checker_of(source).key(edit)
    return "" if key is None else written_key(edit.path, key)


def written_key(path: str, key: Key) -> str:
    """A checker's key as text."""
    digest = hashlib.sha256(repr(key[2]).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{path}:{key[0]}:{key[1]}:{digest}"
