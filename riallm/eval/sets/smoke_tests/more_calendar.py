"""More behaviour of calendar."""

import importlib

calendar = importlib.import_module("library.calendar")


def test_days_with_their_months() -> None:
    days = list(calendar.Calendar().itermonthdays3(2023, 1))
    assert days[0] == (2022, 12, 26)
    assert days[-1] == (2023, 2, 5)
    assert len(days) == 42
    assert list(calendar.Calendar().itermonthdays(2023, 1))[:7] == [0, 0, 0, 0, 0, 0, 1]
    assert next(calendar.Calendar().itermonthdays2(2023, 1)) == (0, 0)


def test_years() -> None:
    months = calendar.Calendar().yeardayscalendar(2023, 4)
    assert [len(row) for row in months] == [4, 4, 4]
    assert months[0][0][0] == [0, 0, 0, 0, 0, 0, 1]


def test_seconds() -> None:
    assert calendar.timegm((1970, 1, 2, 0, 0, 1)) == 86401
    assert calendar.timegm((2000, 2, 29, 12, 30, 15)) == 951827415


def test_widths() -> None:
    text = calendar.TextCalendar()
    assert text.formatweekheader(9).split()[::6] == ["Monday", "Sunday"]
    assert text.formatday(0, 0, 3) == "   "
    assert text.formatday(5, 0, 3) == "  5"
    assert text.formatmonthname(2023, 5, 20, withyear=False).strip() == "May"
    assert len(text.formatyear(2023).splitlines()) > 30


def test_html() -> None:
    page = calendar.HTMLCalendar().formatmonth(2021, 2)
    assert page.count("<tr>") == 6
    assert '<td class="mon">1</td>' in page
    assert "February 2021" in page
