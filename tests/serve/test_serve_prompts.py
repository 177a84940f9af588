"""Prompts and grammars of the model that ships: as it was trained, and as the repair asks it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from riallm.agent.client import Context
from riallm.agent.local import ANSWER_TOKENS, LocalClient
from riallm.core.errors import UsageError
from riallm.core.shipped import folder_of
from riallm.serve.grammar import Grammars
from riallm.serve.infill import Indent, selected
from riallm.serve.prompts import HybridPrompts
from riallm.serve.served import File
from riallm.tokenizer.foreign import HybridText
from riallm.tokenizer.saved import load


@pytest.fixture(scope="module")
def nano() -> HybridText:
    return HybridText(load(folder_of("ria-nano") / "tokenizer.json"))


def test_a_hole_is_shown_as_the_repair_shows_it(nano: HybridText) -> None:
    client = LocalClient(folder_of("ria-nano"))
    before, after = "def f(x):\n    y = x\n    return ", "\n\nprint(f(1))\n"
    expected = client._hole(Context(path="a.py", prefix=before, suffix=after))
    room = client._model.config.max_position_embeddings - ANSWER_TOKENS
    assert list(HybridPrompts(nano).infill(before, after, files=(), path="a.py", room=room).ids) == expected


def test_a_long_text_begins_at_the_same_place_while_somebody_types(nano: HybridText) -> None:
    prompts, room = HybridPrompts(nano), 400
    before = "".join(f"def f{number}(x):\n    return x + {number}\n" for number in range(3000))
    after, typed = "\n\nprint(f0(1))\n" * 3000, "    total = sum(f(1) for f in range(20))\n" * 20
    starts, shortest = [], room
    for size in range(1, len(typed), 7):
        ids = prompts.infill(before + typed[:size], after, files=(), path="a.py", room=room).ids
        shortest = min(shortest, len(ids))
        assert len(ids) <= room
        begin = ids.index(nano.fim.prefix)
        starts.append(ids[begin : begin + 20])
    changes = sum(one != other for one, other in pairwise(starts))
    tokens = len(nano.encode(typed))
    assert 0 < changes <= tokens // (room * 0.6 // 8) + 1 < len(starts) // 5
    assert shortest > room * 3 // 4


def test_more_files_and_tools_are_refused(nano: HybridText) -> None:
    prompts = HybridPrompts(nano)
    file = (File(path="b.py", text="x"),)
    with pytest.raises(UsageError, match="one file at a time"):
        prompts.infill("a", "b", files=file, path=None, room=100)
    with pytest.raises(UsageError, match="one file at a time"):
        prompts.text("a", files=file)
    with pytest.raises(UsageError, match="no place for tools"):
        prompts.chat([{"role": "user", "content": "hi"}], tools=[{"function": {"name": "f"}}], files=())
    ids = prompts.chat([{"role": "user", "content": "hi <|pad|>"}], tools=(), files=()).ids
    assert nano.decode_bytes(ids) == b"user: hi <|pad|>\nassistant:"


def test_a_grammar_over_our_own_tokenizer(nano: HybridText) -> None:
    grammar = Grammars(nano).regex("def [a-z]+[(]self[)]:")
    ids = nano.encode("def follow(self):")
    assert len(ids) < len("def follow(self):")
    for index in ids:
        assert grammar.allowed()[index // 8] >> (index % 8) & 1
        grammar.accept(index)
    allowed = grammar.allowed()
    end = nano.ends[0]
    assert grammar.complete or allowed[end // 8] >> (end % 8) & 1
    with pytest.raises(UsageError, match="cannot be held any further"):
        Grammars(nano).regex("a").accept(nano.encode("b")[0])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x\n    y\n", "x\n    y\n"),
        ("x\n    y\n\n\n  z", "x\n    y"),
        ("x\nz", "x"),
        ("x\n\n    y", "x\n\n    y"),
        ("x\n\t\t\t\ty\n\nz\n", "x\n\t\t\t\ty"),
        ("x   \n  ", "x   \n  "),
        ("", ""),
    ],
)
def test_lines_of_less_indentation_end_an_answer(text: str, shown: str) -> None:
    for pieces in ([text], list(text)):
        indent = Indent(4)
        assert "".join(map(indent.feed, pieces)) + indent.finish() == shown
        assert indent.over == (shown != text)


def test_fields_that_are_asked_for() -> None:
    answer = {"content": "x", "timings": {"prompt_n": 3, "deep": {"a": 1}}, "stop": True}
    assert selected(answer, None) == answer
    assert selected(answer, ["content", "timings/prompt_n", "none/at/all"]) == {"content": "x", "timings/prompt_n": 3}
    assert selected(answer, [""]) == {}
