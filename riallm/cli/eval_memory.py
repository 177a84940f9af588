"""`riallm eval memory`: what a model with a memory remembers of a conversation in English, beside controls."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riallm.core.errors import UsageError
from riallm.core.picture import check_plot

if TYPE_CHECKING:
    from riallm.eval.probes.rxt_talker import RxTTalker

DESCRIPTION = (
    "What a model with a memory remembers of a conversation: facts told, changed and asked back among others, by the "
    "number of interactions between. The same questions with a new memory (reset), with another conversation's (swap), "
    "and with none (unread) are the controls. Conversations of --turns interactions, and of two and four times as many."
)
LENGTHS = (1, 2, 4)
"""Conversations that are asked in, as multiples of --turns."""
MAX_ROWS = 256
"""Conversations side by side."""
MAX_TURNS = 256
"""Of the shortest conversations: four times as many are held as well, one interaction after the other."""
TESTED = 1_000_000
"""Added to the seed, so that no conversation of the `train` split is one that was trained on."""
SHOWN = (1, 2, 4, 8, 16, 32)
"""Distances that the table shows; JSON and picture have all."""
LEGEND = """\
reset: a new memory
swap: another conversation's, with which the donor's value is what was told there
unread: no look at any memory
exact: the answer has the value, right to the last character
never told: the answer says so
nats: of the tokens of the right value; fewer are better
distance: interactions since it was told
facts told: so many could be asked for
"""


def add(tasks: Any) -> None:
    """The parser of the task."""
    parser = tasks.add_parser("memory", help="what is remembered of a conversation", description=DESCRIPTION)
    option = parser.add_argument
    option("--model", default="rxt-nano", metavar="NAME|DIR", help="a model with a memory (default: rxt-nano)")
    option(
        "--questions",
        type=int,
        default=1000,
        metavar="N",
        help="for facts, at each length, or a few more (default 1000)",
    )
    option(
        "--split",
        choices=("test", "unseen", "train"),
        default="test",
        help="test: sentences and values that training never has; unseen: and words too; train: new conversations of "
        "the training's sentences and values (default: test)",
    )
    option(
        "--turns",
        type=int,
        default=12,
        metavar="N",
        help="interactions of the shortest conversations, at most 256 (default 12)",
    )
    option("--seed", type=int, default=0, help="of the conversations (default 0)")
    option("--device", default="cpu", help="cpu, cuda:0 (default: cpu)")
    option("--plot", type=Path, metavar="SVG", help="draw exact answers by distance")
    option("--json", action="store_true", help="no tables; the last line of stdout is one JSON object either way")


def run(options: argparse.Namespace) -> int:
    """0 when it was measured. Raises UsageError for options that mean nothing, and for a model without a memory."""
    from riallm.bench.progress import progress_bar
    from riallm.cli.eval import finite
    from riallm.core.config import to_json
    from riallm.data.conversations.conversation import ConversationConfig
    from riallm.eval.probes.counted import table
    from riallm.eval.probes.talk import ask

    if options.questions < 1:
        raise UsageError(f"--questions is {options.questions}; it is at least 1")
    if not 2 <= options.turns <= MAX_TURNS:
        raise UsageError(
            f"--turns is {options.turns}; it is 2 to {MAX_TURNS}. Conversations of four times as many are held as well"
        )
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}; it is at least 0, so that none was trained on")
    if options.plot:
        check_plot(options.plot)
    talker, name = _talker(options)
    began = time.monotonic()
    config = ConversationConfig(num_turns=options.turns, split=options.split, seed=TESTED + options.seed)
    tables: dict[str, Any] = {}
    done = 0
    with progress_bar(f"asking {name}", len(LENGTHS) * options.questions) as show:

        def hear(num: int) -> None:
            nonlocal done
            done += num
            show(done)

        for place, factor in enumerate(LENGTHS):
            longer = replace(config, num_turns=factor * options.turns)
            rows = min(MAX_ROWS, max(2, 3 * options.questions // longer.num_turns))  # over a third of turns ask
            tables[f"{factor}x"] = table(ask(talker, longer, num=options.questions, rows=rows, hear=hear))
            done = (place + 1) * options.questions
    if options.plot:
        from riallm.eval.probes.plot import draw

        draw(tables, options.plot, title=f"{name}, {options.split} split, {options.turns} interactions")
    if not options.json:
        _show(tables, options)
    told = {
        "task": "memory",
        "model": name,
        "split": options.split,
        "turns": options.turns,
        "seed": options.seed,
        "conversations": to_json(config),
        **tables,
        **_facts(options, time.monotonic() - began),
    }
    sys.stdout.write(json.dumps(finite(told)) + "\n")
    return 0


def _talker(options: argparse.Namespace) -> tuple[RxTTalker, str]:
    """The model and its name. Raises UsageError for a model that has no memory."""
    from riallm.core.shipped import folder_of

    folder = folder_of(options.model)
    try:
        told = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise UsageError(f"{folder}/config.json is no JSON: {error}. Get the model again") from None
    family = told.get("model_type") if isinstance(told, dict) else None
    if family != "rxt":
        raise UsageError(
            f"{options.model} is of the family {family!r}, which has no memory to ask about; name a model of the "
            "family 'rxt', such as one that `riallm train` made"
        )
    try:
        from riallm.eval.probes.rxt_talker import RxTTalker
        from riallm.models.load import TOKENIZER, load_rxt
        from riallm.tokenizer.saved import load
    except ImportError as error:
        raise UsageError(f"models need more than the core: {error}. Run: pip install 'riallm[models]'") from None
    model = load_rxt(folder)
    try:
        model.to(options.device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {options.device}: {error}") from None
    return RxTTalker(model, load(folder / TOKENIZER)), folder.name


def _facts(options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Date, command and machine; the command repeats the measurement."""
    from riallm.bench.card import machine

    words = ["riallm", "eval", "memory"]
    for name in ("model", "questions", "split", "turns", "seed", "device"):
        words += [f"--{name}", str(getattr(options, name))]
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(words),
        **machine(),
        "seconds_of_this_call": round(seconds, 1),
    }


