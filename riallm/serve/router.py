"""Several servers behind one address: a request goes where its prefix has been read before, else where least is to do.

The router reads a request's body to know its prefix and passes it on as it is; answers stream through. A server that
cannot be reached is left out until it answers again, and its request goes to another one as long as nothing has been
told. Routers of that kind stand before replicas of one model; for more than a few machines take an existing one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from riallm.core.errors import UsageError
from riallm.serve.errors import ApiError
from riallm.serve.guard import check_host
from riallm.serve.served import ServeOptions
from riallm.serve.wire import body_of

CHUNK = 512
"""Bytes of a body that are one step of its prefix."""

REMEMBERED = 1 << 16
"""Steps whose server is known; the oldest are forgotten."""

OWN = {"host", "content-length", "connection", "transfer-encoding", "keep-alive", "date", "server"}
"""Headers that belong to one connection and are not passed on."""


@dataclass(slots=True)
class Backend:
    """A server: how many requests it has now, and until when it is left out (monotonic seconds)."""

    url: str
    running: int = 0
    asked: int = 0
    out_until: float = field(default=0.0)


class Prefixes:
    """Which server has read which beginning of a body."""

    def __init__(self) -> None:
        self._where: OrderedDict[bytes, Backend] = OrderedDict()

    def steps(self, body: bytes) -> list[bytes]:
        """A key for each whole chunk, which says all that stands before as well."""
        found, running = [], hashlib.blake2b(digest_size=16)
        for at in range(0, len(body) - CHUNK + 1, CHUNK):
            running.update(body[at : at + CHUNK])
            found.append(running.digest())
        return found

    def longest(self, steps: Sequence[bytes], among: Sequence[Backend]) -> Backend | None:
        """The server that has read most of it."""
        for step in reversed(steps):
            backend = self._where.get(step)
            if backend is not None and backend in among:
                return backend
        return None

    def note(self, steps: Sequence[bytes], backend: Backend) -> None:
        """It has read all of it now."""
        for step in steps:
            self._where[step] = backend
            self._where.move_to_end(step)
        while len(self._where) > REMEMBERED:
            self._where.popitem(last=False)


class Router:
    """Chooses servers and passes requests on."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        options: ServeOptions | None = None,
        most_behind: int = 8,
        out_seconds: float = 5.0,
    ) -> None:
        """options: names and the longest body, as servers have them; keys are the servers' business. most_behind: a
        known prefix is not worth a queue so much longer. Raises UsageError without servers."""
        if not urls:
            raise UsageError("a router needs the address of at least one server")
        self.backends = [Backend(url.rstrip("/")) for url in urls]
        self.prefixes = Prefixes()
        self._options = options or ServeOptions()
        self._most_behind, self._out_seconds = most_behind, out_seconds
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(600.0, connect=5.0), limits=httpx2.Limits(max_connections=None)
        )

    def choose(self, steps: Sequence[bytes], tried: Sequence[Backend]) -> Backend | None:
        """The server for a body of these steps, None when all were tried."""
        left = [each for each in self.backends if each not in tried]
        able = [each for each in left if each.out_until <= time.monotonic()] or left
        if not able:
            return None
        idlest = min(able, key=lambda each: (each.running, each.asked))
        known = self.prefixes.longest(steps, able)
        return known if known is not None and known.running - idlest.running < self._most_behind else idlest

    async def answer(self, request: Request) -> Response:
        """Pass a request on; what the server says comes back as it is."""
        try:
            # The servers see the router's name for them, so that only here a foreign one can be seen.
            check_host(request.headers.get("host", ""), {"localhost", *self._options.hosts})
            body = await body_of(request, self._options.max_body_bytes)
        except ApiError as error:
            return JSONResponse(error.body, status_code=error.status)
        steps = self.prefixes.steps(body)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in OWN}
        tried: list[Backend] = []
        while (backend := self.choose(steps, tried)) is not None:
            tried.append(backend)
            backend.running += 1
            backend.asked += 1
            try:
                sent = self._client.build_request(
                    request.method,
                    f"{backend.url}{request.url.path}",
                    params=request.query_params,
                    headers=headers,
                    content=body,
                )
                found = await self._client.send(sent, stream=True)
            except httpx2.TransportError:
                backend.running -= 1
                backend.out_until = time.monotonic() + self._out_seconds
                continue
            except BaseException:
                backend.running -= 1
                raise
            self.prefixes.note(steps, backend)
            passed = {name: value for name, value in found.headers.items() if name.lower() not in OWN}
            return StreamingResponse(self._through(backend, found), status_code=found.status_code, headers=passed)
        nobody = ApiError(503, "None of the servers behind this router can be reached; come again.", code="no_server")
        return JSONResponse(nobody.body, status_code=nobody.status)

    async def _through(self, backend: Backend, found: httpx2.Response) -> AsyncGenerator[bytes, None]:
        """The answer's bytes; a client that goes away ends the request at the server as well."""
        try:
            async for piece in found.aiter_raw():
                yield piece
        finally:
            backend.running -= 1
            await asyncio.shield(found.aclose())

    def load(self) -> Mapping[str, object]:
        """What each server has to do."""
        now = time.monotonic()
        return {
            "servers": [
                {"url": each.url, "running": each.running, "asked": each.asked, "reached": each.out_until <= now}
                for each in self.backends
            ]
        }

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.aclose()


def create_router(urls: Sequence[str], options: ServeOptions | None = None) -> FastAPI:
    """An application that passes everything on to the servers, but `/router`, which says how they are."""
    router = Router(urls, options=options)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await router.close()

    app = FastAPI(title="riallm router", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)

    async def state(request: Request) -> Response:
        return JSONResponse(router.load())

    app.add_api_route("/router", state, methods=["GET"])
    app.add_api_route("/{path:path}", router.answer, methods=["GET", "POST", "OPTIONS", "DELETE"])
    return app
