"""Bugs put into working code: one record, two families of injectors, and a seeded draw.

The family "operator" turns the repair's own edit operators round. The family "unlike" does what they do not:
whole statements deleted, doubled, swapped, moved between blocks or taken from another function; names mixed up
with those that other code uses in the same place; and pairs of edits of which neither alone is the bug.
Nothing here runs a program: whoever injects also verifies (`riallm/eval/verify.py`).
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from riallm.code.edit import Edit
from riallm.code.regions import shape
from riallm.code.source import Function, Source, parse_text
from riallm.data.inject_names import NAME_INJECTORS
from riallm.data.inject_operators import operator_edits, quick_edit
from riallm.data.inject_pattern import pattern_of
from riallm.data.inject_site import Library, Site
from riallm.data.inject_statements import STATEMENT_INJECTORS

UNLIKE: dict[str, Callable[[Site, random.Random], Edit | None]] = {**STATEMENT_INJECTORS, **NAME_INJECTORS}
PAIR = "pair"
UNLIKE_NAMES = (*UNLIKE, PAIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """A bug: `edits` of one file, with spans in the correct text, that do not touch one another.

    injector: "operator:NAME" or "unlike:NAME"; pattern: one of the debug patterns (`inject_pattern`);
    function: qualified name; first_line: of its `def` or of its first decorator, as the interpreter counts.
    """

    path: str
    edits: tuple[Edit, ...]
    injector: str
    pattern: str
    function: str
    first_line: int

    @property
    def line(self) -> int:
        """Line of the first edit in the correct text."""
        return min(edit.line for edit in self.edits)


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """`text` with several edits of the same file made; their spans are those of `text` and do not overlap."""
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end), reverse=True):
        text = edit.apply(text)
    return text


def reverse_edits(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits that undo `edits`, with spans in the text that `apply_edits` gives."""
    shift, lines, undone = 0, 0, []
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        undone.append(
            Edit(
                path=edit.path,
                start=edit.start + shift,
                original=edit.text,
                text=edit.original,
                line=edit.line + lines,
                operator=edit.operator,
                prior=edit.prior,
            )
        )
        shift += len(edit.text) - len(edit.original)
        lines += edit.text.count("\n") - edit.original.count("\n")
    return tuple(undone)


def functions_of(source: Source) -> list[tuple[str, Function]]:
    """Every function of the file with its qualified name, outer before inner."""
    found: list[tuple[str, Function]] = []
    for node in source.places:
        if isinstance(node, Function):
            owners = [owner.name for owner in source.owners(node) if isinstance(owner, Function | ast.ClassDef)]
            found.append((".".join(reversed(owners)), node))
    return found


def first_line(function: Function) -> int:
    """The line that the interpreter gives the function's code object: its first decorator's, or its own."""
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def inject(
    source: Source, function: Function, name: str, *, library: Library, injector: str, draw: random.Random
) -> Injection | None:
    """One bug by `injector` in the body of `function`, or None where it finds nothing to do.

    injector: "operator" (any operator, drawn by its share), "operator:NAME", "quick" (the same as "operator", for much
    text), or "unlike:NAME".
    The text with the bug compiles and is another program; docstrings are never touched.
    """
    site = Site(source=source, function=function, library=library)
    kind, _, which = injector.partition(":")
    if kind in ("operator", "quick"):
        made = operator_edits(site, draw, which) if kind == "operator" else quick_edit(site, draw)
        edits: tuple[Edit, ...] = () if made is None else (made,)
        injector = f"operator:{made.operator}" if made else injector
    elif which == PAIR:
        edits = _pair(site, draw)
    else:
        made = UNLIKE[which](site, draw)
        edits = () if made is None else (made,)
    if not edits or not differs(source, edits):
        return None
    return Injection(
        path=source.path,
        edits=tuple(sorted(edits, key=lambda edit: edit.start)),
        injector=injector,
        pattern=pattern_of(source, edits),
        function=name,
        first_line=first_line(function),
    )


def _pair(site: Site, draw: random.Random) -> tuple[Edit, ...]:
    """Two edits of the same function on different lines, each by an injector of its own."""
    found: list[Edit] = []
    for _ in range(8):
        name = draw.choice([*UNLIKE, "operator", "operator"])
        edit = operator_edits(site, draw, "") if name == "operator" else UNLIKE[name](site, draw)
        if edit is None or not differs(site.source, (edit,)):
            continue
        if found and not _apart(found[0], edit):
            continue
        found.append(edit)
        if len(found) == 2:
            return tuple(found)
    return ()


def _apart(one: Edit, other: Edit) -> bool:
    """Whether two edits neither touch nor change the same line."""
    first, second = sorted((one, other), key=lambda edit: edit.start)
    return first.end < second.start and first.line + first.original.rstrip("\n").count("\n") < second.line


def differs(source: Source, edits: Sequence[Edit]) -> bool:
    """Whether the edited text parses, compiles, and is another program than the old one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parse_text(apply_edits(source.text, edits))
            compile(tree, source.path, "exec")
    except (SyntaxError, ValueError):
        return False
    return shape(tree) != _shape_of(source)


@lru_cache(maxsize=8)
def _shape_of(source: Source) -> object:
    return shape(source.tree)
