"""Where text is cut: indentation, numbers, names, operators; and what class a piece has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riallm.tokenizer.pattern import BASE_SYNTAX, code_only, kind_of, pieces
from riallm.tokenizer.special import TokenClass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if x:\n        return y", ["if", " x", ":", "\n        ", "return", " y"]),
        ("a\n\n\n    def", ["a", "\n\n\n    ", "def"]),
        ("a\r\n\tb", ["a", "\r\n\t", "b"]),
        ("    x", ["    ", "x"]),
        (" x", [" x"]),
        ("x  # a", ["x", " ", " #", " a"]),
        ("x   \n", ["x", "   ", "\n"]),
        ("n = 12345", ["n", " =", " 12", "34", "5"]),
        ("3.14", ["3", ".", "14"]),
        ("utf8_name", ["utf8_name"]),
        ("a **= b//c", ["a", " **=", " b", "//", "c"]),
        ("f(x)):", ["f", "(", "x", ")):"]),
        ("a\rb", ["a", "\r", "b"]),
        ("a\x80\xff\xc2b", ["a\x80\xff\xc2b"]),
        ("na\xc3\xafve\x0c", ["na\xc3\xafve", "\x0c"]),
    ],
)
def test_text_is_cut_where_code_is(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@given(st.binary().map(lambda data: data.decode("latin-1")))
def test_no_byte_is_lost_between_pieces(text: str) -> None:
    assert "".join(pieces(text)) == text


@given(st.text(alphabet=" \t\r\na0.", max_size=40))
def test_blanks_of_every_kind_are_kept(text: str) -> None:
    assert "".join(pieces(text)) == text


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        ("self", TokenClass.IDENTIFIER),
        (" _x1", TokenClass.IDENTIFIER),
        (" return", TokenClass.SYNTAX),
        ("):", TokenClass.SYNTAX),
        ("\n    ", TokenClass.SYNTAX),
        (" 12", TokenClass.SUBWORD),
    ],
)
def test_a_piece_has_its_class(piece: str, kind: TokenClass) -> None:
    assert kind_of(piece) is kind


def test_base_syntax_are_whole_pieces_named_once() -> None:
    assert all(pieces(text) == [text] and kind_of(text) is TokenClass.SYNTAX for text in BASE_SYNTAX)
    assert len(set(BASE_SYNTAX)) == len(BASE_SYNTAX)
    assert {"\n    ", "\n  ", "\n\t\t", "->", " lambda", "**="} <= set(BASE_SYNTAX)


def test_words_in_strings_and_comments_are_not_code() -> None:
    source = 'x = \'word\' # word\ny = """word\n\'word\'""" + name\nz = f"it\'s" + name'
    assert "word" not in code_only(source)
    assert code_only(source).count("name") == 2
