"""What an editor waits for: a hole that is asked for again after every few characters, as llama.vim asks for it.

Once so much Python stands around the hole as the model holds with what is typed, four fifths of it before the cursor:
the first request reads all of it, and those that follow find most of it read already. Once there are as many lines as
llama.vim sends by itself: where the model does not hold them, what is left out grows by a step now and then.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riallm.bench.card import Figure
from riallm.bench.own_text import whole
from riallm.bench.serving_client import Answer, RefusedError, ask, milliseconds
from riallm.core.errors import ClientError, UsageError

if TYPE_CHECKING:
    import httpx2

TOKENS = 1500
"""Around the hole, where the model can hold as many."""
TYPED = 3
"""Characters from one request to the next."""
BEFORE = 0.8
"""Of the text, what stands before the cursor."""
BEFORE_LINES, AFTER_LINES = 256, 64
SPARE = 32
"""Tokens for markers and the file's name, and since the number of tokens of a text is not known to the last one."""
COLD = 5
"""Texts that nobody has sent, for the median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """before and after: what surrounds what is being typed."""

    before: str
    typed: str
    after: str

    def body(self, num_typed: int, n_predict: int, *, head: str = "") -> dict[str, Any]:
        """What llama.vim sends when so many characters are typed, but as a stream, for the first token. head: a line
        that both sides begin with, so that no page of it is one of another text, whichever side is read first."""
        lines, newline, prompt = (head + self.before + self.typed[:num_typed]).rpartition("\n")
        return {
            "input_prefix": lines + newline,
            "input_suffix": f"\n{head}{self.after}" if head else self.after,
            "input_extra": [],
            "prompt": prompt,
            "n_predict": n_predict,
            "n_indent": len(prompt) - len(prompt.lstrip()),
            "top_k": 40,
            "top_p": 0.9,
            "samplers": ["top_k", "top_p", "infill"],
            "t_max_prompt_ms": 500,
            "t_max_predict_ms": 1000,
            "cache_prompt": True,
            "stream": True,
        }


async def infill(
    client: httpx2.AsyncClient,
    *,
    context: int,
    requests: int,
    n_predict: int,
    tokens: int | None,
    done: Callable[[float], None],
) -> dict[str, Figure]:
    """Milliseconds of answers while somebody types, and of the first one. tokens: around the hole, None for TOKENS or
    as many as fit. Raises UsageError when there are more than the model holds."""
    most = context - n_predict - SPARE
    if most < 2 * SPARE or (tokens or 0) > most:
        raise UsageError(f"the model holds {context} tokens, so {n_predict} of an answer leave {most} around a hole")
    try:
        hole = await fitted(client, min(TOKENS, most) if tokens is None else tokens, requests * TYPED)
    except RefusedError as error:
        if error.status == 501:
            return {"infill": "the model fills no holes"}
        raise ClientError(f"a hole was refused with {error}") from None
    lines = by_lines(whole(), requests * TYPED)
    figures = await typing(client, hole, "infill", requests, n_predict, done)
    more = await typing(client, lines, "infill_lines", requests, n_predict, lambda number: done(requests + number))
    return {**figures, "infill_lines_around": BEFORE_LINES + AFTER_LINES, **more}


async def typing(
    client: httpx2.AsyncClient, hole: Hole, name: str, requests: int, n_predict: int, done: Callable[[float], None]
) -> dict[str, Figure]:
    """A request after every few characters, and a few for texts that nobody has sent."""
    cold = [await _asked(client, hole.body(0, n_predict, head=f"# {number}\n")) for number in range(COLD - 1)]
    cold.append(await _asked(client, hole.body(0, n_predict)))
    warm = []
    for number in range(1, requests + 1):
        warm.append(await _asked(client, hole.body(number * TYPED, n_predict)))
        done(number)
    return {
        f"{name}_requests": len(warm),
        f"{name}_prompt_tokens": statistics.median(_told(warm, "tokens_evaluated")),
        f"{name}_answer_tokens": statistics.median(_told(warm, "tokens_predicted")),
        f"{name}_reused_tokens": statistics.median(_told(warm, "tokens_cached")),
        f"{name}_read_tokens": statistics.median(each.last["timings"]["prompt_n"] for each in warm),
        **milliseconds(name, warm),
        f"{name}_cold_reused_tokens": max(_told(cold, "tokens_cached")),
        f"{name}_cold_ms_median": round(1000 * statistics.median(each.seconds for each in cold), 1),
        f"{name}_cold_first_token_ms_median": round(1000 * statistics.median(each.first_seconds for each in cold), 1),
    }


async def fitted(client: httpx2.AsyncClient, tokens: int, num_typed: int) -> Hole:
    """A hole whose text has about so many tokens when all is typed; the server itself counts them. Raises UsageError
    where what is typed leaves no room for anything else."""
    text = whole()
    num_chars = tokens // 2  # too few, so that nothing is cut off while it is counted
    for number in range(4):
        hole = cut(text[:num_chars], num_typed)
        answer = await _asked(client, hole.body(num_typed, 0, head=f"# counted {number}\n"))
        num_chars = round(num_chars * tokens / answer.last["tokens_evaluated"])
        if num_chars < 2 * num_typed:
            raise UsageError(f"{num_typed} typed characters do not fit into {tokens} tokens; ask for fewer requests")
    return cut(text[:num_chars], num_typed)


def cut(text: str, num_typed: int) -> Hole:
    """The cursor stands at the beginning of a line, and what is typed is what stands there in truth."""
    at = text.rfind("\n", 0, max(1, int(BEFORE * (len(text) - num_typed)))) + 1
    end = text.find("\n", at + num_typed)
    return Hole(before=text[:at], typed=text[at : at + num_typed], after="" if end < 0 else text[end:])


def by_lines(text: str, num_typed: int) -> Hole:
    """What llama.vim shows by default, from the middle of a text: so many lines before the cursor, and behind it."""
    at = text.index("\n", len(text) // 2) + 1
    end = text.index("\n", at + num_typed)
    before, after = text[:at].splitlines(keepends=True), text[end:].splitlines(keepends=True)
    return Hole(
        before="".join(before[-BEFORE_LINES:]), typed=text[at : at + num_typed], after="".join(after[: AFTER_LINES + 1])
    )


def _told(answers: Sequence[Answer], name: str) -> list[int]:
    return [each.last[name] for each in answers]


async def _asked(client: httpx2.AsyncClient, body: dict[str, Any]) -> Answer:
    answer = await ask(client, "/infill", body)
    assert answer is not None
    return answer
