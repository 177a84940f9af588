"""From a line to the edits worth trying there, the likeliest first."""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Collection

from riallm.code.edit import Edit
from riallm.code.operators.table import OPERATORS, Row
from riallm.code.operators.target import Target, target_of
from riallm.code.regions import Key, checker_of, written_key
from riallm.code.source import Source
from riallm.code.vocabulary import Vocabulary

_Draft = tuple[float, int, int, str, str]
"""Negative prior, start, end, text, operator: sorts by itself into the order of proposal."""

_ELSEWHERE = 0.3
"""Weight of a change on another line of the same statement, against one on the line itself."""


def propose(
    source: Source, line: int, vocabulary: Vocabulary, *, limit: int = 400, only: Collection[str] | None = None
) -> list[Edit]:
    """At most `limit` edits of the statements whose header or text covers the line, likeliest first.

    Each parses, changes the program and is unlike the others (by the syntax tree of what it changes). `prior` is
    the operator's share of real fixes times the filling's share among the operator's changes here, or its plain
    weight where they do not even add up to one (all of them unlikely). `only` keeps to the operators named. The
    same input always gives the same list. Lines that hold no code give none.
    """
    return [edit for edit, _ in _kept(source, line, vocabulary, limit, only)]


def propose_keyed(
    source: Source, line: int, vocabulary: Vocabulary, *, limit: int = 400, only: Collection[str] | None = None
) -> list[tuple[Edit, str]]:
    """`propose`, each edit with its `statement_key`, which is half known here already and dear to find again."""
    return [(edit, written_key(edit.path, key)) for edit, key in _kept(source, line, vocabulary, limit, only)]


def _kept(
    source: Source, line: int, vocabulary: Vocabulary, limit: int, only: Collection[str] | None
) -> list[tuple[Edit, Key]]:
    rows = {name: row for name, row in OPERATORS.items() if only is None or name in only}
    checker, seen, kept = checker_of(source), set[object](), list[tuple[Edit, Key]]()
    written: set[tuple[int, int, str]] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drafts = sorted(_drafts_at(source, line, vocabulary, rows))
        for draft in drafts:
            if len(kept) >= limit:
                break
            if draft[1:4] in written:
                continue
            written.add(draft[1:4])
            edit = _edit(source, draft)
            key = checker.key(edit)
            if key is not None and key not in seen:
                seen.add(key)
                kept.append((edit, key))
    return kept


def drawn(source: Source, line: int, vocabulary: Vocabulary, operator: str, draw: random.Random) -> Edit | None:
    """One edit of the line by an operator, drawn by weight; None where it has none. Not checked: it may not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drafts = _drafts_at(source, line, vocabulary, {operator: OPERATORS[operator]})
    return _edit(source, draw.choices(drafts, weights=[-draft[0] for draft in drafts])[0]) if drafts else None


def categorise(operator: str) -> str:
    """The family of an operator; "infill" for whatever the table does not name."""
    row = OPERATORS.get(operator)
    return "infill" if row is None else row.family


def _edit(source: Source, draft: _Draft) -> Edit:
    prior, start, end, text, operator = draft
    return Edit(
        path=source.path,
        start=start,
        original=source.text[start:end],
        text=text,
        line=source.line_of(start),
        operator=operator,
        prior=-prior,
    )


def _drafts_at(source: Source, line: int, vocabulary: Vocabulary, rows: dict[str, Row]) -> list[_Draft]:
    """Of all statements at a line, docstrings left out."""
    items = [item for item in source.items_at(line) if not _is_docstring(item)]
    return [draft for item in items for draft in _drafts(target_of(source, vocabulary, item, line), line, rows)]


def _drafts(target: Target, line: int, rows: dict[str, Row]) -> list[_Draft]:
    source = target.source
    low = source.line_starts[line - 1]
    high = source.line_end(low)
    drafts = []
    for name, row in rows.items():
        changes = [
            (change, change.weight if change.start <= high and change.end >= low else change.weight * _ELSEWHERE)
            for change in row.run(target)
        ]
        total = max(1.0, sum(weight for _, weight in changes))
        drafts += [
            (-row.share * weight / total, change.start, change.end, change.text, name)
            for change, weight in changes
            if source.text[change.start : change.end] != change.text
        ]
    return drafts


def _is_docstring(item: ast.AST) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
