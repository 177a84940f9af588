"""Streaming: never half a character, and in all the text that decoding at once gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riallm.core.errors import UsageError
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.stream import StreamDecoder


def test_a_character_of_several_tokens_comes_at_once(tokenizer: HybridTokenizer) -> None:
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(byte) for byte in "a😀b".encode()] == ["a", "", "", "", "😀", "b"]
    assert decoder.finish() == ""


@given(ids=st.lists(st.one_of(st.integers(0, 255), st.integers(0, 2_047)), max_size=30), specials=st.booleans())
def test_the_parts_are_the_whole(tokenizer: HybridTokenizer, ids: list[int], specials: bool) -> None:
    decoder = StreamDecoder(tokenizer, specials=specials)
    streamed = "".join(decoder.push(index) for index in ids) + decoder.finish()
    assert streamed == tokenizer.decode_bytes(ids, specials=specials).decode("utf-8", "replace")


@given(text=st.text(max_size=30))
def test_every_text_streams_without_a_replacement_of_its_own(tokenizer: HybridTokenizer, text: str) -> None:
    decoder = StreamDecoder(tokenizer)
    assert "".join(decoder.push(index) for index in tokenizer.encode(text)) == text
    assert decoder.finish() == ""


def test_an_unfinished_character_is_told_at_the_end_and_the_next_answer_begins_clean(
    tokenizer: HybridTokenizer,
) -> None:
    decoder = StreamDecoder(tokenizer)
    assert decoder.push(0xE2) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.push(ord("a")) == "a"


def test_a_wrong_id_is_refused(tokenizer: HybridTokenizer) -> None:
    with pytest.raises(UsageError, match="not in the vocabulary"):
        StreamDecoder(tokenizer).push(9_999)
