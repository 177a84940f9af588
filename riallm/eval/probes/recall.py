"""What a memory carries, measured on the tell/ask task beside controls on the same weights.

The controls: `reset`, the memory of a new conversation; `swap`, the memory of another conversation at the same place;
`unread`, a decoder that looks at no memory. If one of them answered as well, the memory would not be what answers.

Letters: B conversations, N interactions, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from riallm.data.tell_ask import NONE, TellAskConfig, Turn, conversation, interaction
from riallm.eval.stats import mean, share

if TYPE_CHECKING:
    from torch import Tensor

    from riallm.models.episodes import Episodes
    from riallm.models.rxt import RxT

CONDITIONS = ("memory", "reset", "swap", "unread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question for a value. condition: what the decoder looked at. right: it gave the value; stale: the one that was
    overwritten; none: that it was never told; donor: with swapped memory, the value of that key in the conversation
    that the memory is of, None where it was not told there. nats: of the value, among all values."""

    condition: str
    distance: int
    live: int
    retold: bool
    right: bool
    stale: bool
    none: bool
    donor: bool | None
    nats: float


def batch(config: TellAskConfig, first: int, num: int) -> tuple[list[list[Turn]], Episodes]:
    """Conversations `first` to `first + num`, as turns and as tokens."""
    from riallm.models.episodes import Interaction, episodes

    turns = [conversation(config, number) for number in range(first, first + num)]
    rows = [[Interaction(*interaction(turn)) for turn in each] for each in turns]
    return turns, episodes(rows, num_tokens=config.max_tokens)


def ask(model: RxT, config: TellAskConfig, *, num: int, rows: int = 64) -> list[Asked]:
    """At least `num` questions, each under every condition; conversations are drawn by the configuration's seed."""
    import torch

    from riallm.models.episodes import decoded, written

    def one(data: Episodes) -> Iterator[tuple[str, Tensor]]:
        memories = written(model, data.tokens, data.mask)[:-1]
        start = [memories[0]] * len(memories)
        swapped = [memory.rows(torch.arange(memory.num_rows).roll(1)) for memory in memories]
        for condition, read in zip(CONDITIONS, (memories, start, swapped, start), strict=True):
            yield condition, decoded(model, data.tokens, data.mask, read, read=condition != "unread")[0]

    return _asked(model, config, one, num=num, rows=rows)


def ask_reader(model: RxT, config: TellAskConfig, *, num: int, rows: int = 64) -> list[Asked]:
    """The same questions to a decoder that reads the whole conversation anew each time: the condition `history`."""
    from riallm.models.episodes import reread

    def one(data: Episodes) -> Iterator[tuple[str, Tensor]]:
        yield "history", reread(model, data.tokens, data.mask)[0]

    return _asked(model, config, one, num=num, rows=rows)


def _asked(
    model: RxT,
    config: TellAskConfig,
    hidden: Callable[[Episodes], Iterator[tuple[str, Tensor]]],
    *,
    num: int,
    rows: int,
) -> list[Asked]:
    """hidden: a batch -> its hidden states (B, N, T, D) by condition."""
    import torch

    found: list[Asked] = []
    first = questions = 0
    while questions < num:
        turns, data = batch(config, first, rows)
        first += rows
        questions += sum(turn.kind == "ask" for each in turns for turn in each)
        with torch.inference_mode():
            for condition, states in hidden(data):
                found += _judged(model, states, turns, data, config, condition)
    return found


def _judged(
    model: RxT, hidden: Tensor, turns: Sequence[Sequence[Turn]], data: Episodes, config: TellAskConfig, condition: str
) -> list[Asked]:
    """The questions of one batch, from hidden (B, N, T, D)."""
    import torch

    places = [(row, at) for row, each in enumerate(turns) for at, turn in enumerate(each) if turn.kind == "ask"]
    asked = [turns[row][at] for row, at in places]
    rows, ats = (torch.tensor(each) for each in zip(*places, strict=True))
    before = data.answers[rows, ats].int().argmax(dim=-1) - 1
    logits = model.logits(hidden[rows, ats, before])
    said = logits.argmax(dim=-1).tolist()
    values = logits[:, config.first_value : config.first_value + config.num_values].log_softmax(dim=-1)
    found = []
    for number, (turn, (row, at)) in enumerate(zip(asked, places, strict=True)):
        told = _told(turns[row - 1], at, turn.key) if condition == "swap" else None
        found.append(
            Asked(
                condition=condition,
                distance=turn.distance,
                live=turn.live,
                retold=turn.stale is not None,
                right=said[number] == turn.answer[0],
                stale=said[number] == turn.stale,
                none=said[number] == NONE,
                donor=None if told is None else said[number] == told,
                nats=-float(values[number, turn.answer[0] - config.first_value]),
            )
        )
    return found


def _told(turns: Sequence[Turn], before: int, key: int | None) -> int | None:
    """The value id that a conversation told last of a key, before an interaction."""
    told = [turn.query[-1] for turn in turns[:before] if turn.kind in ("tell", "retell") and turn.key == key]
    return told[-1] if told else None


def table(asked: Sequence[Asked], *, num_values: int) -> dict[str, Any]:
    """Figures with intervals: exact answers by condition and distance, with memory by live facts and after a change;
    what swapped memory answers; information recovered, 1 - nats / ln(values): 0 is none, 1 all of it."""
    found: dict[str, Any] = {"questions": sum(each.condition == asked[0].condition for each in asked)}
    for condition in dict.fromkeys(each.condition for each in asked):
        these = [each for each in asked if each.condition == condition]
        nats = mean([1.0 - each.nats / math.log(num_values) for each in these])
        found[condition] = {
            "exact": told(these, lambda each: each.right),
            "none": told(these, lambda each: each.none),
            "information": asdict(nats),
            "by_distance": _by(these, lambda each: each.distance),
        }
        if condition in ("memory", "history"):
            found[condition]["by_live"] = _by(these, lambda each: each.live)
            retold = [each for each in these if each.retold]
            found[condition]["retold"] = told(retold, lambda each: each.right)
            found[condition]["retold_stale"] = told(retold, lambda each: each.stale)
        if condition == "swap":
            donor = [each for each in these if each.donor is not None]
            found[condition]["donor"] = told(donor, lambda each: bool(each.donor))
    return found


def told(asked: Sequence[Asked], right: Callable[[Asked], bool]) -> dict[str, Any]:
    """A share, with its interval and number."""
    return asdict(share(sum(map(right, asked)), len(asked)))


def _by(asked: Sequence[Asked], of: Callable[[Asked], int]) -> dict[str, Any]:
    groups = sorted({of(each) for each in asked})
    return {
        str(group): told([each for each in asked if of(each) == group], lambda each: each.right) for group in groups
    }
