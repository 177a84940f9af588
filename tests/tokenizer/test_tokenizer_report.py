"""Reports: figures that can be counted by hand."""

from __future__ import annotations

import pytest

from riallm.core.errors import UsageError
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.report import report
from riallm.tokenizer.special import TokenClass


def test_figures_of_a_small_text(tokenizer: HybridTokenizer) -> None:
    found = report(tokenizer, ["self.self\n", "", "é\nself"])
    # self . self \n | two bytes of é, \n self
    assert (found.texts, found.bytes, found.lines, found.tokens, found.unknown) == (3, 17, 3, 8, 0)
    assert found.bytes_per_token == 17 / 8
    assert found.tokens_per_line == 8 / 3
    assert dict(found.shares)[TokenClass.IDENTIFIER] == 3 / 8
    assert found.single_bytes == 5 / 8
    assert (report(tokenizer, ["()"]).tokens, report(tokenizer, ["()"]).single_bytes) == (1, 0)


def test_figures_of_code(tokenizer: HybridTokenizer, texts: list[str]) -> None:
    found = report(tokenizer, texts)
    assert found.unknown == 0
    assert found.bytes == sum(len(text.encode()) for text in texts)
    assert sum(share for _, share in found.shares) == pytest.approx(1)
    assert [kind for kind, _ in found.shares] == list(TokenClass)
    assert 2.5 < found.bytes_per_token < 5


def test_no_text_is_refused(tokenizer: HybridTokenizer) -> None:
    with pytest.raises(UsageError, match="no text to report on"):
        report(tokenizer, ["", ""])
