"""Code repair as text: a function with a bug, what went wrong, and the lines that mend it (RIA document, 3.3.2).

    <|file:path|> <|error:message|> <|code_start|> function <|code_end|> <|old|> lines <|new|> lines <|edit_end|>
    <|file:path|> <|error:message|> <|code_start|> function <|code_end|> <|edit_end|>

Naming the old lines first makes the model say where before it says what; the second form says that nothing is wrong.
The error is left out of a share of the rows, because a repair does not always have one to show.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.data.infilling import Asked
from riallm.data.inject import UNLIKE, apply_edits, functions_of, inject, reverse_edits
from riallm.data.inject_site import Library

if TYPE_CHECKING:  # its library is an extra, and this room works without
    from riallm.tokenizer.hybrid import HybridTokenizer

MOST_LINES = 60
LONGEST_MESSAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """function: the function with the bug, as it stands in its file. old: whole lines of it, none where nothing is
    wrong; new: what they become. error: what a red test said, where one was run."""

    path: str
    function: str
    old: str
    new: str
    injector: str
    error: str = ""

    @property
    def mended(self) -> str:
        """The function with the old lines replaced at their first place."""
        return self.function.replace(self.old, self.new, 1)


def right(repair: Repair) -> Repair:
    """The function as it was before the bug."""
    return replace(repair, function=repair.mended, old="", new="", injector="none", error="")


def cropped(repair: Repair, draw: random.Random) -> Repair:
    """The repair with lines cut off before and after those that change: what is asked of a long function."""
    lines = repair.function.splitlines(keepends=True)
    before = repair.function[: repair.function.index(repair.old)].count("\n")
    after = before + repair.old.count("\n") + 1
    first, last = draw.randint(0, before), draw.randint(after, max(after, len(lines)))
    return replace(repair, function="".join(lines[first:last]))


def lines_of(text: str, edit: Edit) -> tuple[int, int, str]:
    """(start, end, text) of the whole lines that an edit touches, and what they become."""
    start = text.rfind("\n", 0, edit.start) + 1
    found = text.find("\n", max(edit.end, edit.start + 1) - 1)
    end = len(text) if found < 0 else found + 1
    return start, end, text[start : edit.start] + edit.text + text[edit.end : end]


def injected(source: Source, library: Library, draw: random.Random, *, tries: int = 4) -> Repair | None:
    """The repair of a bug put into a function of the file. No test has shown that the bug is one."""
    found = drawn(source, library, draw, tries=tries)
    return found[1] if found else None


def drawn(source: Source, library: Library, draw: random.Random, *, tries: int = 4) -> tuple[Edit, Repair] | None:
    """A bug in a function of the file and its repair, half of the time by an injector unlike the operators; None where
    nothing came of it, the function is long, or the lines would be ambiguous."""
    functions = [(name, node) for name, node in functions_of(source) if _length(node) <= MOST_LINES]
    for _ in range(tries if functions else 0):
        name, node = draw.choice(functions)
        injector = "quick" if draw.random() < 0.5 else f"unlike:{draw.choice(tuple(UNLIKE))}"
        bug = inject(source, node, name, library=library, injector=injector, draw=draw)
        if bug is None or len(bug.edits) != 1:
            continue
        wrong = apply_edits(source.text, bug.edits)
        (fix,) = reverse_edits(bug.edits)
        start, end, new = lines_of(wrong, fix)
        first, last = source.item_span(node)
        grown = len(wrong) - len(source.text)
        first = source.text.rfind("\n", 0, first) + 1
        function, old = wrong[first : last + grown], wrong[start:end]
        if first <= start and end <= last + grown + 1 and old.strip() and function.count(old.rstrip("\n")) == 1:
            repair = Repair(
                path=source.path,
                function=function,
                old=old.rstrip("\n"),
                new=new.rstrip("\n"),
                injector=bug.injector,
            )
            return bug.edits[0], repair
    return None


def _length(node: object) -> int:
    return int(getattr(node, "end_lineno", 0)) - int(getattr(node, "lineno", 0)) + 1


def ask(
    tokenizer: HybridTokenizer,
    repair: Repair,
    *,
    head: Sequence[int] = (),
    answer: float = 1.0,
    given: float = 0.0,
) -> Asked:
    """The row's tokens. head: what stands before, for instance the files that this one imports. answer: what a token
    counts that says which lines are wrong, or what they become. given: what one of the function does, and one of the
    old lines once no other line begins like them; the bug where it stands never counts, or it would be learnt as well.
    """
    special = tokenizer.special
    before = [*head, *tokenizer.valued("file", repair.path)]
    if repair.error:
        before += tokenizer.valued("error", repair.error[:LONGEST_MESSAGE])
    function, old, new = tokenizer.encode_batch((repair.function, repair.old, repair.new))
    start = len(repair.function[: repair.function.index(repair.old)].encode())
    end = start + len(repair.old.encode())
    row = [(token, 0.0) for token in (*before, special("<|code_start|>"))]
    for token, (first, last) in zip(function, _places(tokenizer, function), strict=True):
        row.append((token, given if last <= start or first >= end else 0.0))
    row.append((special("<|code_end|>"), 0.0))
    if repair.old:
        told = len(_telling(repair).encode())
        row.append((special("<|old|>"), answer))
        for token, (first, _) in zip(old, _places(tokenizer, old), strict=True):
            row.append((token, answer if first < told else given))
        row += [(token, answer) for token in (special("<|new|>"), *new)]
    row.append((special("<|edit_end|>"), answer))
    return Asked(ids=[token for token, _ in row], weights=[weight for _, weight in row])


def _telling(repair: Repair) -> str:
    """What the old lines begin with that no other lines of the function do."""
    starts = [match.end() for match in re.finditer("\n", repair.function)]
    others = (repair.function[at:] for at in (0, *starts))
    shared = [_shared(repair.old, other) for other in others]
    shared.remove(len(repair.old))  # the lines themselves
    return repair.old[: max(shared, default=0) + 1]


def _shared(one: str, other: str) -> int:
    """Characters that both begin with."""
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), len(one[: len(other)])
    )


def _places(tokenizer: HybridTokenizer, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first byte, byte after the last) of each token in the text that they are."""
    lengths, at = tokenizer.byte_lengths(), 0
    for token in ids:
        yield at, at + lengths[token]
        at += lengths[token]
