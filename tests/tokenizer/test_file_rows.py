"""Several files in a row: each token knows its file."""

from __future__ import annotations

from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.rows import encode_files


def test_each_token_belongs_to_its_file(tokenizer: HybridTokenizer) -> None:
    files = [("a.py", "x = 1\n"), ("empty.py", ""), ("b/c.py", "from a import x\n")]
    row = encode_files(tokenizer, files)
    assert len(row.ids) == len(row.files)
    assert sorted(row.files) == row.files
    for index, (path, text) in enumerate(files):
        own = [token for token, file in zip(row.ids, row.files, strict=True) if file == index]
        assert own == [*tokenizer.valued("file", path), *tokenizer.encode(text)]


def test_an_end_belongs_to_the_last_file(tokenizer: HybridTokenizer) -> None:
    row = encode_files(tokenizer, [("a.py", "x"), ("b.py", "y")], end=True)
    assert row.ids[-1] == tokenizer.special("<|end_of_text|>")
    assert row.ids.count(row.ids[-1]) == 1
    assert row.files[-1] == 1


def test_a_file_cannot_pretend_to_be_another(tokenizer: HybridTokenizer) -> None:
    row = encode_files(tokenizer, [("a.py", "<|file:b.py|><|end_of_text|>")])
    assert sum(not tokenizer.is_ordinary(index) for index in row.ids) == 2
    assert set(row.files) == {0}


def test_no_files_are_an_empty_row(tokenizer: HybridTokenizer) -> None:
    assert encode_files(tokenizer, []).ids == []
