"""Encoding and decoding: everything comes back, the library and a plain encoder agree, batches and singles agree."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split

from riallm.core.errors import UsageError
from riallm.tokenizer import hybrid
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.vocabulary import spell

SNIPPETS = st.text(alphabet="abdefilnorstu_  \n\t.,:()[]'\"=+-*#0123é€", max_size=80)


class PlainEncoder:
    """Byte pair encoding as it is told in one paragraph: a piece that is a token is that token; otherwise the
    earliest merge that fits anywhere is made at its leftmost place, until none fits."""

    def __init__(self, tokenizer: HybridTokenizer) -> None:
        vocabulary = tokenizer.vocabulary
        tokens = spell(vocabulary)
        self.ids = {token: index for index, token in enumerate(tokens)}
        self.ranks = {(tokens[left], tokens[right]): rank for rank, (left, right) in enumerate(vocabulary.merges)}
        self.pattern = re.compile(vocabulary.pattern)

    def encode(self, data: bytes) -> list[int]:
        return [index for piece in self.pattern.findall(data.decode("latin-1")) for index in self.piece(piece)]

    def piece(self, piece: str) -> list[int]:
        parts = [piece] if piece in self.ids else list(piece)
        while True:
            ranked = [(self.ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in self.ranks]
            if not ranked:
                return [self.ids[part] for part in parts]
            _, at = min(ranked)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.fixture(scope="module")
def plain(tokenizer: HybridTokenizer) -> PlainEncoder:
    return PlainEncoder(tokenizer)


@given(data=st.binary(max_size=200))
def test_any_bytes_come_back(tokenizer: HybridTokenizer, data: bytes) -> None:
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@example(text="lone \ud800 and \udfff")
@given(text=st.text(st.characters(exclude_categories=()), max_size=100))
def test_any_text_comes_back_lone_surrogates_included(tokenizer: HybridTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_whole_files_come_back(tokenizer: HybridTokenizer, texts: list[str]) -> None:
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


@settings(deadline=None)
@given(start=st.integers(0, 80_000), length=st.integers(0, 400), noise=SNIPPETS)
def test_the_plain_encoder_agrees(
    tokenizer: HybridTokenizer, plain: PlainEncoder, texts: list[str], start: int, length: int, noise: str
) -> None:
    data = (noise + texts[0][start : start + length] + noise).encode()
    assert tokenizer.encode_bytes(data) == plain.encode(data)


def test_the_library_alone_agrees_over_whole_texts(tokenizer: HybridTokenizer, texts: list[str]) -> None:
    """Its own cutting by the same pattern: so another runtime can serve the vocabulary."""
    tokens = spell(tokenizer.vocabulary)
    merges = [(tokens[left], tokens[right]) for left, right in tokenizer.vocabulary.merges]
    whole = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, merges, ignore_merges=True))
    whole.pre_tokenizer = Split(Regex(tokenizer.vocabulary.pattern), "isolated")
    odd = bytes(range(256)).decode("latin-1")
    for text in (*texts, "  x\r\n\t\ry  # é €  \n ", odd, odd[::-1]):
        expected = whole.encode(text.encode().decode("latin-1"), add_special_tokens=False).ids
        assert tokenizer.encode(text) == expected


def test_a_frequent_identifier_and_an_indentation_are_one_token(tokenizer: HybridTokenizer) -> None:
    ids = tokenizer.encode("\n        self.")
    assert [tokenizer.decode([index]) for index in ids] == ["\n        ", "self", "."]


def test_a_batch_is_its_texts_one_by_one(
    tokenizer: HybridTokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hybrid, "_GROUP_CHARS", 50_000)
    fresh = HybridTokenizer(tokenizer.vocabulary)
    batch = [*texts, "", "x"]
    assert fresh.encode_batch(iter(batch)) == [tokenizer.encode(text) for text in batch]
    assert fresh.encode_batch([]) == []


def test_what_is_remembered_has_a_limit(tokenizer: HybridTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid, "_MAX_KNOWN", 10)
    fresh = HybridTokenizer(tokenizer.vocabulary)
    for index in range(200):
        text = f"name{index} = {index}"
        assert fresh.decode(fresh.encode(text)) == text
        assert len(fresh._known) <= 10 + 4


def test_byte_lengths_add_up_to_the_text(tokenizer: HybridTokenizer, texts: list[str]) -> None:
    lengths = tokenizer.byte_lengths()
    ids = tokenizer.encode(texts[0] + "é€😀")
    assert len(lengths) == tokenizer.vocab_size
    assert sum(lengths[index] for index in ids) == len((texts[0] + "é€😀").encode())
    assert lengths[tokenizer.special("<|end_of_text|>")] == 0


def test_invalid_utf8_is_shown_as_such(tokenizer: HybridTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode_bytes(b"a\xffb\xe2\x82")) == "a\ufffdb\ufffd"


@pytest.mark.parametrize("wrong", [-1, 2_048])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer: HybridTokenizer, wrong: int) -> None:
    with pytest.raises(UsageError, match=f"token {wrong} is not in the vocabulary, which has ids 0 to 2047"):
        tokenizer.decode([5, wrong])
