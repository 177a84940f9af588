"""The repair's own edit operators, turned round: a wrong edit of a right statement, drawn by the shares of real fixes.

The shares (TSSB-3M, `code/operators/table`) are mixed half and half with equal ones, so that frequent kinds of
mistakes are frequent and rare ones are there.
"""

from __future__ import annotations

import random

from riallm.code.edit import Edit
from riallm.code.operators import OPERATORS, drawn, propose
from riallm.data.inject_site import Site

_TRIES = 10


def operator_weights() -> dict[str, float]:
    """Probability of drawing each operator: half its share of real fixes, half equal."""
    total = sum(row.share for row in OPERATORS.values())
    return {name: 0.5 * row.share / total + 0.5 / len(OPERATORS) for name, row in OPERATORS.items()}


def operator_edits(site: Site, draw: random.Random, which: str = "") -> Edit | None:
    """An edit of the function's body by the operator `which`, or by one drawn; None where it has nothing to change."""
    if not which:
        weights = operator_weights()
        which = draw.choices(list(weights), weights=list(weights.values()))[0]
    items = list(site.items)
    draw.shuffle(items)
    for item in items[:_TRIES]:
        edits = [
            edit
            for edit in propose(site.source, item.lineno, site.library.vocabulary, limit=4000)
            if edit.operator == which and edit.original != edit.text
        ]
        if edits:
            return draw.choices(edits, weights=[edit.prior for edit in edits])[0]
    return None


def quick_edit(site: Site, draw: random.Random) -> Edit | None:
    """`operator_edits` without looking for equal edits first: some forty times faster, for training text. The edit
    may not parse."""
    weights = operator_weights()
    which = draw.choices(list(weights), weights=list(weights.values()))[0]
    items = list(site.items)
    draw.shuffle(items)
    for item in items[:_TRIES]:
        edit = drawn(site.source, item.lineno, site.library.vocabulary, which, draw)
        if edit is not None:
            return edit
    return None
