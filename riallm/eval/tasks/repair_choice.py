"""Whether a model sees bugs, without a test being run: `python -m riallm.eval.tasks.repair_choice --model DIR`.

Functions of a corpus's validation packages with one bug each. Is anything wrong (asked of the function with the bug and
without it)? Which line, beside drawing one? What does it become, of the edits that the operators propose there, beside
the order of the operators' priors? Seconds for hundreds of functions, so models and formats can be compared by it; how
many bugs get repaired is another question (`riallm eval repair`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from riallm.agent.local import LocalClient
from riallm.agent.passage import Passage, olds
from riallm.code.operators import propose
from riallm.code.source import Source
from riallm.code.vocabulary import Vocabulary
from riallm.core.errors import ProjectError, RiallmError, UsageError
from riallm.core.files import cache_home
from riallm.core.shipped import DEFAULT, folder_of
from riallm.data import repair_corpus
from riallm.data.repair_rows import Repair, lines_of
from riallm.eval.stats import bootstrap, share

LEAST_LINES = 4
EDITS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Of one function. seen: the function with the bug looks more like one than without. line: rank of the wrong line
    of `lines`; text, prior: ranks of the right text of `texts`, by the model and by the operators; 0 where they have
    no such edit."""

    seen: bool
    line: int
    lines: int
    text: int
    prior: int
    texts: int


def choose(client: LocalClient, repair: Repair) -> Choice | None:
    """What the model makes of one bug; None for a function of few lines, or a bug of several lines."""
    shown = _passage(repair.path, repair.function)
    lines = olds(shown)
    if len(lines) < LEAST_LINES or repair.old not in lines:
        return None
    wrong, weights = client.weigh(shown)
    sound, _ = client.weigh(_passage(repair.path, repair.mended))
    news = edits(repair)
    text = prior = 0
    if repair.new in news:
        values = client.become(shown, repair.old, news)
        text = rank(values[repair.new], list(values.values()))
        prior = 1 + news.index(repair.new)
    return Choice(
        seen=wrong > sound,
        line=rank(weights[repair.old], list(weights.values())),
        lines=len(lines),
        text=text,
        prior=prior,
        texts=len(news),
    )


def _passage(path: str, text: str) -> Passage:
    return Passage(path=path, text=text, start=0, end=len(text))


def rank(own: float, others: Sequence[float]) -> int:
    """1 for the largest; among equal ones the middle."""
    return 1 + sum(each > own for each in others) + (sum(each == own for each in others) - 1) // 2


def edits(repair: Repair) -> list[str]:
    """What the operators would make of the wrong line, the likeliest first; [] where the function is no program by
    itself."""
    lines = repair.function.splitlines(keepends=True)
    depth = len(lines[0]) - len(lines[0].lstrip())
    if any(line.strip() and line[:depth].strip() for line in lines):
        return []
    try:
        source = Source.parse(repair.path, "".join(line[depth:] or "\n" for line in lines).encode())
    except ProjectError:
        return []
    before = repair.function[: repair.function.index(repair.old)].count("\n")
    found = dict[str, None]()
    for edit in propose(source, before + 1, Vocabulary.build([source]), limit=EDITS):
        start, end, new = lines_of(source.text, edit)
        if source.text[start:end].rstrip("\n") == repair.old[depth:]:
            new = new.rstrip("\n")
            found["\n".join(lines[0][:depth] + line if line else line for line in new.split("\n")) if new else ""] = (
                None
            )
    return list(found)


def summary(found: Sequence[Choice], seed: int) -> dict[str, Any]:
    """Shares and mean reciprocal ranks with their intervals, the baselines beside them."""
    texts = [each for each in found if each.text]
    return {
        "functions": len(found),
        "seen": asdict(share(sum(each.seen for each in found), len(found))),
        "line_first": asdict(share(sum(each.line == 1 for each in found), len(found))),
        "line_first_drawn": fmean(1 / each.lines for each in found),
        "line_reciprocal_rank": asdict(bootstrap([1 / each.line for each in found], fmean, seed=seed)),
        "line_reciprocal_rank_drawn": fmean(fmean(1 / rank for rank in range(1, each.lines + 1)) for each in found),
        "texts": len(texts),
        "text_first": asdict(share(sum(each.text == 1 for each in texts), len(texts))),
        "text_first_by_prior": asdict(share(sum(each.prior == 1 for each in texts), len(texts))),
        "text_reciprocal_rank": asdict(bootstrap([1 / each.text for each in texts], fmean, seed=seed)),
        "text_reciprocal_rank_by_prior": asdict(bootstrap([1 / each.prior for each in texts], fmean, seed=seed)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures and, last, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m riallm.eval.tasks.repair_choice", description="does it see bugs?")
    parser.add_argument("--model", default=DEFAULT, help=f"a shipped model or a folder (default: {DEFAULT})")
    parser.add_argument("--corpus", type=Path, default=cache_home() / "corpus" / "python_full", metavar="DIR")
    parser.add_argument("--num", type=int, default=400, help="functions (default 400)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        client = LocalClient(folder_of(options.model))
        repairs = list(repair_corpus.read(options.corpus, "validation"))
        random.Random(options.seed).shuffle(repairs)
        found: list[Choice] = []
        for repair in repairs:
            made = choose(client, repair)
            found += [made] if made else []
            if len(found) == options.num:
                break
        if not any(each.text for each in found):
            raise UsageError(f"{options.corpus} has no repairs to choose from; write them: riallm data repairs")
    except RiallmError as error:
        sys.stderr.write(f"repair_choice: {error}\n")
        return error.exit_code
    told = summary(found, options.seed)
    for name, value in told.items():
        text = f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if isinstance(value, dict) else value
        sys.stdout.write(f"{name:30} {text}\n")
    sys.stdout.write(json.dumps({"task": "repair_choice", "model": options.model, **told}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
