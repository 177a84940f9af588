"""Single lines taken out and filled in again: how often the likeliest filling is the line itself, white space apart.

The n-gram's choice is the likeliest of all other lines of the project (of HumanEval: of the function), which it has
counted; a model may write what it likes.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from riallm.agent.client import Client, Context
from riallm.agent.ngram import NgramClient
from riallm.data.infilling import line_spans
from riallm.eval.sets import benchmark_items
from riallm.eval.sets.held_out import HELD_OUT, code_files, release_folder
from riallm.eval.stats import compare, share

BEAM = 4
SHORTEST = 4
"""Characters of a line that is taken out; shorter ones are brackets and `pass`."""
HUMANEVAL = "humaneval_infilling/HumanEval-SingleLineInfilling.jsonl.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A hole and what stood in it. group: what the n-gram of the item is built from, by name."""

    context: Context
    text: str
    group: str
    files: Mapping[str, str]


def held_out_lines(data: Path, *, num: int, seed: int) -> list[Line]:
    """Lines of the held-out packages' code, drawn evenly from all lines."""
    found: list[Line] = []
    for held in HELD_OUT.values():
        folder = release_folder(held, data)
        files = {path: (folder / path).read_text(encoding="utf-8") for path in code_files(held, folder)}
        for path, text in files.items():
            for span in line_spans(text):
                if span.end - span.start >= SHORTEST:
                    context = Context(path=path, prefix=text[: span.start], suffix=text[span.end :])
                    found.append(Line(context=context, text=text[span.start : span.end], group=held.name, files=files))
    return sorted(random.Random(seed).sample(found, min(num, len(found))), key=lambda line: line.group)


def humaneval_lines(data: Path | None, *, num: int, seed: int) -> list[Line]:
    """Items of HumanEval-Infilling (Bavarian et al. 2022), single lines. Raises UsageError where it is not there."""
    path = benchmark_items.root(data) / HUMANEVAL
    if not path.exists():
        raise benchmark_items.Absent(f"{path} is not there")
    found = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for item in map(json.loads, file):
            whole = item["canonical_solution"]
            text = whole.strip()
            before = whole[: len(whole) - len(whole.lstrip())]
            after = whole[len(before) + len(text) :]
            context = Context(path="solution.py", prefix=item["prompt"] + before, suffix=after + item["suffix"])
            files = {"solution.py": context.prefix + text + context.suffix}
            found.append(Line(context=context, text=text, group=item["task_id"], files=files))
    return random.Random(seed).sample(found, min(num, len(found)))


def measure(model: Client, items: Sequence[Line]) -> dict[str, Any]:
    """Shares of lines that the model and the n-gram fill exactly, and how the two compare on the same lines."""
    clients = lru_cache(maxsize=1)(lambda group: NgramClient(groups[group]))
    groups = {item.group: item.files for item in items}
    ours, theirs = [], []
    for item in items:
        filled = model.infill(item.context, num=BEAM, max_chars=400)
        ours.append(bool(filled) and _same(filled[0].text, item.text))
        theirs.append(_same(_likeliest(clients(item.group), item), item.text))
    num = len(items)
    return {
        "num": num,
        "model": asdict(share(sum(ours), num)),
        "ngram": asdict(share(sum(theirs), num)),
        "difference": asdict(compare(theirs, ours, seed=0)),
    }


def _same(one: str, other: str) -> bool:
    return "".join(one.split()) == "".join(other.split())


def _likeliest(client: NgramClient, item: Line) -> str:
    lines: dict[str, int] = {}
    for text in item.files.values():
        for span in line_spans(text):
            line = text[span.start : span.end]
            lines[line] = lines.get(line, 0) + 1
    lines[item.text] = lines.get(item.text, 1) - 1  # the hole's own line is not known
    known = [line for line, count in lines.items() if count > 0]
    if not known:
        return ""
    scores = client.score(item.context, known)
    return known[max(range(len(known)), key=scores.__getitem__)]
