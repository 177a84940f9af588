"""What stands before every request: who may come in, under which name, and what is written down of it."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from riallm.core.errors import RiallmError
from riallm.serve.answer import Tally
from riallm.serve.errors import ApiError, of_engine
from riallm.serve.metrics import Metrics
from riallm.serve.served import ServeOptions, key_hash

OPEN = frozenset({"/", "/health", "/v1/health"})
"""Paths that need no key: they tell nothing of anybody's request."""

SENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger("riallm.serve")


class Guard:
    """The outermost layer: Host and Origin, the key, a name for the request, its line in the log, its metrics, and an
    answer in OpenAI's shape for whatever goes wrong further in."""

    def __init__(self, app: ASGIApp, *, options: ServeOptions, metrics: Metrics) -> None:
        self._app, self._options, self._metrics = app, options, metrics
        self._hosts = {"localhost", *(host.lower() for host in options.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if SENT_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        tally = Tally()
        scope.setdefault("state", {})["tally"] = tally
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = name
            await send(message)

        try:
            try:
                self._admit(scope["path"], headers)
                await self._app(scope, receive, noted)
            except Exception as error:
                if status:  # the answer has begun, so nothing can be said any more
                    raise
                await _told(error)(scope, receive, noted)
        finally:
            seconds = time.monotonic() - tally.begun
            self._metrics.finished(tally, status, seconds)
            if self._options.log is not None:
                self._options.log(_line(name, tally, status, seconds))

    def _admit(self, path: str, headers: Mapping[str, str]) -> None:
        self._check_host(headers.get("host", ""))
        self._check_origin(headers.get("origin"), headers.get("host", ""))
        if self._options.keys and path not in OPEN:
            self._check_key(headers.get("authorization", ""))

    def _check_host(self, host: str) -> None:
        """A page that has its own name point here (DNS rebinding) is known by that name; an address is no name."""
        check_host(host, self._hosts)

    def _check_origin(self, origin: str | None, host: str) -> None:
        """A page of another site may send a request without asking, even where it may not read the answer."""
        if origin is None or "*" in self._options.origins or origin in self._options.origins:
            return
        if urlsplit(origin).netloc.lower() != host.lower():
            raise ApiError(403, f"Pages of '{origin[:100]}' may not call this server; allow the origin.", code="origin")

    def _check_key(self, authorization: str) -> None:
        kind, _, key = authorization.partition(" ")
        given = key_hash(key.strip())
        # Every key is compared, so that the time says nothing of which one is near.
        fits = [hmac.compare_digest(given, known) for known in self._options.keys]
        if kind.lower() != "bearer" or not any(fits):
            said = "No API key was given" if not authorization else "This API key is not known here"
            raise ApiError(
                401,
                f"{said}; send one of the server's keys in the header Authorization: Bearer KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def check_host(host: str, names: Collection[str]) -> None:
    """Raises ApiError, 403, unless a Host header has one of these names or is an address."""
    name = _host(host)
    if name not in names and not _is_address(name):
        raise ApiError(
            403,
            f"The host '{host[:100]}' is not served here; start the server with it as an allowed host.",
            code="host",
        )


def _told(error: Exception) -> JSONResponse:
    if isinstance(error, RiallmError):
        known = of_engine(error)
    else:
        log.exception("a request failed")
        known = ApiError(500, "The server failed; its log says why.", code="server_error")
    return JSONResponse(known.body, status_code=known.status, headers=known.headers)


def _line(name: str, tally: Tally, status: int, seconds: float) -> str:
    """What is written down: never what was said."""
    return json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": name,
            "endpoint": tally.endpoint,
            "model": tally.model,
            "status": status,
            "prompt_tokens": tally.prompt_tokens,
            "cached_tokens": tally.cached_tokens,
            "completion_tokens": tally.completion_tokens,
            "first_seconds": None if tally.first_seconds is None else round(tally.first_seconds, 4),
            "seconds": round(seconds, 4),
        }
    )


def _host(header: str) -> str:
    """The name of a Host header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0][1:].lower()
    return header.rpartition(":")[0].lower() if header.count(":") == 1 else header.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def endpoint_of(request: Request) -> Tally:
    """The tally of a request, with the route's own path: what a client made up is written down nowhere."""
    tally: Tally = request.state.tally
    route = request.scope.get("route")
    tally.endpoint = route.path if isinstance(route, Route) else "other"
    return tally
