"""Seeing bugs: ranks by what a client says, and the edits that it chooses among are those of the operators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from riallm.agent.local import LocalClient
from riallm.agent.passage import Passage, olds
from riallm.data.repair_rows import Repair
from riallm.eval.tasks.repair_choice import choose, edits, main, rank, summary

FUNCTION = """    def area(self, width, height):
        if width < 0:
            return 0
        size = width + height
        return size
"""
REPAIR = Repair(
    path="a.py",
    function=FUNCTION,
    old="        size = width + height",
    new="        size = width * height",
    injector="operator:x",
)


class Knowing(LocalClient):
    """Knows the wrong line and likes the shortest text; thinks that functions with a plus are wrong."""

    def __init__(self) -> None:
        pass

    def weigh(self, shown: Passage) -> tuple[float, dict[str, float]]:
        return (-0.1 if "+" in shown.text else -2.0), {line: float("size =" in line) for line in olds(shown)}

    def become(self, shown: Passage, old: str, news: Sequence[str]) -> dict[str, float]:
        return {new: -float(len(new)) for new in news}


def test_the_edits_are_whole_lines_of_the_function() -> None:
    found = edits(REPAIR)
    assert REPAIR.new in found and len(found) > 10 and len(set(found)) == len(found)
    assert all(not new or new.startswith("        ") for new in found)


def test_ranks_are_by_what_the_client_says() -> None:
    made = choose(Knowing(), REPAIR)
    assert made is not None and made.seen and (made.line, made.lines) == (1, 5)
    news = edits(REPAIR)
    assert made.texts == len(news) and made.prior == 1 + news.index(REPAIR.new)
    assert made.text == rank(-len(REPAIR.new), [-len(new) for new in news])
    told = summary([made], seed=0)
    assert told["line_first"]["value"] == 1.0 and told["line_first_drawn"] == pytest.approx(0.2)
    assert told["line_reciprocal_rank_drawn"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5)


def test_equal_values_share_their_ranks() -> None:
    assert [rank(1.0, [1.0, 2.0]), rank(1.0, [1.0] * 3), rank(3.0, [1.0, 3.0])] == [2, 2, 1]


def test_a_folder_without_repairs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--corpus", str(tmp_path)]) == 2
    assert "repair_choice: " in capsys.readouterr().err
