"""Holes: what is taken out can be put back, whatever the text, and only the right tokens are asked for."""

from __future__ import annotations

import ast
import random
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riallm.core.errors import UsageError
from riallm.data.infilling import (
    Span,
    any_span,
    corrupted_spans,
    drawn_span,
    fill_holes,
    fill_in_the_middle,
    line_spans,
    nodes,
    statements,
)
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.training import train

CODE = Path(textwrap.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer() -> HybridTokenizer:
    return HybridTokenizer(train([CODE], size=700))


def pieces(tokenizer: HybridTokenizer, ids: list[int]) -> dict[str, str]:
    """Text behind each special token, by the token's name."""
    found: dict[str, str] = {}
    name, part = "", list[int]()
    for index in [*ids, tokenizer.special("<|pad|>")]:
        if tokenizer.is_ordinary(index):
            part.append(index)
            continue
        found[name] = found.get(name, "") + tokenizer.decode(part)
        name, part = tokenizer.decode([index]), []
    return found


@settings(deadline=None, max_examples=60)
@given(text=st.text(min_size=1, max_size=80), seed=st.integers(0, 1000))
def test_the_middle_can_be_put_back(tokenizer: HybridTokenizer, text: str, seed: int) -> None:
    span = any_span(text, random.Random(seed))
    assert span.start < span.end
    for order in ("psm", "spm"):
        asked = fill_in_the_middle(tokenizer, text, span, order=order)  # type: ignore[arg-type]
        part = pieces(tokenizer, asked.ids)
        assert part["<|fim_prefix|>"] + part["<|fim_middle|>"] + part["<|fim_suffix|>"] == text
        assert all(asked.weights) and asked.ids[-1] == tokenizer.special("<|end_of_text|>")
        places = [asked.ids.index(tokenizer.special(f"<|fim_{name}|>")) for name in ("prefix", "suffix", "middle")]
        assert places == sorted(places) if order == "psm" else places[1] < places[0] < places[2]


@settings(deadline=None, max_examples=60)
@given(text=st.text(min_size=4, max_size=300), seed=st.integers(0, 1000))
def test_many_holes_can_be_filled_again(tokenizer: HybridTokenizer, text: str, seed: int) -> None:
    spans = corrupted_spans(text, random.Random(seed))
    asked = fill_holes(tokenizer, text, spans, head=[5])
    first = asked.weights.index(1.0)
    answers = pieces(tokenizer, asked.ids[first:])
    given = asked.ids[1:first]
    for number, span in enumerate(spans):
        assert answers[f"<|hole_{number}|>"] == text[span.start : span.end]
    parts, rest = [], given
    for number in range(len(spans)):
        at = rest.index(tokenizer.special(f"<|hole_{number}|>"))
        parts += [tokenizer.decode(rest[:at]), answers[f"<|hole_{number}|>"]]
        rest = rest[at + 1 :]
    assert "".join(parts) + tokenizer.decode(rest) == text
    assert all(asked.weights[first:]) and not any(asked.weights[:first])


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("x = größe + g(1)", {"größe + g(1)", "g(1)", "g", "1", "x = größe + g(1)", "größe"}),
        ("elif größe > g(x):", {"größe > g(x)", "g(x)", "x"}),
        ("def f(a=g(1)):", {"g(1)"}),
        ("return x", {"x", "return x"}),
    ],
)
def test_nodes_are_what_the_parser_sees_in_a_line(line: str, some: set[str]) -> None:
    assert some <= {line[span.start : span.end] for span in nodes(line)}


def test_what_is_no_whole_line_of_code_has_no_nodes() -> None:
    assert [nodes(line) for line in ("def broken(:", "foo(1,", "'a docstring'", "else:")] == [[], [], [], []]


def test_lines_are_their_code() -> None:
    text = "if x:\n\n    # why\n    y = 1  # how\n"
    assert [text[span.start : span.end] for span in line_spans(text)] == ["if x:", "y = 1  # how"]


def test_statements_that_are_taken_out_do_not_overlap() -> None:
    drawn = [statements(CODE, random.Random(seed)) for seed in range(20)]
    assert sum(map(bool, drawn)) > 15  # the rest fell into docstrings
    for spans in drawn:
        assert len(spans) <= 4
        assert all(one.end < other.start for one, other in pairwise(spans))
        assert all(ast.parse(CODE[span.start : span.end]) for span in spans if "return" not in CODE[span.start :][:6])


def test_drawn_spans_are_of_all_kinds() -> None:
    lines = line_spans(CODE)
    known = {
        Span(line.start + s.start, line.start + s.end) for line in lines for s in nodes(CODE[line.start : line.end])
    }
    drawn = [drawn_span(CODE, random.Random(seed)) for seed in range(60)]
    assert 15 <= sum(span in known | set(lines) for span in drawn) <= 45
    assert sum(span in known - set(lines) for span in drawn) >= 5


def test_what_cannot_be_asked_is_refused(tokenizer: HybridTokenizer) -> None:
    with pytest.raises(UsageError, match="0 holes"):
        fill_holes(tokenizer, "abc", [])
    with pytest.raises(UsageError, match="must not overlap"):
        fill_holes(tokenizer, "abcdef", [Span(0, 3), Span(2, 4)])
    with pytest.raises(UsageError, match="no span"):
        any_span("", random.Random(0))
