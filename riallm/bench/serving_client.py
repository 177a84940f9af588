"""One client of a server: asks, reads the stream to its end, and knows an answer from a refusal and from a loss."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from riallm.bench.card import Figure

if TYPE_CHECKING:
    import httpx2


Body = Mapping[str, Any]
_T = TypeVar("_T")

SILENCE = 120.0
"""Seconds without a byte after which an answer is lost."""


class RefusedError(Exception):
    """The server said no: a status from 400 to 499."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class LostError(Exception):
    """Neither an answer nor a refusal came: another status, a stream that was cut or failed, or nothing at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Seconds since it was asked for, to the first text and to the end. last: the last JSON of the stream."""

    text: str
    first_seconds: float
    seconds: float
    last: Body

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer, as the server counts them."""
        usage = self.last.get("usage") or {"completion_tokens": self.last.get("tokens_predicted", 0)}
        return int(usage["completion_tokens"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model is asked to go on with a text."""

    path: str

    def body(self, text: str, max_tokens: int, **more: Any) -> dict[str, Any]:
        """A greedy request, streamed, with its tokens counted."""
        prompt = {"messages": [{"role": "user", "content": text}]} if "chat" in self.path else {"prompt": text}
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return {**prompt, "max_tokens": max_tokens, "temperature": 0.0, **options, **more}

    def long_body(self, text: str, max_tokens: int) -> dict[str, Any]:
        """The same with so much said of every token that the answer does not fit into what the system keeps for a
        reader who is slow."""
        more = {"logprobs": True, "top_logprobs": 20} if "chat" in self.path else {"logprobs": 5}
        return self.body(text, max_tokens, **more)


def connected(address: str, *, receive_bytes: int | None = None) -> httpx2.AsyncClient:
    """A client with as many connections as it needs; receive_bytes: that the system keeps of what was not read."""
    import httpx2

    options = [] if receive_bytes is None else [(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)]
    limits = httpx2.Limits(max_connections=None)
    transport = httpx2.AsyncHTTPTransport(limits=limits, socket_options=options, trust_env=False)
    timeout = httpx2.Timeout(SILENCE, connect=10.0)
    return httpx2.AsyncClient(base_url=address, transport=transport, timeout=timeout, trust_env=False)


async def ask(
    client: httpx2.AsyncClient, path: str, body: Body | bytes, *, leave_after: int | None = None, pause: float = 0.0
) -> Answer | None:
    """A streamed answer, read to its end; None when the client left before, after so many events. pause: seconds that
    it takes over each event. Raises RefusedError and LostError."""
    import httpx2

    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    began = time.perf_counter()
    try:
        async with client.stream("POST", path, content=data) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode("utf-8", "replace")
                if 400 <= response.status_code < 500:
                    raise RefusedError(response.status_code, text)
                raise LostError(f"{response.status_code}: {text[:300]}")
            return await _read(response, began, leave_after, pause)
    except httpx2.HTTPError as error:
        raise LostError(f"{type(error).__name__}: {error}") from None


async def _read(response: httpx2.Response, began: float, leave_after: int | None, pause: float) -> Answer | None:
    texts: list[str] = []
    first: float | None = None
    last: Body = {}
    ended = False
    num = 0
    if leave_after == 0:
        return None
    async for line in response.aiter_lines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            ended = True
            continue
        last = json.loads(line.removeprefix("data: "))
        if "error" in last:
            raise LostError(f"the stream said {json.dumps(last['error'])[:300]}")
        ended = ended or last.get("stop") is True
        text = _text_of(last)
        if text and first is None:
            first = time.perf_counter() - began
        texts.append(text)
        num += 1
        if num == leave_after:
            return None
        await asyncio.sleep(pause)
    if not ended:
        raise LostError(f"the stream was cut after {num} events")
    seconds = time.perf_counter() - began
    # An answer of no text is known only at its end.
    return Answer(text="".join(texts), first_seconds=seconds if first is None else first, seconds=seconds, last=last)


def _text_of(event: Body) -> str:
    if "choices" not in event:
        text: str = event.get("content", "")  # llama.cpp's events
        return text
    found = [choice.get("text") or (choice.get("delta") or {}).get("content") or "" for choice in event["choices"]]
    return "".join(found)


async def together(work: Iterable[Awaitable[_T]]) -> list[_T]:
    """All at once; the first that fails ends the others, and so does whoever gives up waiting."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def get(client: httpx2.AsyncClient, path: str) -> str:
    """What stands there. Raises LostError for anything but 200."""
    import httpx2

    try:
        found = await client.get(path)
    except httpx2.HTTPError as error:
        raise LostError(f"{path}: {type(error).__name__}: {error}") from None
    if found.status_code != 200:
        raise LostError(f"{path} answered {found.status_code}: {found.text[:300]}")
    return found.text


async def gauges(client: httpx2.AsyncClient) -> dict[str, float]:
    """The figures of /metrics by their names, those of several models together. Raises LostError without them."""
    from prometheus_client.parser import text_string_to_metric_families

    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(await get(client, "/metrics")):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def milliseconds(name: str, answers: Sequence[Answer]) -> dict[str, Figure]:
    """Of whole answers and of their first tokens."""
    whole_ms = [1000 * each.seconds for each in answers]
    first_ms = [1000 * each.first_seconds for each in answers]
    return {
        f"{name}_ms_p50": round(percentile(whole_ms, 0.5), 1),
        f"{name}_ms_p95": round(percentile(whole_ms, 0.95), 1),
        f"{name}_first_token_ms_p50": round(percentile(first_ms, 0.5), 1),
        f"{name}_first_token_ms_p95": round(percentile(first_ms, 0.95), 1),
    }
