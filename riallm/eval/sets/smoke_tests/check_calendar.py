"""Behaviour of calendar."""

import importlib

import pytest

calendar = importlib.import_module("library.calendar")


def test_leap_years() -> None:
    assert [year for year in (1900, 1996, 2000, 2001, 2004) if calendar.isleap(year)] == [1996, 2000, 2004]
    assert calendar.leapdays(1900, 2001) == 25
    assert calendar.leapdays(2000, 2000) == 0


def test_month_range() -> None:
    assert tuple(map(int, calendar.monthrange(2024, 2))) == (3, 29)
    assert tuple(map(int, calendar.monthrange(2023, 2))) == (2, 28)
    assert tuple(map(int, calendar.monthrange(2023, 12))) == (4, 31)
    with pytest.raises(ValueError, match="13"):
        calendar.monthrange(2023, 13)


def test_weeks_of_a_month() -> None:
    weeks = calendar.Calendar().monthdayscalendar(2021, 2)
    assert weeks == [list(range(first, first + 7)) for first in (1, 8, 15, 22)]
    assert calendar.Calendar(6).monthdayscalendar(2021, 2)[0] == [0, 1, 2, 3, 4, 5, 6]
    assert list(calendar.Calendar(2).iterweekdays()) == [2, 3, 4, 5, 6, 0, 1]


def test_weekday() -> None:
    assert calendar.weekday(2000, 2, 29) == 1
    assert calendar.weekday(1970, 1, 1) == 3


def test_text_of_a_month() -> None:
    lines = calendar.TextCalendar().formatmonth(2021, 2).splitlines()
    assert lines[0].strip() == "February 2021"
    assert lines[1] == "Mo Tu We Th Fr Sa Su"
    assert lines[2] == " 1  2  3  4  5  6  7"
    assert len(lines) == 6
