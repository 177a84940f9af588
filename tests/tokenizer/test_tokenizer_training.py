"""Learning: exact sizes, the same result every time, classes that hold what their names say."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from riallm.core.errors import CheckpointError, UsageError
from riallm.tokenizer.composition import composition
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.pattern import BASE_SYNTAX, KEYWORDS, PATTERN, kind_of
from riallm.tokenizer.special import SPECIALS, TokenClass
from riallm.tokenizer.training import train
from riallm.tokenizer.vocabulary import Vocabulary, spell

AGAIN = """
import sys
from pathlib import Path
from riallm.tokenizer.training import train
print(train([Path(name).read_text(encoding="utf-8") for name in sys.argv[2:]], size=int(sys.argv[1])).sha256)
"""


@pytest.mark.parametrize("size", [600, 1_024])
def test_the_size_is_exact_and_the_classes_are_those_of_the_size(texts: list[str], size: int) -> None:
    vocabulary = train(texts[:4], size=size)
    tokenizer = HybridTokenizer(vocabulary)
    made = composition(size)
    assert tokenizer.vocab_size == len(tokenizer.classes) == size
    assert Counter(tokenizer.classes) == {kind: getattr(made, str(kind)) for kind in TokenClass}
    assert vocabulary.specials == SPECIALS


def test_identifiers_and_syntax_are_what_they_are_called(tokenizer: HybridTokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    assert {kind_of(piece) for piece in vocabulary.identifiers} == {TokenClass.IDENTIFIER}
    assert {kind_of(piece) for piece in vocabulary.syntax} == {TokenClass.SYNTAX}
    assert not set(KEYWORDS) & set(vocabulary.identifiers)
    assert {"self", " self"} <= set(vocabulary.identifiers[:10])
    assert {"\n    ", "\n        ", " =", "):", "def", "return"} <= set(vocabulary.syntax)


def test_words_of_comments_are_no_identifiers() -> None:
    source = "spam = eggs\n" * 3 + "# shrubbery\n'''shrubbery'''\n" * 50
    vocabulary = train([source + "".join(f"n{index} = n{index}\n" * 2 for index in range(100))], size=400)
    assert " eggs" in vocabulary.identifiers
    assert " shrubbery" not in vocabulary.identifiers


def test_the_same_texts_give_the_same_vocabulary_in_another_process(texts: list[str], tmp_path: Path) -> None:
    here = train(texts[:3], size=800).sha256
    paths = []
    for index, text in enumerate(texts[:3]):
        paths.append(tmp_path / f"{index}.py")
        paths[-1].write_text(text, encoding="utf-8", newline="")
    for seed, threads in (("1", "1"), ("2", "3")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", AGAIN, "800", *map(str, paths)]
        assert (
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == here
        )


def test_other_texts_give_another_hash(texts: list[str]) -> None:
    assert train(texts[:1], size=600).sha256 != train(texts[1:2], size=600).sha256


@pytest.mark.slow
def test_the_documents_size_is_filled_from_texts_that_are_rich_enough() -> None:
    """Invented texts: learning 106,000 tokens from real ones takes more of them than a test should read."""
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(40_000)]
    marks = ["".join(three) for three in itertools.product("+-*/%&|^~<>=!", repeat=3)]
    lines = [f"{word}{mark}" for word, mark in zip(words, itertools.cycle(marks), strict=False)]
    vocabulary = train(lines * 2, size=106_000)
    tokenizer = HybridTokenizer(vocabulary)
    assert tokenizer.vocab_size == 106_000
    assert Counter(tokenizer.classes) == {
        TokenClass.SUBWORD: 98_000,
        TokenClass.IDENTIFIER: 5_000,
        TokenClass.SYNTAX: 2_000,
        TokenClass.TOOL: 500,
        TokenClass.AGENTIC: 500,
    }
    assert set(BASE_SYNTAX) <= set(vocabulary.syntax)
    assert tokenizer.decode(tokenizer.encode(lines[0])) == lines[0]


@pytest.mark.parametrize(("text", "kind"), [("x = 1\n" * 9, "identifier"), ("abc = def_\n" * 9, "identifier")])
def test_texts_that_are_too_poor_for_the_size_are_refused(text: str, kind: str) -> None:
    with pytest.raises(UsageError, match=f"{kind} tokens, but the texts hold only .* smaller size"):
        train([text], size=2_000)


def test_texts_without_enough_subwords_are_refused() -> None:
    names = "".join(f"name{index} = name{index}\n" * 2 for index in range(120))
    with pytest.raises(UsageError, match="subword tokens, but the texts hold only"):
        train([names], size=2_400)


def test_parts_that_do_not_fit_together_are_refused(tokenizer: HybridTokenizer) -> None:
    good = tokenizer.vocabulary
    first = 256 + len(good.syntax) + len(good.identifiers)

    def build(**changes: object) -> Vocabulary:
        parts = {name: getattr(good, name) for name in ("syntax", "identifiers", "merges", "specials", "pattern")}
        return Vocabulary(**{**parts, **changes})

    assert build() == good
    with pytest.raises(CheckpointError, match="double or empty token"):
        build(syntax=(good.identifiers[0], *good.syntax[1:]))
    with pytest.raises(CheckpointError, match="double or empty special token"):
        build(specials=(good.specials[1], *good.specials[1:]))
    with pytest.raises(CheckpointError, match=f"merge 0 joins tokens {first} and 0"):
        build(merges=((first, 0), *good.merges[1:]))
    with pytest.raises(CheckpointError, match=f"merge 0 joins tokens 0 and {first}"):
        build(merges=((0, first), *good.merges[1:]))
    with pytest.raises(CheckpointError, match="train it again"):
        build(specials=good.specials[:-1])
    with pytest.raises(CheckpointError, match="does not keep every byte"):
        build(pattern="[a-z]+")
    with pytest.raises(CheckpointError, match="does not keep every byte"):
        build(pattern=f"({PATTERN})?x|y")
    with pytest.raises(CheckpointError, match="is no pattern"):
        build(pattern="(")


def test_ids_stand_in_the_order_of_their_classes(tokenizer: HybridTokenizer) -> None:
    tokens = spell(tokenizer.vocabulary)
    assert tokens[:256] == [chr(byte) for byte in range(256)]
    at = 256 + len(tokenizer.vocabulary.syntax)
    assert tuple(tokens[256:at]) == tokenizer.vocabulary.syntax
    assert set(tokenizer.classes[256:at]) == {TokenClass.SYNTAX}
    end = at + len(tokenizer.vocabulary.identifiers)
    assert tuple(tokens[at:end]) == tokenizer.vocabulary.identifiers
    assert set(tokenizer.classes[at:end]) == {TokenClass.IDENTIFIER}
    assert {*tokenizer.classes[:256], *tokenizer.classes[end : len(tokens)]} == {TokenClass.SUBWORD}
    assert tokenizer.decode([tokenizer.vocab_size - 1]) == SPECIALS[-1].name
