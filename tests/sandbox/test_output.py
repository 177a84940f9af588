"""Output that is safe to show: whatever the bytes, however they are cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riallm.sandbox.output import Capture, Live, clean

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
MIXED = st.lists(
    st.sampled_from(
        ["\x1b[31m", "\x1b]52;c;eA==\x07", "\x1b", "[", "]0;t\x1b\\", "\x9b2J", "\x90q", "\x9c", "\r", "\n"]
    )
    | st.text(max_size=5)
).map("".join)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain ü 漢字 \t tab\n", "plain ü 漢字 \t tab\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("a\x9b31mb\x9d0;t\x9cc", "abc"),
        ("\x1bPq device \x1b\\after", "after"),
        ("\x1bcreset", "reset"),
        ("\x1b(0line", "line"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("safe\x08\x08\x08evil", "safe\ufffd\ufffd\ufffdevil"),
        ("if a \u202e\u2066b", "if a \ufffd\ufffdb"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
        ("tags \U000e0041", "tags \ufffd"),
        ("unfinished \x1b]52;c;AAAA", "unfinished "),
        ("unfinished string \x1b]0;t\nnext line is shown", "unfinished string \nnext line is shown"),
    ],
)
def test_clean(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@given(MIXED)
def test_nothing_unsafe_is_left(raw: str) -> None:
    assert not UNSAFE.search(clean(raw))
    assert clean(clean(raw)) == clean(raw)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("\n\t")))
def test_ordinary_text_is_as_it_was(text: str) -> None:
    assert clean(text) == text


@given(st.lists(st.binary(max_size=30)), st.integers(2, 60))
@settings(max_examples=200)
def test_capture_keeps_head_and_tail(pieces: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    for piece in pieces:
        capture.add(piece)
    whole, half = b"".join(pieces), limit // 2
    assert capture.total == len(whole)
    assert capture.dropped == max(0, len(whole) - 2 * half)
    if not capture.dropped:
        assert capture.text() == clean(whole.decode("utf-8", "replace"))
    else:
        head, tail = capture.text().split(f"\n[... {capture.dropped} bytes left out ...]\n")
        assert head == clean(whole[:half].decode("utf-8", "replace"))
        assert tail == clean(whole[-half:].decode("utf-8", "replace"))


@given(MIXED, st.lists(st.integers(0, 200), max_size=6))
@example("a\r\x1b[31m\nb", [2, 7])
@example("a\r\nb", [2])
@example("a\x1b]0;t\x1b\\b", [3, 6])
@settings(max_examples=300)
def test_live_shows_the_same_however_it_is_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    shown: list[str] = []
    live = Live(1 << 20, shown.append)
    places = sorted(min(cut, len(data)) for cut in cuts)
    for begin, end in zip([0, *places], [*places, len(data)], strict=True):
        live.add(data[begin:end])
    live.finish()
    assert "".join(shown) == clean(text)


def test_live_shows_at_once_what_is_whole() -> None:
    shown: list[str] = []
    live = Live(1 << 20, shown.append)
    live.add(b"....")
    assert "".join(shown) == "...."
    live.add(b"\x1b[3")
    live.add(b"1mF")
    assert "".join(shown) == "....F"


def test_live_leaves_the_middle_out() -> None:
    shown: list[str] = []
    live = Live(20, shown.append)
    for number in range(100):
        live.add(b"%02d" % number)
    live.finish()
    assert "".join(shown) == "0001020304\n[... 180 bytes left out ...]\n9596979899"


def test_an_endless_sequence_holds_back_no_more_than_a_page() -> None:
    shown: list[str] = []
    live = Live(1 << 20, shown.append)
    live.add(b"\x1b]0;" + b"x" * 10_000)
    live.add(b"\nnext")
    live.finish()
    assert "".join(shown).endswith("\nnext")
