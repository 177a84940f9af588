"""Suspicious patches are named for what they do; ordinary repairs are not."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from riallm.code.edit import Edit
from riallm.code.operators import propose
from riallm.code.smells import SMELLS, smells, smells_of_trees
from riallm.code.source import Source
from riallm.code.vocabulary import Vocabulary

PROGRAM = """\
def price(items, rate, limit=100):
    assert items
    if rate is None or rate < 0:
        raise ValueError(rate)
    total = sum(item.cost for item in items if item.cost)
    try:
        total = total * float(rate)
    except TypeError as error:
        raise ValueError("rate") from error
    while total > limit and limit:
        total -= limit
    report(total, limit)
    return round(total, 2)
"""
TESTS = "def test_price():\n    assert price([A(40)], 1.5) == 60.25\n    assert price([], 'free') == 0\n"


def flags(old: str, new: str) -> frozenset[str]:
    assert old in PROGRAM
    source = Source.from_text("shop.py", PROGRAM)
    start = PROGRAM.index(old)
    edit = Edit(path="shop.py", start=start, original=old, text=new, line=source.line_of(start), operator="test")
    return smells(source, edit, tests=TESTS)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("    assert items\n", "", {"deletes-check", "deletes-statement"}),
        ("raise ValueError(rate)", "pass", {"deletes-check", "deletes-statement"}),
        (
            "    if rate is None or rate < 0:\n        raise ValueError(rate)\n",
            "",
            {"deletes-check", "deletes-statement"},
        ),
        ("        total -= limit\n", "        pass\n", {"deletes-statement"}),
        ("rate is None or rate < 0", "rate is None or rate < 0 or not items", {"widens-guard"}),
        ("total > limit and limit", "total > limit", {"widens-guard"}),
        ("total > limit and limit", "total > limit and limit or rate", {"widens-guard"}),
        ("assert items", "assert items or rate", {"widens-guard"}),
        (" if item.cost)", ")", {"widens-guard"}),
        ("rate is None or rate < 0", "False", {"constant-condition"}),
        ("total > limit and limit", "total > limit and True", {"constant-condition"}),
        ("    total = sum(", "    if rate == 1.5:\n        return 60.25\n    total = sum(", {"special-case"}),
        ("rate < 0", "rate == 'free'", {"special-case"}),
        ("round(total, 2)", "60.25", {"special-case", "constant-return"}),
        ("round(total, 2)", "None", {"constant-return"}),
        ("return round(total, 2)", "return", {"constant-return"}),
        ("round(total, 2)", "[]", {"constant-return"}),
        ("round(total, 2)", "{}", {"constant-return"}),
        ("round(total, 2)", "-(1)", {"constant-return"}),
        ("except TypeError as error", "except Exception as error", {"swallows-exception"}),
        ("except TypeError as error", "except (TypeError, Exception) as error", {"swallows-exception"}),
        ('raise ValueError("rate") from error', "pass", {"deletes-check", "deletes-statement", "swallows-exception"}),
        (
            "        total -= limit\n",
            "        try:\n            total -= limit\n        except KeyError:\n            pass\n",
            {"swallows-exception"},
        ),
        ("report(total, limit)", "report", {"deletes-statement"}),
        ("report(total, limit)", "total", {"deletes-statement"}),
        ("report(total, limit)", "(total, limit)", {"deletes-statement"}),
    ],
)
def test_suspicious(old: str, new: str, wanted: set[str]) -> None:
    assert flags(old, new) == wanted
    assert wanted <= set(SMELLS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rate < 0", "rate <= 0"),
        ("rate is None or rate < 0", "rate is None"),
        ("total > limit and limit", "total > limit and limit and rate"),
        ("sum(item.cost", "sum(item.price"),
        ("limit=100", "limit=60.25"),
        ("except TypeError", "except (TypeError, ValueError)"),
        ("round(total, 2)", "round(total, 3)"),
        ("    while total", "    if not total:\n        return 0\n    while total"),
        ("        total -= limit\n", "        total -= limit\n        if not limit:\n            break\n"),
        ("total = total * float(rate)", "total = float(rate) * total + 1"),
        ("round(total, 2)", "total"),
        ("round(total, 2)", "{total: 1}"),
        ("round(total, 2)", "[total]"),
        ("rate < 0", "rate == 1"),
        ("    return round", "return round"),
    ],
)
def test_unsuspicious(old: str, new: str) -> None:
    assert flags(old, new) == frozenset()


@pytest.mark.parametrize(
    ("old", "new", "unused"),
    [
        ("+ b", "+ a", True),
        ("+ b", "+ 1", True),
        ("a + b", "b", True),
        ("+ b", "+ b + c", False),
        ("+ b", "- b", False),
        ("b = c", "b = a", False),  # c is a parameter, nothing was computed for it
        ("print(d)", "print(a)", True),
        ("    b = c\n    return a + b", "    return a + c", False),
    ],
)
def test_a_value_that_is_computed_for_nothing(old: str, new: str, unused: bool) -> None:
    text = "def f(c):\n    a = g(c)\n    d = 1\n    print(d)\n    b = c\n    return a + b\n"
    source = Source.from_text("f.py", text)
    start = text.index(old)
    edit = Edit(path="f.py", start=start, original=old, text=new, line=source.line_of(start), operator="test")
    assert ("leaves-unused" in smells(source, edit)) is unused
    assert smells(source, edit) == smells_of_trees(source, edit)


def test_without_tests_nothing_is_a_special_case() -> None:
    source = Source.from_text("shop.py", PROGRAM)
    edit = Edit(
        path="shop.py",
        start=PROGRAM.index("rate < 0"),
        original="rate < 0",
        text="rate == 'free'",
        line=3,
        operator="t",
    )
    assert smells(source, edit) == frozenset()
    assert smells(source, edit, tests="def broken(:") == frozenset()


def test_the_short_way_says_what_the_syntax_trees_say() -> None:
    """`smells` does not look at trees where nothing telling stands in the texts; over real code that is the same."""
    path = Path(textwrap.__file__)
    source = Source.parse(path.name, path.read_bytes())
    vocabulary = Vocabulary.build([source])
    for line in range(180, len(source.line_starts), 23):
        for edit in propose(source, line, vocabulary):
            assert smells(source, edit, tests="x = 17") == smells_of_trees(source, edit, "x = 17"), edit
