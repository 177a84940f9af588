"""Rows as batches: nothing is left out, what counts is what the model has to say, and a batch is its number's."""

from __future__ import annotations

import json
import random
import textwrap
from collections import Counter
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.data.interaction_rows import Form, Rows
from riallm.models.episodes import Episodes
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import markers, with_markers
from riallm.tokenizer.training import train
from riallm.train.interactions import Interactions

TEXT = Path(textwrap.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer() -> HybridTokenizer:
    return HybridTokenizer(with_markers(train([TEXT], size=600)))


def rows(path: Path, form: Form, *given: object) -> Rows:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in given), encoding="utf-8")
    return Rows([path], form)


def texts(num: int) -> list[str]:
    draw = random.Random(0)
    return [f"{number}: " + TEXT[:: 1 + number % 2][: draw.choice([3, 40, 400, 4000])] for number in range(num)]


def ids(batch: Episodes, row: int, at: int = 0) -> list[int]:
    found: list[int] = batch.tokens[row, at][batch.mask[row, at]].tolist()
    return found


def same(one: Episodes, other: Episodes) -> bool:
    return one.seed == other.seed and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("tokens", "mask", "answers")
    )


def test_every_character_of_every_text_comes_once_an_epoch(tmp_path: Path, tokenizer: HybridTokenizer) -> None:
    given = texts(30)
    made = Interactions(
        rows(tmp_path / "a", "text", *({"text": text} for text in given)), tokenizer, batch_rows=1, num_tokens=24
    )
    own = markers(tokenizer)
    pieces: list[str] = []
    num_ends = longest = more = 0
    for number in range(made.num_items):
        batch = made(number)
        assert batch.tokens.shape[1:] == (1, 24)
        found = [ids(batch, row) for row in range(len(batch.tokens))]
        assert all(each[0] == own.begin and own.begin not in each[1:] for each in found)
        assert torch.equal(batch.answers, batch.mask & (torch.arange(24) > 0))
        num_ends += sum(own.end in each for each in found)
        longest, more = max(longest, *map(len, found)), more + (len(found) > 1)
        pieces.append("".join(tokenizer.decode(each, specials=False) for each in found))
        assert batch.num_bytes == len(pieces[-1].encode())
    assert num_ends == 30 and longest == 24 and 0 < more < made.num_items // 2
    assert Counter("".join(pieces)) == Counter("".join(given))
    whole = sorted(given, key=len)[-1]
    parts = [piece for piece in set(pieces) if piece in whole]
    assert len(parts) > 10 and all(map(whole.count, parts))


def test_a_batch_is_its_number_s_whatever_came_before(tmp_path: Path, tokenizer: HybridTokenizer) -> None:
    given = rows(tmp_path / "a", "interaction", *({"query": f"q{n}", "answer": f"a{n}"} for n in range(7)))
    one, other = (Interactions(given, tokenizer, batch_rows=3, num_tokens=24, seed=5) for _ in range(2))
    kept = [one(number) for number in range(10)]
    assert all(same(other(number), kept[number]) for number in (9, 2, 4, 2, 0))
    assert len({batch.seed for batch in kept}) == 10
    seen = [tuple(ids(batch, row)) for batch in kept for row in range(3)]
    epochs = [seen[first : first + 7] for first in range(0, 28, 7)]
    assert all(len(set(epoch)) == 7 for epoch in epochs)  # each row once, and in another order
    assert len({tuple(epoch) for epoch in epochs}) == 4
    different = Interactions(given, tokenizer, batch_rows=3, num_tokens=24, seed=6)
    assert not same(different(0), kept[0])


def test_what_the_model_has_to_say_counts_its_end_included(tmp_path: Path, tokenizer: HybridTokenizer) -> None:
    given = rows(
        tmp_path / "a",
        "conversation",
        {"system": "be kind", "query": "def f", "answer": "return", "interactions": [
            {"query": "import", "answer": "self", "think": "class"}
        ]},
    )  # fmt: skip
    batch = Interactions(given, tokenizer, batch_rows=1, num_tokens=24)(0)
    own, encode = markers(tokenizer), tokenizer.encode
    assert batch.tokens.shape == (1, 3, 24)
    said = [batch.tokens[0, at][batch.answers[0, at]].tolist() for at in range(3)]
    assert said[0] == []  # what nobody answers
    assert said[1] == [*encode("return"), own.end]
    assert said[2] == [*encode("class"), own.answer, *encode("self"), own.end]
    assert ids(batch, 0, 0) == [own.begin, own.query, *encode("be kind"), own.answer, own.end]
    assert ids(batch, 0, 2) == [own.begin, own.query, *encode("import"), own.think, *said[2]]
    assert batch.num_bytes == len("return" + "class" + "self")


def test_ragged_conversations_keep_all_interactions(tmp_path: Path, tokenizer: HybridTokenizer) -> None:
    lengths = [1, 5, 2, 3]
    given = rows(
        tmp_path / "a",
        "conversation",
        *({"interactions": [{"query": f"{length} {at}", "answer": "x"} for at in range(length)]} for length in lengths),
    )
    made = Interactions(given, tokenizer, batch_rows=2, num_tokens=24)
    batches = [made(number) for number in range(2)]
    found = [int(batch.mask[row].any(dim=-1).sum()) for batch in batches for row in range(2)]
    assert sorted(found) == sorted(lengths)
    assert max(batch.tokens.shape[1] for batch in batches) == 5
    assert sum(batch.num_units for batch in batches) == sum(lengths) * len([*tokenizer.encode("x"), "end"])


def test_what_is_too_long_is_refused_by_line_or_cut_where_asked(tmp_path: Path, tokenizer: HybridTokenizer) -> None:
    long = " ".join(f"w{number}" for number in range(40))
    given = rows(
        tmp_path / "a.jsonl",
        "interaction",
        {"query": "q", "answer": long},
        {"query": long, "answer": "x"},
        {"query": long, "answer": long},
    )
    strict = Interactions(given, tokenizer, batch_rows=1, num_tokens=20)
    with pytest.raises(UsageError, match=r"a.jsonl:\d: an interaction of \d+ tokens; rows have 20"):
        strict(0)
    made = Interactions(given, tokenizer, batch_rows=3, num_tokens=20, too_long="cut")(0)
    own, encode = markers(tokenizer), tokenizer.encode
    found = sorted((ids(made, row), made.answers[row, 0].sum().item()) for row in range(3))
    assert ([own.begin, own.query, *encode("q"), own.answer, *encode(long)][:20], 20 - 3 - len(encode("q"))) in found
    whole = [own.answer, *encode("x"), own.end]
    assert ([*[own.begin, own.query, *encode(long)][: 20 - len(whole)], *whole], len(whole) - 1) in found
    half = [own.begin, own.query, *encode(long)][:10]
    assert ([*half, own.answer, *encode(long)][:20], 9) in found


def test_a_tokenizer_without_markers_is_refused(tmp_path: Path) -> None:
    plain = HybridTokenizer(train([TEXT], size=600))
    with pytest.raises(UsageError, match="cannot write interactions"):
        Interactions(rows(tmp_path / "a", "text", {"text": "x"}), plain, batch_rows=1, num_tokens=8)
