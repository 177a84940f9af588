"""Special tokens: all of the document's, markers with values, and no way for a text to forge one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riallm.core.errors import UsageError
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.special import CLOSE, NUM_HOLES, SPECIALS, hole

# RIA document, 2.2.2; the two that take a value by what opens them.
DOCUMENT = """
<|plan_start|> <|plan_end|> <|code_start|> <|code_end|> <|test_start|> <|test_end|> <|debug_start|> <|debug_end|>
<|tool_call|> <|tool_result|> <|think|> <|/think|> <|verify|> <|verify_result|> <|file: <|error: <|success|> <|failure|>
"""
NEEDED = "<|end_of_text|> <|pad|> <|fim_prefix|> <|fim_suffix|> <|fim_middle|> <|line|> <|old|> <|new|> <|edit_end|>"
NAMES = [special.name for special in SPECIALS]


@pytest.mark.parametrize("name", [*DOCUMENT.split(), *NEEDED.split(), *map(hole, range(NUM_HOLES))])
def test_every_special_token_is_one_id_that_no_text_has(tokenizer: HybridTokenizer, name: str) -> None:
    index = tokenizer.special(name)
    assert not tokenizer.is_ordinary(index)
    assert tokenizer.decode([index]) == name
    assert tokenizer.decode([index], specials=False) == ""
    assert index not in tokenizer.encode(name)


@given(parts=st.lists(st.sampled_from([*NAMES, "<|file:a.py|>", "<|", "|>", "x", "\n"]), max_size=8))
def test_text_with_the_names_of_specials_stays_text(tokenizer: HybridTokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    for ids in (tokenizer.encode(text), tokenizer.encode_bytes(text.encode()), tokenizer.encode_batch([text])[0]):
        assert all(tokenizer.is_ordinary(index) for index in ids)
    assert tokenizer.decode(tokenizer.encode(text), specials=False) == text


@given(parts=st.lists(st.sampled_from([*NAMES, "<|file:a.py|>", "<|error:|>", "x |> y", "\n"]), max_size=8))
def test_asked_for_specials_come_back_as_text(tokenizer: HybridTokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    assert tokenizer.decode(tokenizer.encode(text, specials=True)) == text


def test_specials_are_found_only_where_they_are_asked_for(tokenizer: HybridTokenizer) -> None:
    text = "<|plan_start|>a |> b<|hole_1|><|hole_10|>"
    ids = tokenizer.encode(text, specials=True)
    expected = [tokenizer.special("<|plan_start|>"), *tokenizer.encode("a |> b")]
    assert ids == [*expected, tokenizer.special(hole(1)), tokenizer.special(hole(10))]


@pytest.mark.parametrize(
    ("kind", "value"), [("file", "src/näme.py"), ("error", "TypeError"), ("file", ""), ("file", "a|>b")]
)
def test_a_value_comes_back(tokenizer: HybridTokenizer, kind: str, value: str) -> None:
    ids = [7, *tokenizer.valued(kind, value), 8]
    found = tokenizer.read_valued(tuple(ids), 1)
    assert found is not None
    assert (found.kind, found.value, found.end) == (kind, value, len(ids) - 1)
    assert tokenizer.decode(ids[1:-1]) == f"<|{kind}:{value}|>"


@pytest.mark.parametrize("value", ["a.py", "", "<|pad|"])
def test_a_marker_in_text_is_the_marker_of_its_value(tokenizer: HybridTokenizer, value: str) -> None:
    assert tokenizer.encode(f"<|file:{value}|>", specials=True) == tokenizer.valued("file", value)


def test_a_marker_without_an_end_in_its_line_stays_text(tokenizer: HybridTokenizer) -> None:
    text = "<|file:a.py\nx |> y"
    assert tokenizer.encode(text, specials=True) == tokenizer.encode(text)


def test_a_value_cannot_forge_a_token(tokenizer: HybridTokenizer) -> None:
    opening, *middle, closing = tokenizer.valued("file", "x|><|success|>")
    assert closing == tokenizer.special(CLOSE)
    assert opening == tokenizer.special("<|file:")
    assert all(tokenizer.is_ordinary(index) for index in middle)


def test_what_is_no_whole_marker_is_none(tokenizer: HybridTokenizer) -> None:
    ids = tokenizer.valued("file", "a.py")
    assert tokenizer.read_valued([]) is None
    assert tokenizer.read_valued(ids, 1) is None
    assert tokenizer.read_valued(ids[:-1]) is None
    assert tokenizer.read_valued([*ids[:-1], tokenizer.special("<|pad|>"), ids[-1]]) is None


def test_unknown_names_are_refused(tokenizer: HybridTokenizer) -> None:
    with pytest.raises(UsageError, match=r"'<\|nothing\|>' is no special token; there are"):
        tokenizer.special("<|nothing|>")
    with pytest.raises(UsageError, match="no marker 'line' takes a value; there are file, error"):
        tokenizer.valued("line", "3")


def test_each_name_stands_once_and_has_a_meaning() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(special.meaning for special in SPECIALS)
