"""The routes of a server, over models that somebody else has opened and closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response

from riallm import __version__
from riallm.core.errors import UsageError
from riallm.serve import conversations, listing, responses
from riallm.serve.answer import Answers, unless_gone
from riallm.serve.asking import House, Room
from riallm.serve.chat import Chat
from riallm.serve.completions import Completion
from riallm.serve.embeddings import embeddings
from riallm.serve.errors import ApiError
from riallm.serve.guard import Guard, endpoint_of
from riallm.serve.infill import Infill
from riallm.serve.metrics import Metrics
from riallm.serve.page import page, policy
from riallm.serve.served import Served, ServeOptions
from riallm.serve.stream import EventStream
from riallm.serve.wire import CompletionBody, EmbeddingBody, InfillBody, Wire, read
from riallm.serve.wire_chat import ChatBody
from riallm.serve.wire_responses import ConversationBody, ResponseBody

BODIES: Mapping[str, type[Wire]] = {
    "chat": ChatBody,
    "completions": CompletionBody,
    "embeddings": EmbeddingBody,
    "responses": ResponseBody,
    "conversations": ConversationBody,
    "infill": InfillBody,
}
"""endpoint, as `fields.TABLE` calls it -> what its honoured fields are."""

_B = TypeVar("_B", bound=Wire)


class Answering(Protocol):
    """One request that the engine answers with text: in one, or as events."""

    @property
    def answers(self) -> Answers: ...
    async def ask(self) -> None: ...
    async def whole(self) -> dict[str, Any]: ...
    def chunks(self) -> AsyncGenerator[bytes, None]: ...
    def failed(self, error: ApiError) -> bytes: ...


def create_app(models: Mapping[str, Served], options: ServeOptions) -> FastAPI:
    """An application that answers for the models, the first of which is meant where a request names none."""
    if not models:
        raise UsageError("there is no model to serve; give at least one")
    house, metrics = House(models, options), Metrics(models)
    # The pages with documentation load scripts from elsewhere.
    app = FastAPI(title="riallm", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, options=options, metrics=metrics)
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
        )
    app.add_exception_handler(HTTPException, _no_route)
    _add_answers(app, house)
    _add_conversations(app, house)
    _add_listing(app, house, metrics)
    _describe(app)
    return app


def _add_answers(app: FastAPI, house: House) -> None:
    async def chat(request: Request) -> Response:
        room, body = await _enter(request, house, ChatBody, "chat")
        return await _answered(Chat(room, body), request, room, stream=body.stream)

    async def completions(request: Request) -> Response:
        room, body = await _enter(request, house, CompletionBody, "completions")
        return await _answered(Completion(room, body), request, room, stream=body.stream)

    async def respond(request: Request) -> Response:
        room, body = await _enter(request, house, ResponseBody, "responses")
        return await _answered(responses.Response(room, body), request, room, stream=body.stream)

    async def infill(request: Request) -> Response:
        room, body = await _enter(request, house, InfillBody, "infill")
        return await _answered(Infill(room, body), request, room, stream=body.stream)

    async def embed(request: Request) -> Response:
        room, body = await _enter(request, house, EmbeddingBody, "embeddings")
        return JSONResponse(await embeddings(room, body))

    _post(app, "/v1/chat/completions", chat, ChatBody, "/chat/completions")
    _post(app, "/v1/completions", completions, CompletionBody, "/completions")
    _post(app, "/v1/responses", respond, ResponseBody, "/responses")
    _post(app, "/v1/embeddings", embed, EmbeddingBody, "/embeddings")
    _post(app, "/infill", infill, InfillBody)


def _add_conversations(app: FastAPI, house: House) -> None:
    async def create(request: Request) -> Response:
        room, _ = await _enter(request, house, ConversationBody, "conversations")
        return JSONResponse(await conversations.create(room))

    _post(app, "/v1/conversations", create, ConversationBody, "/conversations")
    for method, path, call in (
        ("GET", "/v1/conversations/{id}", conversations.show),
        ("DELETE", "/v1/conversations/{id}", conversations.forget),
        ("DELETE", "/v1/responses/{id}", conversations.delete),
    ):

        async def by_id(request: Request, call: Callable[[House, str], Awaitable[Any]] = call) -> Response:
            endpoint_of(request)
            return JSONResponse(await call(house, request.path_params["id"]))

        for name in (path, path.removeprefix("/v1")):
            app.add_api_route(name, by_id, methods=[method], include_in_schema=name == path)


def _add_listing(app: FastAPI, house: House, metrics: Metrics) -> None:
    html = page()
    headers = {"Content-Security-Policy": policy(html), "X-Content-Type-Options": "nosniff"}

    async def root(request: Request) -> Response:
        endpoint_of(request)
        return HTMLResponse(html, headers=headers)

    async def models(request: Request) -> Response:
        endpoint_of(request)
        return JSONResponse(listing.models(house.models))

    async def model(request: Request) -> Response:
        room = house.find(request.path_params["name"], endpoint_of(request))
        return JSONResponse(listing.model(room.name, room.served))

    async def health(request: Request) -> Response:
        endpoint_of(request)
        return JSONResponse({"status": "ok"})

    async def props(request: Request) -> Response:
        endpoint_of(request)
        return JSONResponse(listing.props(house.models))

    async def load(request: Request) -> Response:
        endpoint_of(request)
        return JSONResponse(listing.load(house.models))

    async def figures(request: Request) -> Response:
        endpoint_of(request)
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, get in (
        ("/", root),
        ("/v1/models", models),
        ("/v1/models/{name:path}", model),
        ("/health", health),
        ("/props", props),
        ("/load", load),
        ("/metrics", figures),
    ):
        app.add_api_route(path, get, methods=["GET"])
        if path.startswith("/v1/"):
            app.add_api_route(path.removeprefix("/v1"), get, methods=["GET"], include_in_schema=False)
    app.add_api_route("/v1/health", health, methods=["GET"], include_in_schema=False)


def _post(
    app: FastAPI, path: str, call: Callable[[Request], Awaitable[Response]], body: type[Wire], *others: str
) -> None:
    """A route, and the same under other names that clients use."""
    described = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}},
        }
    }
    for at, name in enumerate((path, *others)):
        app.add_api_route(
            name,
            call,
            methods=["POST"],
            openapi_extra=described,
            include_in_schema=at == 0,
            responses={code: {"description": "an error in OpenAI's shape"} for code in (400, 404, 413, 429)},
        )


async def _enter(request: Request, house: House, kind: type[_B], endpoint: str) -> tuple[Room, _B]:
    """The checked body, and the model that it is for."""
    tally = endpoint_of(request)
    try:
        async with asyncio.timeout(house.options.request_seconds):
            body = await read(request, kind, endpoint, max_bytes=house.options.max_body_bytes)
    except TimeoutError:
        raise ApiError(408, "The body did not arrive in time.", code="timeout") from None
    return house.find(getattr(body, "model", None), tally), body


async def _answered(work: Answering, request: Request, room: Room, *, stream: bool | None) -> Response:
    await work.ask()
    options = room.options
    if stream:
        return EventStream(
            work.chunks(),
            on_end=work.answers.cancel,
            failed=work.failed,
            request_seconds=options.request_seconds,
            stall_seconds=options.stall_seconds,
        )
    try:
        return JSONResponse(await unless_gone(request, work.whole(), seconds=options.request_seconds))
    finally:
        work.answers.cancel()


async def _no_route(request: Request, error: Exception) -> Response:
    """What the router refuses: a path that there is not, a method that it does not have."""
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, f"{error.detail}: {request.method} is not answered there.", code="no_route")
    return JSONResponse(told.body, status_code=told.status, headers=dict(error.headers or {}))


def _describe(app: FastAPI) -> None:
    """The wire types in /openapi.json: routes read bodies themselves, so that errors have OpenAI's shape."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = plain()
            parts = made.setdefault("components", {}).setdefault("schemas", {})
            for body in BODIES.values():
                schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
                parts.update(schema.pop("$defs", {}))
                parts[body.__name__] = schema
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]
