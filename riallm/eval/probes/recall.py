"""What a memory carries, measured on the tell/ask task beside controls on the same weights.

`counted` has the conditions. If a control answered as well, the memory would not be what answers.

Letters: B conversations, N interactions, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from riallm.data.tell_ask import NONE, TellAskConfig, Turn, conversation, interaction
from riallm.eval.probes.counted import CONDITIONS, Asked, Reader, check, table

if TYPE_CHECKING:
    from torch import Tensor

    from riallm.models.episodes import Episodes
    from riallm.models.rxt import RxT

__all__ = ["CONDITIONS", "Asked", "ask", "ask_reader", "batch", "table"]


def batch(config: TellAskConfig, first: int, num: int) -> tuple[list[list[Turn]], Episodes]:
    """Conversations `first` to `first + num`, as turns and as tokens; they begin with a memory of their own where that
    is drawn."""
    from riallm.models.episodes import Interaction, episodes

    turns = [conversation(config, number) for number in range(first, first + num)]
    rows = [[Interaction(*interaction(turn)) for turn in each] for each in turns]
    return turns, replace(episodes(rows, num_tokens=config.max_tokens), seed=first)


def ask(model: RxT, config: TellAskConfig, *, num: int, rows: int = 64) -> list[Asked]:
    """At least `num` questions, each under every condition; conversations are drawn by the configuration's seed. rows:
    conversations side by side, of which one lends another its memory. Raises UsageError as `counted.check`."""
    import torch

    from riallm.models.episodes import decoded, written

    def one(data: Episodes) -> Iterator[tuple[str, Tensor]]:
        memories = written(model, data.tokens, data.mask, seed=data.seed)[:-1]
        start = [memories[0]] * len(memories)
        swapped = [memory.rows(torch.arange(memory.num_rows).roll(1)) for memory in memories]
        for condition, read in zip(CONDITIONS, (memories, start, swapped, start), strict=True):
            yield condition, decoded(model, data.tokens, data.mask, read, read=condition != "unread")[0]

    return _asked(model, config, one, num=num, rows=rows)


def ask_reader(
    model: RxT, config: TellAskConfig, *, num: int, rows: int = 64, reader: Reader = "history"
) -> list[Asked]:
    """The same questions where nothing has to fit into slots: a ceiling, under the reader's name. history: the decoder
    reads the whole conversation anew each time, as one text. encodings: it has, in the memory's place, what the encoder
    made of each token of the earlier interactions."""
    from riallm.models.episodes import overheard, reread

    def one(data: Episodes) -> Iterator[tuple[str, Tensor]]:
        if reader == "history":
            yield reader, reread(model, data.tokens, data.mask)[0]
        else:
            yield reader, overheard(model, data.tokens, data.mask, seed=data.seed)[0]

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

    check(num=num, rows=rows, ask=config.ask)
    found: list[Asked] = []
    first = questions = 0
    while questions < num:
        turns, data = batch(config, first, rows)
        questions += sum(turn.kind == "ask" for each in turns for turn in each)
        with torch.inference_mode():
            for condition, states in hidden(data):
                found += _judged(model, states, turns, data, config, condition, first=first)
        first += rows
    return found


def _judged(
    model: RxT,
    hidden: Tensor,
    turns: Sequence[Sequence[Turn]],
    data: Episodes,
    config: TellAskConfig,
    condition: str,
    *,
    first: int,
) -> list[Asked]:
    """The questions of the batch of conversations from `first` on, from hidden (B, N, T, D)."""
    import torch

    places = [(row, at) for row, each in enumerate(turns) for at, turn in enumerate(each) if turn.kind == "ask"]
    if not places:
        return []
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
                conversation=first + row,
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
