"""Repairs as text: the answer mends the function, and nothing else is asked for."""

from __future__ import annotations

import ast
import random
import shlex
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.data.inject_site import Library
from riallm.data.repair_rows import MOST_LINES, Repair, ask, cropped, injected, lines_of, right
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.training import train

SOURCES = [Source.parse(Path(module.__file__).name, Path(module.__file__).read_bytes()) for module in (textwrap, shlex)]


@pytest.fixture(scope="module")
def repairs() -> list[Repair]:
    library = Library.of(SOURCES)
    made = [injected(SOURCES[seed % 2], library, random.Random(seed)) for seed in range(24)]
    return [repair for repair in made if repair is not None]


def test_the_answer_gives_the_right_function_back(repairs: list[Repair]) -> None:
    assert len(repairs) >= 12
    texts = {source.path: source.text for source in SOURCES}
    for repair in repairs:
        assert repair.function not in texts[repair.path]
        assert repair.mended.rstrip() in texts[repair.path]
        assert ast.parse(textwrap.dedent(repair.mended))
        assert repair.function.count("\n") <= MOST_LINES + 5


def test_a_part_of_the_function_still_holds_the_bug(repairs: list[Repair]) -> None:
    parts = [cropped(repair, random.Random(seed)) for seed in range(5) for repair in repairs]
    assert all(part.function in whole.function for part, whole in zip(parts, repairs * 5, strict=True))
    assert all(part.function.count(part.old) == 1 for part in parts)
    assert len({len(part.function.splitlines()) for part in parts}) > 10


def test_bugs_come_from_both_kinds_of_injectors(repairs: list[Repair]) -> None:
    kinds = {repair.injector.partition(":")[0] for repair in repairs}
    assert kinds == {"operator", "unlike"}


def test_only_the_answer_counts(repairs: list[Repair]) -> None:
    tokenizer = HybridTokenizer(train([source.text for source in SOURCES], size=700))
    for error in ("", "AssertionError: 1 != 2 " * 40):
        asked = ask(tokenizer, replace(repairs[0], error=error), head=[7])
        first = asked.weights.index(1.0)
        assert asked.ids[0] == 7 and not any(asked.weights[:first]) and len(asked.ids) == len(asked.weights)
        text = tokenizer.decode(asked.ids[first:])
        assert text == f"<|old|>{repairs[0].old}<|new|>{repairs[0].new}<|edit_end|>"
        before = tokenizer.decode(asked.ids[1:first])
        assert before.startswith(f"<|file:{repairs[0].path}|>") and repairs[0].function in before
        assert ("<|error:AssertionError" in before) is bool(error) and len(before) < len(repairs[0].function) + 350


def test_the_function_counts_but_for_its_bug(repairs: list[Repair]) -> None:
    tokenizer = HybridTokenizer(train([source.text for source in SOURCES], size=700))
    code = [tokenizer.special(name) for name in ("<|code_start|>", "<|code_end|>")]
    for repair in repairs[:20]:
        asked = ask(tokenizer, repair, answer=4.0, given=0.5)
        start, end = map(asked.ids.index, code)
        inside = zip(asked.ids[start + 1 : end], asked.weights[start + 1 : end], strict=True)
        counted = tokenizer.decode([token for token, weight in inside if weight == 0.5])
        before, after = repair.function.split(repair.old)
        assert before.startswith(counted[: len(before) - 8])
        assert after.endswith(counted[len(counted) - len(after) + 8 :])
        assert repair.old not in counted and len(counted) > 0.9 * (len(before) + len(after)) - 16


def test_of_a_right_function_nothing_is_old(repairs: list[Repair]) -> None:
    tokenizer = HybridTokenizer(train([source.text for source in SOURCES], size=700))
    sound = right(cropped(repairs[0], random.Random(0)))
    assert repairs[0].new in sound.function and sound.function in repairs[0].mended
    asked = ask(tokenizer, sound, answer=4.0, given=0.5)
    text = f"<|file:{sound.path}|><|code_start|>{sound.function}<|code_end|><|edit_end|>"
    assert tokenizer.decode(asked.ids) == text and len(asked.weights) == len(asked.ids)
    assert asked.weights[-2:] == [0.0, 4.0] and asked.weights.count(0.5) == len(tokenizer.encode(sound.function))


def test_what_tells_the_lines_apart_counts(repairs: list[Repair]) -> None:
    tokenizer = HybridTokenizer(train([source.text for source in SOURCES], size=700))
    old, new = (tokenizer.special(name) for name in ("<|old|>", "<|new|>"))
    shares = []
    for repair in repairs[:20]:
        asked = ask(tokenizer, repair, answer=4.0, given=0.5)
        start, end = asked.ids.index(old), asked.ids.index(new)
        weights = asked.weights[start:end]
        telling = weights.count(4.0)
        assert weights == [4.0] * telling + [0.5] * (len(weights) - telling) and telling >= 2
        told = tokenizer.decode(asked.ids[start + 1 : start + telling])
        assert sum(line.startswith(told) for line in repair.function.splitlines()) == 1 or "\n" in told
        assert asked.weights[end:] == [4.0] * (len(asked.ids) - end)
        shares.append(telling / len(weights))
    assert 0.2 < sum(shares) / len(shares) < 0.9


@pytest.mark.parametrize(
    ("start", "original", "text", "lines"),
    [(6, "b", "x", ("b1\n", "x1\n")), (4, "\nb", "", ("a1\nb1\n", "a1\n"[:0] + "a11\n")), (9, "c1", "d", ("c1", "d"))],
)
def test_lines_are_whole(start: int, original: str, text: str, lines: tuple[str, str]) -> None:
    program = "z\n\na1\nb1\nc1"
    start = program.index(original)
    edit = Edit(path="p", start=start, original=original, text=text, line=1, operator="test")
    first, last, new = lines_of(program, edit)
    assert (program[first:last], new) == lines
    assert program[:first] + new + program[last:] == edit.apply(program)
