"""What a model is shown holds the line, and its answers become the edits that they say."""

from __future__ import annotations

import pytest

from riallm.agent.passage import MOST_OLD_LINES, Change, Passage, change, edit_of, olds, passage, spans
from riallm.code.edit import Edit
from riallm.code.source import Source

TEXT = '''import math


def area(radius):
    """Of a circle."""
    square = radius * radius
    total = square * 3
    total = total + 0
    total = total + 0
    return total


@staticmethod
def other():
    return math.pi
'''
LONG = "def long(x):\n" + "".join(f"    x = x + {number}\n" for number in range(150)) + "    return x\n"


def source(text: str = TEXT) -> Source:
    return Source.parse("circle.py", text.encode())


def edit(text: str, original: str, new: str) -> Edit:
    start = text.index(original)
    line = text[:start].count("\n") + 1
    return Edit(path="circle.py", start=start, original=original, text=new, line=line, operator="test")


def test_a_short_function_is_shown_whole_with_its_decorators() -> None:
    assert passage(source(), 7).text == TEXT[TEXT.index("def area") : TEXT.index("\n\n@")]
    assert passage(source(), 15).text.startswith("@staticmethod\ndef other")
    assert passage(source(), 1).text == TEXT


@pytest.mark.parametrize("line", [1, 2, 40, 77, 150, 152])
def test_of_a_long_function_lines_around_are_shown(line: int) -> None:
    shown = passage(source(LONG), line)
    wanted = LONG.splitlines(keepends=True)[line - 1]
    assert wanted in shown.text and 10 < shown.text.count("\n") <= 61
    assert LONG[shown.start : shown.end] == shown.text


def test_where_there_is_little_room_the_line_is_still_shown() -> None:
    for line in range(1, 152):
        shown = passage(source(LONG), line, lambda text: len(text) < 200)
        assert LONG.splitlines()[line - 1] + "\n" in shown.text and len(shown.text) < 200
    assert len({passage(source(LONG), line).start for line in range(1, 152)}) < 20


def test_an_edit_and_its_change_are_the_same() -> None:
    shown = passage(source(), 7)
    made = change(shown, edit(TEXT, "square * 3", "square * math.pi"))
    assert made == Change(old="    total = square * 3", new="    total = square * math.pi")
    back = edit_of(source(), shown, made, 0.5)
    assert back is not None and (back.original, back.text, back.line, back.prior) == ("3", "math.pi", 7, 0.5)
    assert back.apply(TEXT) == TEXT.replace("square * 3", "square * math.pi")


def test_lines_that_stand_twice_are_told_apart() -> None:
    shown = passage(source(), 8)
    made = change(shown, edit(TEXT, "total + 0\n    return", "total + 1\n    return"))
    assert made is not None and made.old.count("\n") >= 1 and shown.text.count(made.old) == 1
    first = change(shown, edit(TEXT, "total + 0", "total + 1"))
    assert first == Change(
        old="    total = square * 3\n    total = total + 0", new="    total = square * 3\n    total = total + 1"
    )


def test_what_is_no_edit_of_the_passage_is_none() -> None:
    shown = passage(source(), 7)
    assert change(shown, edit(TEXT, "math.pi", "3")) is None
    for old, new in (("    total = total + 0", "    x"), ("    nothing", "x"), ("", "x"), ("    return total",) * 2):
        assert edit_of(source(), shown, Change(old=old, new=new), 1.0) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    return total", ""),
        ("    return total", "    if total:\n        return total"),
        ("    square = radius * radius", "    square = radius ** radius"),
        ("    square = radius * radius\n    total = square * 3", "    total = square * 3"),
    ],
)
def test_answers_of_any_length_are_made_as_they_say(old: str, new: str) -> None:
    shown = passage(source(), 7)
    made = edit_of(source(), shown, Change(old=old, new=new), 1.0)
    assert made is not None
    expected = TEXT.replace(old, new) if new else TEXT.replace(old + "\n", "")
    assert made.apply(TEXT) == expected


def test_every_line_of_code_may_be_the_wrong_one() -> None:
    shown = passage(source(), 7)
    found = olds(shown)
    assert len(found) == 7 and all(shown.text.count(old) == 1 for old in found)
    assert found[0] == "def area(radius):" and found[2] == "    square = radius * radius"
    assert found[4] == "    total = square * 3\n    total = total + 0"


def test_several_lines_may_be_wrong_together() -> None:
    shown = passage(source(), 7)
    square, total = "    square = radius * radius", "    total = square * 3"
    found = spans(shown, square)
    assert found[:2] == [square, f"{square}\n{total}"] and found[-1] == shown.text[shown.text.index(square) :].rstrip()
    assert len(found) == 5 and spans(shown, "    return total") == ["    return total"]
    twice = olds(shown)[4]  # a line that stands there twice, with one before it
    assert spans(shown, twice)[:2] == [twice, f"{twice}\n    total = total + 0"]

    long = passage(source(LONG), 70)
    start = olds(long)[3]
    assert len(spans(long, start)) == MOST_OLD_LINES
    gap = Passage(path="a.py", text="a = 1\n\nb = 2\n", start=0, end=14)
    assert spans(gap, "a = 1") == ["a = 1", "a = 1\n\nb = 2"]


def test_a_passage_may_be_a_key() -> None:
    assert len({passage(source(), 6), passage(source(), 7), passage(source(), 15)}) == 2
    assert isinstance(passage(source(), 6), Passage)
