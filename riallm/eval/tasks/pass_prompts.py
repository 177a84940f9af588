"""Problems of functional correctness: what a model reads, where its answer ends, and the program that judges it.

HumanEval (Chen et al. 2021) is completed as it stands. MBPP (Austin et al. 2021) gives the text and the asserts of
its own prompt, as a docstring and without worked examples, since three of them would fill a small context. CRUXEval
(Gu et al. 2024) asks for the output of a function, which must be a literal.

A prompt never ends in white space: a line end and the indentation behind it are one token, and so are a blank and
the word behind it. The answer brings its own.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError
from riallm.eval.sets.benchmark_items import FILES, Absent, root

Row = dict[str, Any]

RULES = 1
"""Raised whenever prompts, stops or checks change, so that results of other ones are not taken for the same."""

ANSWER_TOKENS = {"humaneval": 192, "mbpp": 192, "cruxeval": 64}
"""Room for an answer. Most reference solutions have under 100 tokens."""

HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
MBPP_STOPS = ("\nassert", '\n"""', "\n'''", "\nif", "\nprint")
CRUXEVAL_STOPS = ("\n",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """prompt: what is read, without white space at its end; reference: an answer that is right.

    stops: texts that an answer ends before. before, after: what the judging program holds around the answer; quoted:
    whether it holds the answer as a string.
    """

    id: str
    prompt: str
    reference: str
    stops: tuple[str, ...]
    before: str
    after: str
    quoted: bool = False

    def program(self, answer: str) -> str:
        """A program that ends without an exception if the answer is right."""
        return self.before + (repr(answer.strip()) if self.quoted else answer) + self.after


def path_of(name: str, data: Path | None) -> Path:
    """The file of a set. Raises UsageError for a set that has no prompts, Absent where the file is not there."""
    if name not in PROMPTS:
        raise UsageError(f"set {name} has no prompts; there are {', '.join(PROMPTS)}")
    path = root(data) / FILES[name]
    if not path.exists():
        raise Absent(f"{path} is not there")
    return path


def problems(name: str, data: Path | None, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
    """Problems of a set in its own order; with `limit`, so many drawn by the seed. The draw of a smaller limit is part
    of the draw of a larger one. Raises as `path_of`."""
    with gzip.open(path_of(name, data), "rt", encoding="utf-8") as file:
        found = [problem for row in map(json.loads, file) if (problem := PROMPTS[name](row)) is not None]
    if limit is None:
        return found
    order = list(range(len(found)))
    random.Random(seed).shuffle(order)
    return [found[at] for at in sorted(order[:limit])]


def humaneval(row: Row) -> Problem:
    """The function's head and docstring; its body is asked for, and `check` judges it."""
    prompt = row["prompt"].rstrip()
    return Problem(
        id=row["task_id"],
        prompt=prompt,
        reference=row["prompt"][len(prompt) :] + row["canonical_solution"],
        stops=HUMANEVAL_STOPS,
        before=prompt,
        after=f"\n{row['test']}\ncheck({row['entry_point']})\n",
    )


def mbpp(row: Row) -> Problem | None:
    """The task and its asserts in a docstring, the program behind it; None for rows outside the test split."""
    if not 11 <= row["task_id"] <= 510:
        return None
    tests, setup = ("\n".join(lines).replace("\r\n", "\n") for lines in (row["test_list"], [row["test_setup_code"]]))
    return Problem(
        id=f"MBPP/{row['task_id']}",
        prompt=f'"""\n{row["text"].strip()} Your code should pass these tests:\n\n{tests}\n"""',
        reference="\n" + row["code"].replace("\r\n", "\n").strip() + "\n",
        stops=MBPP_STOPS,
        before="",
        after=f"\n{setup}\n{tests}\n",
    )


def cruxeval(row: Row) -> Problem:
    """The function and one call, whose result is asked for. Only a literal counts: `f(...)` equals itself too."""
    code = row["code"].rstrip() + "\n"
    call = f"assert f({row['input']}) =="
    return Problem(
        id=row["id"],
        prompt=f"{code}\n\n{call}",
        reference=" " + row["output"],
        stops=CRUXEVAL_STOPS,
        before=f"{code}\n\n{call} __import__('ast').literal_eval(",
        after=")\n",
        quoted=True,
    )


PROMPTS: dict[str, Callable[[Row], Problem | None]] = {"humaneval": humaneval, "mbpp": mbpp, "cruxeval": cruxeval}


def stopped(text: str, stops: tuple[str, ...]) -> str | None:
    """The text before the first of the stops; None where there is none."""
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(places)] if places else None


def without_rest(text: str) -> str:
    """An answer that ran out of tokens, without the top-level statement that it was in; a single one is kept."""
    starts = [match.start() for match in re.finditer(r"\n(?=\S)", text)]
    return text[: starts[-1]] if starts and text[: starts[-1]].strip() else text
