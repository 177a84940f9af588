"""Many clients at once: how long each waits for its first token, and how many tokens all of them are given."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from riallm.bench.card import Figure
from riallm.bench.serving_client import Answer, Body, LostError, ask, milliseconds, together
from riallm.bench.serving_process import Server
from riallm.core.errors import UsageError

if TYPE_CHECKING:
    import httpx2


async def company(
    client: httpx2.AsyncClient,
    server: Server,
    path: str,
    bodies: Sequence[Body],
    *,
    clients: int,
    rounds: int,
    done: Callable[[float], None],
) -> dict[str, Figure]:
    """So many clients at once, each with a body that nobody has sent, in rounds; who is lost is counted. Raises
    UsageError for more requests than bodies, ClientError when the server ends."""
    if clients * rounds > len(bodies):
        raise UsageError(f"{clients} clients for {rounds} rounds need more texts than the {len(bodies)} that there are")
    lost: list[str] = []

    async def one(body: Body) -> Answer | None:
        try:
            return await ask(client, path, body)
        except LostError as error:
            lost.append(str(error))
            await asyncio.to_thread(server.check)
            return None

    answers: list[Answer] = []
    speeds: list[float] = []
    for number in range(rounds):
        began = time.perf_counter()
        asked = bodies[number * clients : (number + 1) * clients]
        found = [each for each in await together(map(one, asked)) if each is not None]
        speeds.append(sum(each.num_tokens for each in found) / (time.perf_counter() - began))
        answers += found
        done(number + 1)
    return {
        "clients": clients,
        "clients_requests": clients * rounds,
        "clients_lost": len(lost),
        "clients_lost_first": lost[0] if lost else None,
        "clients_tokens": sum(each.num_tokens for each in answers),
        "clients_tokens_a_second": statistics.median(speeds),
        **(milliseconds("clients", answers) if answers else {}),
    }