def _show(tables: dict[str, Any], options: argparse.Namespace) -> None:
    """What a person reads: the conditions beside each other, then what is asked with the memory."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for length, found in tables.items():
        turns = int(length[:-1]) * options.turns
        title = f"{options.split}: {found['questions']} questions in conversations of {turns} interactions"
        conditions = Table("", "exact, %", "95 % interval", "never told, %", "donor's value, %", "nats", title=title)
        for name, each in found.items():
            if name != "questions":
                shares = (*_cells(each["exact"])[:2], _cells(each["none"])[0], _cells(each.get("donor"))[0])
                conditions.add_row(name, *shares, f"{each['nats']['value']:.2f}")
        console.print(conditions)
        memory = found["memory"]
        details = Table("with the memory", "exact, %", "95 % interval", "questions")
        for distance in map(str, SHOWN):
            if distance in memory["by_distance"]:
                details.add_row(f"distance {distance}", *_cells(memory["by_distance"][distance]))
        for live, each in memory["by_live"].items():
            details.add_row(f"facts told: {live}", *_cells(each))
        details.add_row("after a change", *_cells(memory["retold"]))
        details.add_row("after a change, the old value", *_cells(memory["retold_stale"]))
        details.add_row("never told, and says so", *_cells(memory.get("untold")))
        console.print(details)
    sys.stdout.write(LEGEND)


def _cells(each: dict[str, Any] | None) -> tuple[str, str, str]:
    """A share, its interval, and of how many."""
    if each is None or not each["num"]:
        return "-", "-", "-"
    return f"{100 * each['value']:.1f}", f"[{100 * each['low']:.1f}, {100 * each['high']:.1f}]", str(each["num"])
