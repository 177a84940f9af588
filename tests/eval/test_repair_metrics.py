"""Figures from results, against counts made by hand."""

import json

import pytest
from rich.console import Console

from riallm.eval import report
from riallm.eval.tasks.repair_metrics import compared, figures


def arm(plausible=0, correct=0, choice="none", exact=False, unchecked=0):
    return {
        "checked": 1000,
        "unchecked": unchecked,
        "first_plausible": plausible,
        "first_correct": correct,
        "plausible": int(plausible > 0),
        "seconds_to_plausible": plausible / 100,
        "seconds_to_correct": correct / 100,
        "rank_seconds": 0.5,
        "choice": choice,
        "choice_exact": exact,
    }


def done(name, b0, b1, pattern="other", injector="unlike:delete"):
    return {
        "id": name,
        "status": "done",
        "set": "s",
        "pattern": pattern,
        "injector": injector,
        "observe_seconds": 1.0,
        "propose_seconds": 0.5,
        "not_judged": 1,
        "within_reach": name == "a",
        "arms": {"B0": b0, "B1": b1},
    }


ROWS = [
    done("a", arm(), arm(1, 1, "correct", True), injector="operator:x"),
    done("b", arm(60, 300, "wrong"), arm(5, 40, "wrong"), pattern="type error"),
    done("c", arm(unchecked=7), arm(1001, 0)),
    done("d", arm(10, 10, "correct"), arm(200, 200, "correct"), injector="operator:y"),
    {"id": "e", "status": "dropped", "reason": "control: no test passes"},
    {"id": "f", "status": "error", "reason": "Traceback"},
]


@pytest.fixture
def found():
    return figures(ROWS, arms=("B0", "B1"), deepest=1000)


def test_fixed_at_each_depth(found):
    plausible, correct = (
        {arm: [round(4 * one.value) for one in found.arms[arm].fixed[which].values()] for arm in ("B0", "B1")}
        for which in ("plausible", "correct")
    )
    assert list(found.arms["B0"].fixed["correct"]) == [1, 10, 50, 200, 1000]
    assert plausible == {"B0": [0, 1, 1, 2, 2], "B1": [1, 2, 2, 3, 3]}
    assert correct == {"B0": [0, 1, 1, 1, 2], "B1": [1, 1, 2, 3, 3]}


def test_the_chosen_patch(found):
    assert [found.arms[arm].chosen.value for arm in ("B0", "B1")] == [0.25, 0.5]
    assert found.arms["B1"].exact.value == 0.25
    assert found.arms["B1"].precision.value == pytest.approx(2 / 3)
    assert found.arms["B1"].precision.num == 3


def test_medians_are_over_the_solved(found):
    assert found.arms["B0"].candidates.value == 155
    assert found.arms["B1"].candidates.value == 40
    assert found.arms["B1"].seconds.value == pytest.approx(1.0 + 0.5 + 0.5 + 0.4)
    assert found.arms["B0"].unchecked == 7


def test_difference_counts_the_items_of_each_side(found):
    gain = found.differences["B0", "B1", "correct", 1000]
    assert (gain.only_first, gain.only_second) == (0, 1)
    assert gain.estimate.value == 0.25
    ten = found.differences["B0", "B1", "correct", 10]
    assert (ten.only_first, ten.only_second) == (1, 1)
    unlike = found.differences["B0", "B1", "correct, unlike", 1000]
    assert unlike.estimate.num == 2 and ("B0", "B1", "correct, real", 1000) not in found.differences
    operator = found.differences["B0", "B1", "correct, operator", 1000]
    assert unlike.estimate.value + operator.estimate.value == 2 * gain.estimate.value


def test_each_arm_is_compared_with_the_one_before_and_with_the_first():
    assert compared(["B2", "B3", "B4"]) == [("B2", "B3"), ("B3", "B4"), ("B2", "B4")]
    assert compared(["B2"]) == [] and compared(["B0", "B1"]) == [("B0", "B1")]


def test_what_was_not_measured_is_told(found):
    assert (found.num, found.num_dropped, found.num_errors, found.not_judged) == (4, 1, 1, 4)
    assert found.dropped == {"control": 1}
    assert "1 dropped (1 control)" in report.counts(found)


def test_splits(found):
    assert {part.name: part.num for part in found.by_pattern} == {"type error": 1, "other": 3}
    kinds = {part.name: (part.num, part.correct["B1"].value) for part in found.by_kind}
    assert kinds["operator"] == (2, 1.0)
    assert kinds["unlike"] == (2, 0.5)
    assert kinds["operator:x"] == (1, 1.0)
    assert [(part.num, part.correct["B0"].value) for part in found.by_reach] == [(3, 2 / 3), (1, 0.0)]


def test_all_forms_of_the_report(found):
    console = Console(record=True, width=120, file=None, quiet=True)
    with console.capture():
        report.show(found, console, "Repair")
    card = report.markdown(found, "Repair on s", {"date": "2026-01-01"})
    assert "| correct @ 1000, % | 50.0 [15.0, 85.0] | 75.0 [30.1, 95.4] |" in card
    assert "| B1 - B0 | correct @ 1000 | +25.0" in card
    told = json.loads(json.dumps(found.as_json()))
    assert told["differences"]["B1-B0 correct@1000"]["only_second"] == 1
    assert told["only"] == {"B0 and not B1": [], "B1 and not B0": ["a"]}
    assert "| B1 and not B0 | a |" in card and "| B0 and not B1 | - |" in card


def test_nothing_measured_is_no_error():
    found = figures([ROWS[4]], arms=("B0", "B1"), deepest=10)
    assert found.num == 0
    assert "0 items measured, 1 dropped" in report.markdown(found, "t", {})
