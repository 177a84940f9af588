"""The change between two releases as single hunks: cut, applied alone, shown, and judged as code or not."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

_CONTAINER = (ast.List, ast.Tuple, ast.Dict, ast.Set)
_LITERAL = (*_CONTAINER, ast.Constant, ast.UnaryOp, ast.USub, ast.UAdd, ast.Load, ast.JoinedStr)
_BUILDERS = {"frozenset", "set", "dict", "tuple", "list", "OrderedDict"}
_ABOUT = re.compile(r"_*(version|version_info|versioninfo|ver|date|author|copyright|license|build)_*", re.IGNORECASE)
_DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_GIT_CONTEXT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """Lines [start, stop) of the older text (0-based) give way to `added`; `regions` counts its contiguous changes."""

    start: int
    stop: int
    added: tuple[str, ...]
    changed_removed: int
    changed_added: int
    regions: int = 1

    @property
    def size(self) -> int:
        """Changed lines: removed plus added, unchanged lines between regions not counted."""
        return self.changed_removed + self.changed_added


def split(text: str) -> list[str]:
    """Lines with their ends, cut at newlines only."""
    return text.splitlines(keepends=True) if "\x0c" not in text else re.findall(r"[^\n]*\n|[^\n]+", text)


def cut(older: str, newer: str, *, together: bool = False) -> list[Hunk]:
    """The change as hunks: one contiguous region each or, with `together`, only the groups of several
    regions that a unified diff with three lines of context would show as one hunk."""
    before, after = split(older), split(newer)
    codes = [
        code
        for code in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if code[0] != "equal"
    ]
    groups: list[list[tuple[str, int, int, int, int]]] = []
    for code in codes:
        if together and groups and code[1] - groups[-1][-1][2] <= 2 * _GIT_CONTEXT:
            groups[-1].append(code)
        else:
            groups.append([code])
    return [
        Hunk(
            start=group[0][1],
            stop=group[-1][2],
            added=tuple(after[group[0][3] : group[-1][4]]),
            changed_removed=sum(code[2] - code[1] for code in group),
            changed_added=sum(code[4] - code[3] for code in group),
            regions=len(group),
        )
        for group in groups
        if len(group) > 1 or not together
    ]


def apply(older: str, hunk: Hunk) -> str:
    """The older text with this hunk alone."""
    lines = split(older)
    return "".join([*lines[: hunk.start], *hunk.added, *lines[hunk.stop :]])


def unified(older: str, newer: str, path: str) -> str:
    """Unified diff, three lines of context, of one file."""
    return "".join(
        line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(split(older), split(newer), f"a/{path}", f"b/{path}", n=_GIT_CONTEXT)
    )


def patch(older: str, diff: str) -> str:
    """The older text with a unified diff of one file applied exactly; ValueError where it does not fit."""
    before, result, at = split(older), [], 0
    rows = diff.split("\n")[2:]
    for index, row in enumerate(rows):
        head = re.match(r"@@ -(\d+)(?:,(\d+))? \+", row)
        if head:
            start = int(head[1]) - (head[2] != "0")
            result += before[at:start]
            at = start
        elif row[:1] in (" ", "-", "+"):
            end = "" if index + 1 < len(rows) and rows[index + 1].startswith("\\") else "\n"
            if row[0] != "+":
                if before[at : at + 1] != [row[1:] + end]:
                    raise ValueError(f"line {at + 1} is {before[at : at + 1]!r}, the diff expects {row[1:]!r}")
                at += 1
            if row[0] != "-":
                result.append(row[1:] + end)
    return "".join([*result, *before[at:]])


def objection(older: str, newer: str) -> str:
    """Why a change does not count as a change of behaviour in code; empty when it does."""
    try:
        trees = ast.parse(older), ast.parse(newer)
    except (SyntaxError, ValueError):
        return "does not compile"
    if _shape(trees[0]) == _shape(trees[1]):
        return "comments, docstrings, versions or data only"
    known = {node.name for node in ast.walk(trees[0]) if isinstance(node, _DEFINITION)}
    for node in ast.walk(trees[1]):
        if isinstance(node, (ast.Module, ast.ClassDef)):
            node.body = [item for item in node.body if not isinstance(item, _DEFINITION) or item.name in known]
    if ast.dump(trees[0]) == ast.dump(trees[1]):
        return "a new definition only"
    return ""


def _shape(tree: ast.Module) -> str:
    """The module without docstrings, without facts about itself, and with containers of literals emptied."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [item for item in node.body if not _is_string(item)]
            if isinstance(node, (ast.Module, ast.ClassDef)):
                node.body = [item for item in node.body if not _is_about(item)]
                for item in node.body:
                    if isinstance(item, (ast.Assign, ast.AnnAssign)) and item.value and _is_data(item.value):
                        item.value = ast.Constant(value=None)
    return ast.dump(tree)


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_about(node: ast.stmt) -> bool:
    targets: Sequence[ast.expr] = node.targets if isinstance(node, ast.Assign) else ()
    return any(isinstance(target, ast.Name) and _ABOUT.fullmatch(target.id) for target in targets)


def _is_data(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BUILDERS:
        return all(map(_is_data, node.args)) and not node.keywords
    return isinstance(node, _CONTAINER) and all(isinstance(inner, _LITERAL) for inner in ast.walk(node))


def entries(older: str, hunk: Hunk) -> frozenset[int] | None:
    """First lines (1-based, decorators included) of the innermost functions that a hunk lies in.

    None when some of it lies outside of every function, or right at the edge of one.
    """
    spans = []
    for node in ast.walk(ast.parse(older)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
            spans.append((min([node.lineno, *(item.lineno for item in node.decorator_list)]), node.end_lineno))
    found = set()
    for line in range(hunk.start, hunk.stop + 1) if hunk.start == hunk.stop else range(hunk.start + 1, hunk.stop + 1):
        around = [span for span in spans if span[0] <= line <= span[1]]
        if not around:
            return None
        found.add(max(around)[0])
    if any(span[1] <= hunk.start for span in spans if span[0] in found and hunk.start == hunk.stop):
        return None
    return frozenset(found)


def words(texts: Sequence[str]) -> frozenset[str]:
    """Every identifier-like word in the texts."""
    return frozenset(word for text in texts for word in re.findall(r"[A-Za-z_]\w*", text))
