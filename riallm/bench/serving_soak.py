"""Clients of all kinds at once, for as long as is asked for: none may be lost, and no answer may be another one.

Each takes its next turn when the last one is over: it asks and reads to the end; vanishes in the middle of the stream;
reads slowly an answer too long for the system to keep for it; or sends a body that means nothing. What each prompt is
answered when the server has nothing else to do is what it must be answered under load.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from riallm.bench.card import Figure
from riallm.bench.serving_client import LostError, RefusedError, ask, connected, gauges, get, together
from riallm.bench.serving_process import Server

if TYPE_CHECKING:
    import httpx2

WAYS: Mapping[str, float] = {"whole": 0.5, "vanish": 0.2, "slow": 0.15, "malformed": 0.15}
"""What a client does next, and how often."""
SLOW_PAUSE = 0.03
"""Seconds that a slow reader takes over each event."""
SLOW_BYTES = 4096
"""What the system keeps for it."""
CALM = 30.0
"""Seconds in which a server that nobody asks any more has to be idle."""
TOLD = 5
"""Losses that are told in full; there may be as many as requests."""


@dataclass(slots=True)
class Soak:
    """What is asked, and what it came to so far. bodies: greedy ones; long_bodies: those for slow readers."""

    path: str
    bodies: Sequence[dict[str, Any]]
    long_bodies: Sequence[dict[str, Any]]
    seed: int
    truth: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    resident: list[float] = field(default_factory=list)
    at_rest: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    async def run(self, server: Server, *, clients: int, seconds: float, done: Callable[[float], None]) -> None:
        """The answers without load, then the load, then whether all is as before. Raises ClientError when the server
        ends, LostError and RefusedError when there is no answer without load."""
        quick = connected(server.address)
        slow = connected(server.address, receive_bytes=SLOW_BYTES)
        async with quick, slow:
            for body in (*self.bodies, *self.long_bodies):
                answer = await ask(quick, self.path, body)
                assert answer is not None
                self.truth[id(body)] = answer.text
            before = await calm(quick)
            began = time.monotonic()
            watch = asyncio.ensure_future(self._watch(server, began, done))
            try:
                await together(
                    self._client(server, quick, slow, random.Random(f"{self.seed} {number}"), began + seconds)
                    for number in range(clients)
                )
            finally:
                watch.cancel()
                self.seconds = time.monotonic() - began
            self.at_rest = await self._rest(quick, server, before)

    def figures(self) -> dict[str, Figure]:
        """What is known so far; also of a soak that was stopped."""
        names = ("asked", "answered", "vanished", "refused", "busy", "lost", "differing")
        memory = self.resident
        return {
            "soak_seconds": self.seconds,
            **{f"soak_{name}": self.counts[name] for name in names},
            "soak_answered_slowly": self.counts["slow"],
            "soak_resident_mib_start": memory[0] if memory else None,
            "soak_resident_mib_middle": memory[len(memory) // 2] if memory else None,
            "soak_resident_mib_end": memory[-1] if memory else None,
            "soak_resident_mib_median": statistics.median(memory) if memory else None,
            **{f"soak_{name}": value for name, value in self.at_rest.items()},
        }

    def faults(self) -> list[str]:
        """What must not be, in words."""
        found = []
        if self.counts["lost"]:
            found.append(f"{self.counts['lost']} requests were neither answered nor refused")
        if self.counts["differing"]:
            found.append(f"{self.counts['differing']} answers differ from those without load")
        found += [f"{name} is {value:g} at the end" for name, value in self.at_rest.items() if value]
        return found

    async def _client(
        self, server: Server, quick: httpx2.AsyncClient, slow: httpx2.AsyncClient, draw: random.Random, until: float
    ) -> None:
        while time.monotonic() < until:
            (way,) = draw.choices(list(WAYS), list(WAYS.values()))
            self.counts["asked"] += 1
            try:
                if way == "malformed":
                    await ask(quick, self.path, malformed(draw, draw.choice(self.bodies)))
                    raise LostError("a body that means nothing was answered")
                body = draw.choice(self.long_bodies if way == "slow" else self.bodies)
                left = await ask(
                    slow if way == "slow" else quick,
                    self.path,
                    body,
                    leave_after=draw.randrange(8) if way == "vanish" else None,
                    pause=SLOW_PAUSE if way == "slow" else 0.0,
                )
                if left is None:
                    self.counts["vanished"] += 1
                    continue
                self.counts["answered"] += 1
                self.counts["slow"] += way == "slow"
                self.counts["differing"] += left.text != self.truth[id(body)]
            except RefusedError as error:
                if way == "malformed":
                    self.counts["refused"] += 1
                elif error.status == 429:
                    self.counts["busy"] += 1
                else:
                    self._lose(f"a body that is right was refused with {error}")
            except LostError as error:
                self._lose(str(error))
                await asyncio.to_thread(server.check)

    def _lose(self, reason: str) -> None:
        self.counts["lost"] += 1
        if self.counts["lost"] <= TOLD:
            sys.stderr.write(f"serving: lost: {reason}\n")

    async def _watch(self, server: Server, began: float, done: Callable[[float], None]) -> None:
        while True:
            resident = server.resident_mib()
            if resident is not None:
                self.resident.append(resident)
            done(time.monotonic() - began)
            await asyncio.sleep(0.5)

    async def _rest(self, client: httpx2.AsyncClient, server: Server, before: Mapping[str, float]) -> dict[str, float]:
        """What is left when nobody asks any more; all of it has to be 0."""
        after = await calm(client)
        resident = server.resident_mib()
        if resident is not None:
            self.resident.append(resident)
        healthy = json.loads(await get(client, "/health")) == {"status": "ok"}
        used = "riallm_pages_used"
        return {
            "running_left": after["riallm_requests_running"],
            "waiting_left": after["riallm_requests_waiting"],
            "pages_left": after[used] - before[used],
            "unhealthy": float(not healthy),
        }


async def calm(client: httpx2.AsyncClient) -> dict[str, float]:
    """The gauges when nothing runs or waits, or those after CALM seconds: who vanished is let go with the next step."""
    until = time.monotonic() + CALM
    while True:
        found = await gauges(client)
        busy = found["riallm_requests_running"] + found["riallm_requests_waiting"] + found["riallm_pages_used"]
        if not busy or time.monotonic() > until:
            return found
        await asyncio.sleep(0.1)


def malformed(draw: random.Random, good: Mapping[str, Any]) -> dict[str, Any] | bytes:
    """A body with one thing wrong."""
    asked = "messages" if "messages" in good else "prompt"
    wrong: list[dict[str, Any] | bytes] = [
        b'{"model": ',
        b"\xff\xfe",
        {**good, asked: 5},
        {**good, "temprature": 1},
        {**good, "max_tokens": -1},
        {**good, "model": "nobody"},
        {name: value for name, value in good.items() if name != asked},
    ]
    return draw.choice(wrong)
