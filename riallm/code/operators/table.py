"""The table of edit operators: what each does, how frequent such fixes are, since when, and on what grounds.

Shares come from the counts of TSSB-3M (3.3 million single-statement fixes in public Python projects). The rows
that name a pattern give their operators the whole count; what TSSB leaves unclassified ("single token", "single
statement") is divided by our own estimate, said so in `why`, and mostly left undistributed because no operator
can reach it. Nothing here was chosen by looking at a benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass

from riallm.code.operators import literals, names, operands
from riallm.code.operators.target import Operator

COUNTS: dict[str, int] = {
    "change identifier used": 237,
    "change binary operand": 174,
    "same function more args": 150,
    "wrong function name": 134,
    "add function around expression": 117,
    "change attribute used": 104,
    "change numeric literal": 97,
    "more specific if": 68,
    "add method call": 60,
    "add elements to iterable": 57,
    "same function less args": 50,
    "change boolean literal": 37,
    "add attribute access": 32,
    "change binary operator": 29,
    "same function wrong caller": 25,
    "less specific if": 22,
    "change keyword argument used": 20,
    "change unary operator": 15,
    "same function swap args": 8,
    "change constant type": 6,
    "single token": 740,
    "single statement": 1150,
}
"""Thousands of fixes in TSSB-3M, by its own names of the patterns; the last two are its unclassified rest."""

TOTAL = sum(COUNTS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operator. `part` is how much of the TSSB row's count is given to it."""

    run: Operator
    family: str
    row: str
    part: float
    since: str
    why: str

    @property
    def share(self) -> float:
        """Share of all single-statement fixes that the operator stands for."""
        return COUNTS[self.row] * self.part / TOTAL


def _row(run: Operator, family: str, row: str, part: float, why: str) -> tuple[str, Row]:
    return run.__name__, Row(run=run, family=family, row=row, part=part, since="2026-11-22", why=why)


OPERATORS: dict[str, Row] = dict(
    (
        _row(names.change_identifier, "name", "change identifier used", 0.92, "named row"),
        _row(names.add_self, "name", "change identifier used", 0.08, "named row; a forgotten or needless self"),
        _row(names.change_function, "call", "wrong function name", 0.5, "named row; functions"),
        _row(names.change_method, "call", "wrong function name", 0.5, "named row; methods"),
        _row(names.change_caller, "name", "same function wrong caller", 1.0, "named row"),
        _row(operands.change_operand, "operand", "change binary operand", 0.9, "named row"),
        _row(operands.swap_operands, "operand", "change binary operand", 0.1, "named row; both operands change"),
        _row(operands.drop_operand, "operand", "single statement", 0.01, "estimate"),
        _row(operands.add_offset, "operand", "single statement", 0.03, "estimate; off by one without a literal"),
        _row(operands.change_arithmetic, "operator", "change binary operator", 0.4, "named row"),
        _row(operands.change_comparison, "operator", "change binary operator", 0.5, "named row"),
        _row(operands.change_boolean_operator, "operator", "change binary operator", 0.1, "named row"),
        _row(operands.change_unary, "operator", "change unary operator", 1.0, "named row"),
        _row(literals.change_number, "literal", "change numeric literal", 1.0, "named row"),
        _row(literals.flip_boolean, "literal", "change boolean literal", 1.0, "named row"),
        _row(literals.change_string, "literal", "single token", 0.2, "estimate; the row is mostly strings"),
        _row(literals.change_constant_type, "literal", "change constant type", 1.0, "named row"),
    )
)
