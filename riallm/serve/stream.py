"""Server-sent events that end when their reader does: one that vanishes, or reads nothing for too long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from riallm.core.errors import RiallmError
from riallm.serve.answer import gone, too_long
from riallm.serve.errors import ApiError, of_engine

DONE = b"data: [DONE]\n\n"

log = logging.getLogger("riallm.serve")


def event(value: Any, *, name: str | None = None) -> bytes:
    """One event; what it says is one line of JSON."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'), allow_nan=False)}\n\n".encode()


class EventStream(Response):
    """Sends what `events` gives. An error on the way is an event of its own (`failed` makes it), since the status is
    out already. on_end is called once, whatever happened."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        on_end: Callable[[], object],
        request_seconds: float,
        stall_seconds: float,
        failed: Callable[[ApiError], bytes],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._events, self._on_end = events, on_end
        self._request_seconds, self._stall_seconds = request_seconds, stall_seconds
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.ensure_future(self._write(send))
        watching = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({writing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        finally:
            self._on_end()
            for task in (writing, watching):
                task.cancel()
            await asyncio.gather(writing, watching, return_exceptions=True)
            with contextlib.suppress(RuntimeError):  # it was just being cancelled
                await self._events.aclose()

    async def _write(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await self._send(send, start)
        try:
            async with asyncio.timeout(self._request_seconds):
                async for data in self._events:
                    await self._send(send, {"type": "http.response.body", "body": data, "more_body": True})
        except _StalledError:
            return  # whoever reads nothing is told nothing
        except TimeoutError:
            await self._last(send, too_long(self._request_seconds))
        except RiallmError as error:
            await self._last(send, of_engine(error))
        except Exception:
            log.exception("a stream failed")
            await self._last(send, ApiError(500, "The server failed; its log says why.", code="server_error"))
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _last(self, send: Send, error: ApiError) -> None:
        await self._send(send, {"type": "http.response.body", "body": self._failed(error), "more_body": True})

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await send(message)
        except TimeoutError:
            raise _StalledError from None


class _StalledError(Exception):
    """The client reads nothing."""
