"""Sizes: the document's composition at its size, everything needed at a small one, refusal below that."""

from __future__ import annotations

import pytest

from riallm.core.errors import UsageError
from riallm.tokenizer.composition import DOCUMENT_SIZE, NUM_BYTES, Composition, composition
from riallm.tokenizer.special import SPECIALS, TokenClass, specials


def test_the_documents_size_has_the_documents_classes() -> None:
    assert DOCUMENT_SIZE == 106_000
    assert composition(106_000) == Composition(subword=98_000, identifier=5_000, syntax=2_000, tool=500, agentic=500)


@pytest.mark.parametrize(
    "size", [NUM_BYTES + len(SPECIALS), 600, 2_048, 8_192, 31_999, 32_000, 50_257, 106_000, 200_000]
)
def test_every_size_adds_up_and_has_room_for_bytes_and_specials(size: int) -> None:
    made = composition(size)
    assert made.size == size
    assert made.subword >= NUM_BYTES
    assert min(made.identifier, made.syntax) >= 0
    assert len({special.name for special in specials(made.tool, made.agentic)}) == made.tool + made.agentic


@pytest.mark.parametrize("size", [600, 4_096, 8_192])
def test_a_small_vocabulary_has_no_reserved_tokens(size: int) -> None:
    made = composition(size)
    assert specials(made.tool, made.agentic) == SPECIALS


def test_the_rest_is_shared_as_in_the_document() -> None:
    made = composition(8_192)
    assert made.identifier / made.syntax == pytest.approx(5 / 2, rel=0.01)
    assert made.subword > 18 * made.identifier


def test_reserved_tokens_fill_their_class() -> None:
    made = specials(500, 500)
    assert [special.kind for special in made] == [TokenClass.TOOL] * 500 + [TokenClass.AGENTIC] * 500
    assert made[499].name == "<|tool_reserved_496|>"


def test_a_size_without_room_is_refused_with_the_smallest_that_has() -> None:
    smallest = NUM_BYTES + len(SPECIALS)
    with pytest.raises(UsageError, match=f"at least {smallest}"):
        composition(smallest - 1)
