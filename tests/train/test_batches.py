"""Batches: nothing of the rows is lost, the same number gives the same batch, and targets are what they should be."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.data.corpus.rows import Document
from riallm.data.repair_rows import Repair
from riallm.nn.meta import Relation
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.training import train
from riallm.train.batches import KINDS, NUM_FILES, BatchConfig, Batches, windows
from riallm.train.objective import IGNORED, Batch

CODE = Path(textwrap.__file__).read_text(encoding="utf-8")
ONE = "def double(x):\n    y = x + x\n    return y\n"
TWO = "from a.one import double\n\n\ndef quadruple(x):\n    return double(double(x))\n"
ROWS = [
    [
        Document(path="a/one.py", text=ONE, same_module=(1,)),
        Document(path="a/two.py", text=TWO, same_module=(0,), imports=(0,)),
        Document(path="b/three.py", text=CODE, imports=(0,)),
    ],
    [Document(path=f"c/{number}.py", text=f"x{number} = {number}\n") for number in range(40)],
]

REPAIRS = [
    Repair(
        path=f"d/{number}.py",
        function=f"def add{number}(x):\n    return x - {number}\n",
        old=f"    return x - {number}",
        new=f"    return x + {number}",
        injector="operator:arithmetic",
    )
    for number in range(9)
]


@pytest.fixture(scope="module")
def tokenizer() -> HybridTokenizer:
    return HybridTokenizer(train([CODE], size=700))


def source(tokenizer: HybridTokenizer, seed: int = 0, **mixture: float) -> Batches:
    config = BatchConfig(rows=3, context=256, mixture=mixture or {"causal": 1.0}, seed=seed, repair_weight=3.0)
    return Batches(ROWS, tokenizer, config, bytes_per_token=2.0, repairs=REPAIRS)


def test_every_character_is_in_one_window() -> None:
    found = windows(ROWS, 256, 2.0)
    for number, row in enumerate(ROWS):
        for index, document in enumerate(row):
            pieces = [p for w in found if w.row == number for p in w.pieces if p.document == index]
            assert "".join(document.text[piece.start : piece.end] for piece in pieces) == document.text
    assert all(sum(piece.end - piece.start for piece in window.pieces) <= 512 for window in found)
    assert max(len({piece.document for piece in window.pieces}) for window in found) == NUM_FILES


def test_a_number_gives_the_same_batch_always(tokenizer: HybridTokenizer) -> None:
    mixture = dict.fromkeys(KINDS, 0.2)
    one, other = source(tokenizer, **mixture), source(tokenizer, **mixture)
    for number in (7, 0, 3):
        first, second = one(number), other(number)
        assert torch.equal(first.tokens, second.tokens) and torch.equal(first.targets, second.targets)
        assert torch.equal(first.meta.relations, second.meta.relations) and first.kinds == second.kinds
    assert not torch.equal(one(0).tokens, source(tokenizer, seed=1, **mixture)(0).tokens)


def test_an_epoch_shows_every_window_once_and_the_next_in_another_order(tokenizer: HybridTokenizer) -> None:
    made = source(tokenizer)
    size = len(made.windows)
    epochs = [[made._window(index) for index in range(start, start + size)] for start in (0, size)]
    assert set(epochs[0]) == set(epochs[1]) == set(made.windows)
    assert epochs[0] != epochs[1]


def test_targets_are_the_tokens_that_follow(tokenizer: HybridTokenizer) -> None:
    batch = source(tokenizer)(0)
    assert batch.tokens.shape == batch.targets.shape == batch.meta.files.shape == (3, 256)
    inside = batch.targets[:, :-1] != IGNORED
    assert torch.equal(batch.targets[:, :-1][inside], batch.tokens[:, 1:][inside])
    pad = tokenizer.special("<|pad|>")
    assert not (batch.targets == pad).any()
    assert batch.num_bytes == sum(tokenizer.byte_lengths()[t] for t in batch.targets.flatten().tolist() if t != IGNORED)


def assert_repairs_are_apart(tokenizer: HybridTokenizer, batch: Batch) -> None:
    """Each is a segment of its own, counted from zero, and only answers count, by their weight."""
    end = tokenizer.special("<|edit_end|>")
    for row in range(3):
        ends = (batch.tokens[row] == end).nonzero().flatten().tolist()
        for at in ends:
            segments, positions = batch.meta.segments[row], batch.meta.positions[row]
            assert int(batch.targets[row, at]) == IGNORED
            if at + 1 < 256:
                assert int(segments[at + 1]) == int(segments[at]) + 1 and int(positions[at + 1]) == 0
        given = tokenizer.special("<|code_start|>")
        assert not (batch.targets[row] == given).any() and (batch.targets[row] == end).sum() == len(ends)
    assert batch.weights is not None and batch.num_units == 3.0 * int((batch.targets != IGNORED).sum())


def test_the_mixture_changes_at_its_batch(tokenizer: HybridTokenizer) -> None:
    config = BatchConfig(rows=3, context=256, mixture={"causal": 1.0}, later={"repair": 1.0}, later_from=2)
    made = Batches(ROWS, tokenizer, config, bytes_per_token=2.0, repairs=REPAIRS)
    assert [set(made(number).kinds) for number in (1, 2)] == [{"causal"}, {"repair"}]
    with pytest.raises(UsageError, match="riallm data repairs"):
        Batches(ROWS, tokenizer, config, bytes_per_token=2.0)


def test_some_functions_are_right(tokenizer: HybridTokenizer) -> None:
    made, code_end = source(tokenizer, repair=1.0), tokenizer.special("<|code_end|>")
    answers = []
    for number in range(12):
        tokens = made(number).tokens
        answers += tokens[:, 1:][tokens[:, :-1] == code_end].tolist()
    wrong, nothing = (answers.count(tokenizer.special(name)) for name in ("<|old|>", "<|edit_end|>"))
    assert wrong + nothing == len(answers) and 0.05 < nothing / len(answers) < 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_asks_for_what_it_is(tokenizer: HybridTokenizer, kind: str) -> None:
    made = source(tokenizer, **{kind: 1.0})
    names = {"middle": "<|fim_middle|>", "spans": "<|hole_0|>", "statements": "<|hole_0|>"}
    seen = 0
    for number in range(8):
        batch = made(number)
        assert set(batch.kinds) == {kind}
        if kind == "repair":
            assert_repairs_are_apart(tokenizer, batch)
        for row in range(3):
            special = tokenizer.special(names[kind]) if kind in names else -1
            asked = (batch.tokens[row] == special).nonzero().flatten().tolist()
            seen += len(asked) > 0
            if kind in ("spans", "statements") and len(asked) == 2:  # the hole, and its answer
                assert int(batch.targets[row, asked[0] - 1]) == IGNORED
                assert int(batch.targets[row, asked[1] - 1]) == special
    assert seen > 5 if kind in names else seen == 0


def test_the_answer_of_a_hole_is_whole(tokenizer: HybridTokenizer) -> None:
    made = source(tokenizer, middle=1.0)
    middle, end = tokenizer.special("<|fim_middle|>"), tokenizer.special("<|end_of_text|>")
    rows = [row for number in range(12) for row in made(number).tokens.tolist()]
    assert all(row.count(middle) == 1 and end in row[row.index(middle) :] for row in rows)


def test_relations_are_those_of_the_files_in_the_window(tokenizer: HybridTokenizer) -> None:
    made = source(tokenizer)
    known = (made._window(at) for at in range(len(made.windows)))
    index = next(at for at, found in enumerate(known) if found.row == 0 and len(found.pieces) > 1)
    made_row = made._row(index, {"causal": 1.0})
    files, table = made_row.files, made_row.relations
    assert table[0, :3].tolist() == [Relation.SAME, Relation.MODULE, Relation.NONE]
    assert table[1, :2].tolist() == [Relation.IMPORT, Relation.SAME]
    assert set(files.tolist()) <= set(range(3)) and files.tolist() == sorted(files.tolist())


def test_a_neighbour_is_a_file_that_is_imported(tokenizer: HybridTokenizer) -> None:
    config = BatchConfig(rows=3, context=256, mixture={"causal": 1.0}, neighbours=1.0)
    made = Batches(ROWS, tokenizer, config, bytes_per_token=2.0)
    known = (made._window(at) for at in range(len(made.windows)))
    index = next(
        at for at, found in enumerate(known) if found.row == 0 and {piece.document for piece in found.pieces} == {2}
    )
    row = made._row(index, {"causal": 1.0})
    text = tokenizer.decode(row.tokens.tolist())
    assert text.startswith("<|file:a/one.py|>" + ONE) and "<|file:b/three.py|>" in text
    assert row.relations[1, 0] == Relation.IMPORT and set(row.files.tolist()) == {0, 1}


def test_what_cannot_be_batched_is_refused(tokenizer: HybridTokenizer) -> None:
    with pytest.raises(UsageError, match="expected shares of causal, middle"):
        BatchConfig(rows=1, context=8, mixture={"prefix": 1.0})
    with pytest.raises(UsageError, match="hold no text"):
        Batches([[]], tokenizer, BatchConfig(rows=1, context=8, mixture={"causal": 1.0}), bytes_per_token=2.0)
