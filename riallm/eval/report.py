"""What a run says: figures from the results, as a table, as JSON and as a dated card in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from riallm.eval.stats import Difference, Estimate
from riallm.eval.tasks.repair_metrics import COMPARED, Figures, Split

Rows = list[list[str]]


def percent(estimate: Estimate) -> str:
    """A share with its interval."""
    if estimate.num == 0:
        return "-"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def number(estimate: Estimate, digits: int = 1) -> str:
    """A median with its interval."""
    if estimate.num == 0 or math.isnan(estimate.value):
        return "-"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def difference(found: Difference) -> str:
    """Points between two arms, and how the items split."""
    estimate = found.estimate
    if estimate.num == 0:
        return "-"
    low, value, high = (100 * part for part in (estimate.low, estimate.value, estimate.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}], {found.only_second}:{found.only_first}, p = {found.p_value:.3g}"


def arm_rows(figures: Figures) -> tuple[list[str], Rows]:
    """One column an arm, one row a figure."""
    arms = list(figures.arms)
    rows: Rows = []
    for which in ("plausible", "correct"):
        for depth in figures.arms[arms[0]].fixed[which]:
            rows.append([f"{which} @ {depth}, %", *(percent(figures.arms[a].fixed[which][depth]) for a in arms)])
    rows.append(["chosen patch correct, %", *(percent(figures.arms[a].chosen) for a in arms)])
    rows.append(["chosen patch is the original text, %", *(percent(figures.arms[a].exact) for a in arms)])
    rows.append(["correct of the patches chosen, %", *(percent(figures.arms[a].precision) for a in arms)])
    rows.append(["median candidates to first correct", *(number(figures.arms[a].candidates, 0) for a in arms)])
    rows.append(["median seconds to first correct", *(number(figures.arms[a].seconds) for a in arms)])
    rows.append(["median candidates to first plausible", *(number(figures.arms[a].candidates_any, 0) for a in arms)])
    rows.append(["candidates cut off by the seconds", *(str(figures.arms[a].unchecked) for a in arms)])
    return ["", *arms], rows


def difference_rows(figures: Figures) -> tuple[list[str], Rows]:
    """Second arm minus first: points of plausible and of correct at each depth."""
    rows = [
        [f"{second} - {first}", f"{which} @ {depth}", difference(found)]
        for (first, second, which, depth), found in figures.differences.items()
    ]
    return ["arms", "figure", "points and interval, only second : only first"], rows


def only_rows(figures: Figures) -> tuple[list[str], Rows]:
    """What one arm repaired and another did not, by name."""
    rows = [[f"{one} and not {other}", ", ".join(ids) or "-"] for (one, other), ids in figures.only.items()]
    return ["arms", "bugs"], rows


def split_rows(splits: Sequence[Split], arms: Sequence[str]) -> tuple[list[str], Rows]:
    """Correct within all candidates, by pattern or by injector."""
    rows = [[split.name, str(split.num), *(percent(split.correct[arm]) for arm in arms)] for split in splits]
    return ["", "items", *arms], rows


def sections(figures: Figures) -> list[tuple[str, list[str], Rows]]:
    """(title, header, rows) of everything that is shown."""
    arms = list(figures.arms)
    found = [("Fixed", *arm_rows(figures))]
    if figures.differences:
        found.append(("Arms over the same items", *difference_rows(figures)))
        found.append((f"Correct @ {figures.deepest} by one of two arms", *only_rows(figures)))
    found.append((f"Correct @ {figures.deepest}, by debug pattern", *split_rows(figures.by_pattern, arms)))
    found.append((f"Correct @ {figures.deepest}, by how the bug came about", *split_rows(figures.by_kind, arms)))
    found.append((f"Correct @ {figures.deepest}, by reach", *split_rows(figures.by_reach, arms)))
    return found


def counts(figures: Figures) -> str:
    """One line: items, what was dropped and why."""
    dropped = "; ".join(f"{count} {reason}" for reason, count in figures.dropped.items()) or "none"
    return (
        f"{figures.num} items measured, {figures.num_dropped} dropped ({dropped}), {figures.num_errors} ended by an "
        f"error of ours, {figures.not_judged} plausible patches not judged"
    )


def show(figures: Figures, console: Console, title: str) -> None:
    """Print the tables."""
    console.print(f"{title}: {counts(figures)}")
    if figures.num == 0:
        return
    for name, header, rows in sections(figures):
        table = Table(title=name, title_justify="left")
        for at, column in enumerate(header):
            table.add_column(column, justify="left" if at == 0 else "right")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)


def markdown(figures: Figures, title: str, facts: dict[str, Any]) -> str:
    """A card: what was measured, on what, and the tables."""
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- {counts(figures)}", ""]
    for name, header, rows in sections(figures) if figures.num else []:
        lines += [f"## {name}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines.append("")
    lines.append(f"Intervals: 95 %. {COMPARED}")
    return "\n".join(lines) + "\n"
