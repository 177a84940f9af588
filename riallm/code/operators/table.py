"""The table of edit operators: what each does, how frequent such fixes are, since when, and on what grounds.

Shares come from the counts of TSSB-3M (3.3 million single-statement fixes in public Python projects). The rows
that name a pattern give their operators the whole count; what TSSB leaves unclassified ("single token", "single
statement") is divided by our own estimate, said so in `why`, and mostly left undistributed because no operator
can reach it. Nothing here was chosen by looking at a benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass

from riallm.code.operators import (
    arguments,
    assignments,
    attributes,
    calls,
    conditions,
    elements,
    exceptions,
    guards,
    literals,
    loops,
    names,
    operands,
    returns,
    reuse,
    statements,
    subscripts,
)
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


_NAMED = "named row"
_REST = "our estimate of a part of the unclassified rest"

OPERATORS: dict[str, Row] = dict(
    (
        _row(names.change_identifier, "name", "change identifier used", 0.92, _NAMED),
        _row(names.add_self, "name", "change identifier used", 0.08, "named row; a forgotten or needless self"),
        _row(names.change_caller, "name", "same function wrong caller", 1.0, _NAMED),
        _row(names.change_function, "callee", "wrong function name", 0.5, "named row; functions"),
        _row(names.change_method, "callee", "wrong function name", 0.5, "named row; methods"),
        _row(arguments.add_argument, "argument", "same function more args", 0.6, "named row; by position"),
        _row(arguments.add_keyword, "argument", "same function more args", 0.4, "named row; by keyword"),
        _row(arguments.remove_argument, "argument", "same function less args", 1.0, _NAMED),
        _row(arguments.swap_arguments, "argument", "same function swap args", 1.0, _NAMED),
        _row(arguments.change_keyword, "argument", "change keyword argument used", 1.0, _NAMED),
        _row(operands.change_operand, "operand", "change binary operand", 0.9, _NAMED),
        _row(operands.swap_operands, "operand", "change binary operand", 0.1, "named row; both operands change"),
        _row(operands.drop_operand, "operand", "single statement", 0.01, _REST),
        _row(operands.add_offset, "operand", "single statement", 0.03, f"{_REST}; off by one without a literal"),
        _row(operands.change_arithmetic, "operator", "change binary operator", 0.4, _NAMED),
        _row(operands.change_comparison, "operator", "change binary operator", 0.5, _NAMED),
        _row(operands.change_boolean_operator, "operator", "change binary operator", 0.1, _NAMED),
        _row(operands.change_unary, "operator", "change unary operator", 1.0, _NAMED),
        _row(calls.wrap_call, "wrap", "add function around expression", 0.92, _NAMED),
        _row(calls.bound_value, "wrap", "add function around expression", 0.08, "named row; min and max"),
        _row(calls.unwrap_call, "wrap", "single statement", 0.03, f"{_REST}; the named row backwards"),
        _row(calls.copy_value, "wrap", "single statement", 0.01, f"{_REST}; shared mutable values"),
        _row(calls.call_parentheses, "wrap", "single statement", 0.01, _REST),
        _row(calls.change_await, "wrap", "single statement", 0.005, _REST),
        _row(attributes.change_attribute, "attribute", "change attribute used", 1.0, _NAMED),
        _row(attributes.add_attribute, "attribute", "add attribute access", 1.0, _NAMED),
        _row(attributes.remove_attribute, "attribute", "single statement", 0.015, f"{_REST}; the named row backwards"),
        _row(attributes.add_method_call, "method", "add method call", 1.0, _NAMED),
        _row(attributes.remove_method_call, "method", "single statement", 0.02, f"{_REST}; the named row backwards"),
        _row(literals.change_number, "literal", "change numeric literal", 1.0, _NAMED),
        _row(literals.flip_boolean, "literal", "change boolean literal", 1.0, _NAMED),
        _row(literals.change_constant_type, "literal", "change constant type", 1.0, _NAMED),
        _row(literals.change_string, "string", "single token", 0.2, f"{_REST}; the row is mostly strings"),
        _row(calls.convert_string, "string", "single statement", 0.015, _REST),
        _row(conditions.stricter_condition, "condition", "more specific if", 1.0, _NAMED),
        _row(conditions.looser_condition, "condition", "less specific if", 1.0, _NAMED),
        _row(conditions.change_condition, "condition", "single statement", 0.02, _REST),
        _row(conditions.change_truth_test, "condition", "single statement", 0.02, f"{_REST}; None and empty confused"),
        _row(elements.add_element, "element", "add elements to iterable", 1.0, _NAMED),
        _row(elements.remove_element, "element", "single statement", 0.015, f"{_REST}; the named row backwards"),
        _row(elements.swap_elements, "element", "single statement", 0.005, _REST),
        _row(elements.collect_value, "element", "single statement", 0.01, _REST),
        _row(guards.default_value, "guard", "single statement", 0.02, f"{_REST}; missing handling of None"),
        _row(guards.insert_guard, "guard", "single statement", 0.05, f"{_REST}; conditionals lead Defects4J's actions"),
        _row(guards.wrap_in_if, "guard", "single statement", 0.02, f"{_REST}; conditionals lead Defects4J's actions"),
        _row(guards.remove_guard, "guard", "single statement", 0.005, _REST),
        _row(subscripts.change_index, "subscript", "single statement", 0.02, _REST),
        _row(subscripts.change_slice, "subscript", "single statement", 0.015, _REST),
        _row(subscripts.add_subscript, "subscript", "single statement", 0.02, _REST),
        _row(subscripts.remove_subscript, "subscript", "single statement", 0.015, _REST),
        _row(subscripts.dictionary_access, "subscript", "single statement", 0.02, _REST),
        _row(returns.change_return, "return", "single statement", 0.03, _REST),
        _row(returns.insert_return, "return", "single statement", 0.02, _REST),
        _row(returns.return_or_yield, "return", "single statement", 0.005, _REST),
        _row(
            statements.insert_statement, "statement", "single statement", 0.04, f"{_REST}; calls and assignments added"
        ),
        _row(statements.delete_statement, "statement", "single statement", 0.015, _REST),
        _row(statements.move_statement, "statement", "single statement", 0.02, f"{_REST}; wrong indentation"),
        _row(statements.swap_statements, "statement", "single statement", 0.015, _REST),
        _row(statements.change_keyword_word, "statement", "single statement", 0.005, _REST),
        _row(loops.change_range, "loop", "single statement", 0.015, _REST),
        _row(loops.change_iterable, "loop", "single statement", 0.02, _REST),
        _row(loops.break_or_continue, "loop", "single statement", 0.008, _REST),
        _row(loops.comprehension_condition, "loop", "single statement", 0.01, _REST),
        _row(exceptions.change_exception, "exception", "single token", 0.02, _REST),
        _row(exceptions.widen_exception, "exception", "single statement", 0.015, _REST),
        _row(exceptions.wrap_in_try, "exception", "single statement", 0.005, _REST),
        _row(assignments.assign_or_augment, "assignment", "single statement", 0.01, _REST),
        _row(assignments.keep_result, "assignment", "single statement", 0.015, f"{_REST}; a result thrown away"),
        _row(assignments.change_default, "definition", "single statement", 0.01, _REST),
        _row(assignments.change_decorator, "definition", "single statement", 0.005, _REST),
        _row(reuse.replace_expression, "reuse", "single statement", 0.06, f"{_REST}; fixes reuse what stands near"),
    )
)
