"""One Python file: its text exactly as it is on disk, its syntax tree, and the way between the two.

`ast` counts lines from one and columns in UTF-8 bytes; edits count characters of the decoded text. Line ends,
tabs, the byte order mark and the encoding cookie stay as they are: `source.encode(source.text)` gives back
the bytes that were read, or the file is refused.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from riallm.core.errors import ProjectError

Function = ast.FunctionDef | ast.AsyncFunctionDef
Item = ast.stmt | ast.excepthandler | ast.match_case
"""What stands in a block: a statement, or the `except` and `case` clauses that own blocks themselves."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_GAP = re.compile(r"#[^\r\n]*|:")
BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")


def parse_text(text: str) -> ast.Module:
    """`ast.parse` that keeps quiet about doubtful escapes in the user's strings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a block item stands: `getattr(parent, field)[index] is node`."""

    node: Item
    parent: ast.AST
    field: str
    index: int

    @property
    def siblings(self) -> list[Item]:
        """The block that the item is part of."""
        block: list[Item] = getattr(self.parent, self.field)
        return block


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A parsed file. Two are equal only when they are the same object, so that one can be a key of a cache.

    path: relative to the project root, with forward slashes.
    text: decoded, with its own line ends and without a byte order mark.
    encoding: as Python sees it; "utf-8-sig" where the file began with a byte order mark.
    """

    path: str
    text: str
    encoding: str
    tree: ast.Module

    @staticmethod
    def parse(path: str, data: bytes) -> Source:
        """Read a file's bytes; raises ProjectError that names file and line when they are not Python."""
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
        except (SyntaxError, UnicodeDecodeError) as error:
            raise ProjectError(
                f"{path}: cannot be decoded ({error}); save it in UTF-8 or correct its coding line"
            ) from error
        if text.encode(encoding) != data:
            raise ProjectError(f"{path}: {encoding} text does not encode back to the same bytes; save it in UTF-8")
        return Source.from_text(path, text, encoding=encoding)

    @staticmethod
    def from_text(path: str, text: str, *, encoding: str = "utf-8") -> Source:
        """Parse text that is decoded already; raises ProjectError as `parse` does."""
        try:
            tree = parse_text(text)
        except SyntaxError as error:
            raise ProjectError(
                f"{path}:{error.lineno or 1}: not valid Python ({error.msg}); mend the syntax first"
            ) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise ProjectError(f"{path}:1: cannot be parsed ({error}); mend or leave out this file") from error
        return Source(path=path, text=text, encoding=encoding, tree=tree)

    def encode(self, text: str) -> bytes:
        """The bytes of `text` as this file keeps it; raises ProjectError for a character that it cannot hold."""
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise ProjectError(
                f"{self.path}: {text[error.start]!r} cannot be written in {self.encoding}; save the file in UTF-8"
            ) from error

    # positions

    @cached_property
    def line_starts(self) -> list[int]:
        """Character offset of each line; line `n` of `ast` begins at `line_starts[n - 1]`."""
        return [0, *(match.end() for match in _LINE_END.finditer(self.text))]

    @cached_property
    def newline(self) -> str:
        """The file's own line end: that of its first line."""
        match = _LINE_END.search(self.text)
        return match.group() if match else "\n"

    @cached_property
    def _ascii(self) -> bool:
        return self.text.isascii()

    def offset(self, lineno: int, col_offset: int) -> int:
        """Character offset of a position as `ast` writes it."""
        start = self.line_starts[lineno - 1]
        if self._ascii:
            return start + col_offset
        end = self.line_starts[lineno] if lineno < len(self.line_starts) else len(self.text)
        return start + len(self.text[start:end].encode("utf-8", "surrogatepass")[:col_offset].decode("utf-8", "ignore"))

    def position(self, offset: int) -> tuple[int, int]:
        """(lineno, col_offset) as `ast` would write the character offset."""
        line = self.line_of(offset)
        start = self.line_starts[line - 1]
        return line, len(self.text[start:offset].encode("utf-8", "surrogatepass"))

    def line_of(self, offset: int) -> int:
        """Number of the line, from one, that holds the character offset."""
        return bisect_right(self.line_starts, offset)

    def line_end(self, offset: int) -> int:
        """Offset of the end of the line that holds `offset`, before its line end."""
        match = _LINE_END.search(self.text, offset)
        return match.start() if match else len(self.text)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """(start, end) of a node that `ast` gives a position; decorators are not part of a function's span."""
        at: ast.expr = node  # type: ignore[assignment]  # every node with a position looks like one
        assert at.end_lineno is not None and at.end_col_offset is not None
        return self.offset(at.lineno, at.col_offset), self.offset(at.end_lineno, at.end_col_offset)

    def segment(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    # statements

    @cached_property
    def places(self) -> dict[Item, Place]:
        """Every statement, `except` and `case` of the file with its place, outer before inner, in order."""
        found: dict[Item, Place] = {}

        def enter(parent: ast.AST) -> None:
            for field in BLOCKS:
                block = getattr(parent, field, None)
                if isinstance(block, list):
                    for index, node in enumerate(block):
                        found[node] = Place(node, parent, field, index)
                        if is_compound(node):
                            enter(node)

        enter(self.tree)
        return found

    @property
    def top_level(self) -> list[ast.stmt]:
        """Statements of the module itself."""
        return self.tree.body

    def _item_span(self, node: Item) -> tuple[int, int]:
        if isinstance(node, ast.match_case):
            start = self.text.rindex("case", 0, self.span(node.pattern)[0])
            return start, self.span(node.body[-1])[1]
        start, end = self.span(node)
        decorators = getattr(node, "decorator_list", None)
        if decorators:
            start = self.text.rindex("@", 0, self.span(decorators[0])[0])
        return start, end

    def _header_end(self, node: Item) -> int:
        if not is_compound(node):
            return self.span(node)[1]
        position = self.span(node)[0] if not isinstance(node, ast.match_case) else 0
        for child in header_nodes(node):
            if hasattr(child, "end_lineno"):
                position = max(position, self.span(child)[1])
        for match in _GAP.finditer(self.text, position):
            if match.group() == ":":
                return match.end()
        raise AssertionError(f"{self.path}: a compound statement without a colon")

    @cached_property
    def _extents(self) -> dict[Item, tuple[int, int, int]]:
        return {node: (*self._item_span(node), self._header_end(node)) for node in self.places}

    @cached_property
    def _by_line(self) -> dict[int, list[Item]]:
        lines: dict[int, list[Item]] = {}
        for node, (start, _, header_end) in self._extents.items():
            for line in range(self.line_of(start), self.line_of(header_end) + 1):
                lines.setdefault(line, []).append(node)
        return lines

    def item_span(self, node: Item) -> tuple[int, int]:
        """(start, end) of a block item, with its decorators; works for `case`, which `ast` gives no position."""
        return self._extents[node][:2]

    def header_end(self, node: Item) -> int:
        """Offset after the colon that ends a compound item's header; the end of a simple statement."""
        return self._extents[node][2]

    def items_at(self, line: int) -> list[Item]:
        """Items whose header or, for simple statements, whose whole text covers the line, in order."""
        return self._by_line.get(line, [])

    @cached_property
    def _children(self) -> dict[Item | None, tuple[list[Item], list[int], list[int]]]:
        found: dict[Item | None, tuple[list[Item], list[int], list[int]]] = {}
        for owner in (None, *(node for node in self.places if is_compound(node))):
            items = list(block_items(self.tree if owner is None else owner))
            extents = [self._extents[node] for node in items]
            found[owner] = items, [extent[0] for extent in extents], [extent[1] for extent in extents]
        return found

    def children(self, owner: Item | None) -> list[Item]:
        """The items that stand directly in an item's blocks, in order; of None, those of the module."""
        return self._children[owner][0]

    def touched(self, owner: Item | None, start: int, end: int) -> list[Item]:
        """Children of `owner` that overlap [start, end); an empty span touches what begins or ends there."""
        items, starts, ends = self._children[owner]
        if start == end:
            return items[bisect_left(ends, start) : bisect_right(starts, start)]
        return items[bisect_right(ends, start) : bisect_left(starts, end)]

    def item_at(self, offset: int) -> Item | None:
        """The innermost item whose span holds the offset."""
        best: Item | None = None
        while (best is None or is_compound(best)) and (inside := self.touched(best, offset, offset)):
            best = inside[-1]
        return best

    def owners(self, node: Item) -> Iterator[Item]:
        """The item itself, then what it stands in, from the inside out."""
        place = self.places.get(node)
        while place is not None:
            yield place.node
            parent = place.parent
            place = self.places.get(parent) if isinstance(parent, Item) else None

    def function_of(self, node: Item) -> Function | None:
        """The innermost function around an item; for the item itself its own when it is a function."""
        return next((owner for owner in self.owners(node) if isinstance(owner, Function)), None)

    def class_of(self, node: Item) -> ast.ClassDef | None:
        """The innermost class around an item."""
        return next((owner for owner in self.owners(node) if isinstance(owner, ast.ClassDef)), None)

    def function_at(self, offset: int) -> Function | None:
        """The innermost function around a character offset."""
        node = self.item_at(offset)
        return None if node is None else self.function_of(node)

    def class_at(self, offset: int) -> ast.ClassDef | None:
        """The innermost class around a character offset."""
        node = self.item_at(offset)
        return None if node is None else self.class_of(node)


def is_compound(node: Item) -> bool:
    """Whether the item owns blocks of its own."""
    return hasattr(node, "body") or hasattr(node, "cases")


def block_items(owner: ast.AST) -> Iterator[Item]:
    """The items that stand directly in the blocks of `owner`, in order."""
    for field in BLOCKS:
        block = getattr(owner, field, None)
        if isinstance(block, list):
            yield from block


def header_nodes(node: Item) -> Iterator[ast.AST]:
    """The parts of an item that do not stand in its blocks, from the top, without going deeper."""
    for name, value in ast.iter_fields(node):
        if name in BLOCKS and is_compound(node):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.arguments | ast.withitem):
                yield from ast.iter_child_nodes(child)
            elif isinstance(child, ast.AST):
                yield child
