"""The file: it comes back the same, and whatever is wrong with it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riallm.core.errors import CheckpointError, UsageError
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.saved import load, save


@pytest.fixture
def path(tokenizer: HybridTokenizer, tmp_path: Path) -> Path:
    save(tokenizer, tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def test_it_comes_back_the_same(tokenizer: HybridTokenizer, texts: list[str], path: Path) -> None:
    loaded = load(path)
    assert loaded.vocabulary == tokenizer.vocabulary
    assert loaded.sha256 == tokenizer.sha256
    assert loaded.encode(texts[3]) == tokenizer.encode(texts[3])


def test_the_file_is_small_and_plain(tokenizer: HybridTokenizer, path: Path) -> None:
    data = path.read_bytes()
    assert data.isascii()
    assert len(data) < 12 * tokenizer.vocab_size
    assert json.loads(data)["version"] == 1


def test_a_truncated_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is no complete JSON"):
        load(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1, 2]", b'{"model": {"type": "BPE"}}'])
def test_a_foreign_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"no complete JSON|no tokenizer of ours"):
        load(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tokenizer at"):
        load(tmp_path / "none.json")


def swap_merges(document: dict[str, Any]) -> None:
    merges = document["merges"]
    merges[-4:] = merges[-2:] + merges[-4:-2]


CHANGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda document: document.update(version=2), "has version 2 of the format, this program reads 1"),
    (lambda document: document.pop("version"), "has version None"),
    (lambda document: document.pop("merges"), "is damaged .KeyError: 'merges'"),
    (lambda document: document["merges"].pop(), "merges are no list of pairs"),
    (lambda document: document["merges"].__setitem__(0, "0"), "merges are no list of pairs"),
    (lambda document: document["merges"].__setitem__(0, 99_999), "merge 0 joins tokens 99999"),
    (lambda document: document["identifiers"].pop(), "is damaged"),
    (lambda document: document["identifiers"].__setitem__(0, 7), "is damaged"),
    (lambda document: document["syntax"].__setitem__(0, "€"), "is damaged .UnicodeEncodeError"),
    (lambda document: document["specials"][0].__setitem__(1, "other"), "is damaged .*other"),
    (lambda document: document["specials"][0].__setitem__(0, "<|x|>"), "was changed"),
    (lambda document: document.update(pattern="("), "is damaged .the pattern"),
    (lambda document: document.update(pattern=None), "is damaged .the pattern"),
    (lambda document: document.pop("sha256"), "was changed.*it says None"),
    (swap_merges, "was changed: its content has sha256"),
]


@pytest.mark.parametrize(("change", "complaint"), CHANGES)
def test_each_change_is_seen(path: Path, change: Callable[[dict[str, Any]], Any], complaint: str) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=complaint):
        load(path)
