"""The frozen table: the page and the code agree, no row is given away twice, every ground is written down."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from riallm.code.operators import OPERATORS, categorise
from riallm.code.operators.document import page
from riallm.code.operators.table import COUNTS, TOTAL

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write docs/operators.md again; its head says how"


def test_the_page_names_every_operator_once_with_its_share() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+)% \| ([\w ]+) \| [\d.]+ \| (\S+) \| .+ \|$", page(), re.MULTILINE)
    assert [name for name, *_ in rows] == list(OPERATORS)
    for name, share, row, since in rows:
        assert float(share) == pytest.approx(100 * OPERATORS[name].share, abs=6e-4)
        assert (row, since) == (OPERATORS[name].row, OPERATORS[name].since)


def test_no_row_of_the_statistics_is_given_away_twice() -> None:
    for row in COUNTS:
        parts = sum(operator.part for operator in OPERATORS.values() if operator.row == row)
        named = not row.startswith("single")
        assert parts == pytest.approx(1.0) if named else 0.0 < parts < 1.0, row


def test_counts_are_those_of_the_reference() -> None:
    assert TOTAL == 3332
    for row, share in (
        ("change identifier used", 7.1),
        ("change binary operand", 5.2),
        ("change numeric literal", 2.9),
    ):
        assert 100 * COUNTS[row] / TOTAL == pytest.approx(share, abs=0.05)


def test_every_operator_says_since_when_and_why() -> None:
    for name, operator in OPERATORS.items():
        assert date.fromisoformat(operator.since) >= date(2026, 11, 22), name
        assert operator.why and operator.run.__doc__, name


def test_families() -> None:
    assert categorise("change_identifier") == "name"
    assert categorise("insert_guard") == "guard"
    assert categorise("what a model wrote") == "infill"
