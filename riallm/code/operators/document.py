"""The page docs/operators.md, made from the table: the record of which operators there were when, and why."""

from __future__ import annotations

from riallm.code.operators.table import COUNTS, OPERATORS, TOTAL

_HEAD = """# Edit operators

How `riallm fix` thinks a statement can be wrong. This page is made from `riallm/code/operators/table.py`; a test
holds the two together. Write it again with

    .venv/bin/python -c "from riallm.code.operators.document import page; print(page(), end='')" > docs/operators.md

## Where the shares come from

The operators and their shares were frozen on 2026-11-22 from public statistics of real fixes, before any
benchmark of ours was looked at: the counts of TSSB-3M (3.3 million single-statement bug fixes in public Python
projects; C. Richter and H. Wehrheim, MSR 2022, arXiv 2201.12046, table in the README of cedricrupb/TSSB3M). An
operator's share is a part of one row's count over all fixes.

- Twenty rows name a pattern. Their operators share the whole row between them.
- Two rows hold what TSSB could not name ("single token", "single statement"). There the parts are our own
  estimate, led by what is reported of other collections (added conditionals, calls and assignments lead the
  repair actions of Defects4J) and by the mirror images of named rows. Most of these rows stays undistributed:
  no operator reaches it.

One caution. The list of families (not their shares or fillings) was drawn up by people who knew a published total:
how many of forty small textbook programs are one edit of fourteen textbook operators, or of idiom templates, away
from their reference. None of those programs was looked at, but on such programs the operators are not naive.

What an operator's fillings weigh among themselves (nearness, frequency, use in the same role, likeness of
names) is our judgement too, not a statistic. Whoever adds an operator later adds a row with its own date and its
own ground; a ground may be a statistic or bugs outside every benchmark, never a benchmark item.

"""


def page() -> str:
    """The whole page, in Markdown."""
    lines = ["## Rows of TSSB-3M\n", "| row | fixes | share | given to operators |", "| --- | ---: | ---: | ---: |"]
    for row, count in COUNTS.items():
        given = sum(operator.part for operator in OPERATORS.values() if operator.row == row)
        lines.append(f"| {row} | {count}K | {count / TOTAL:.2%} | {given:.0%} |")
    reached = sum(operator.share for operator in OPERATORS.values())
    lines += [
        f"\nTogether the {len(OPERATORS)} operators stand for {reached:.0%} of the fixes counted there; how many",
        "of those a filling really reaches is measured, not assumed (`riallm eval repair`).\n",
        "## Operators\n",
        "| operator | what it does | family | share | row | part | since | why |",
        "| --- | --- | --- | ---: | --- | ---: | --- | --- |",
    ]
    for name, operator in OPERATORS.items():
        what = " ".join((operator.run.__doc__ or "").split()).rstrip(".").replace("|", "\\|")
        lines.append(
            f"| `{name}` | {what} | {operator.family} | {operator.share:.3%} | {operator.row} | {operator.part:g} "
            f"| {operator.since} | {operator.why} |"
        )
    return _HEAD + "\n".join(lines) + "\n"
