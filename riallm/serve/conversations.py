"""Conversations as OpenAI has them, of models with a memory: a name for the place where the last response stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from riallm.engine.memories import Memories
from riallm.engine.sessions import UnknownSession
from riallm.serve.answer import in_thread
from riallm.serve.asking import House, Room
from riallm.serve.errors import ApiError
from riallm.serve.remembering import told_to_clients

_T = TypeVar("_T")


async def create(room: Room) -> dict[str, Any]:
    """POST /v1/conversations: one in which nothing was said. Raises ApiError 501 for a model without a memory."""
    memories = room.served.memories
    if memories is None:
        raise ApiError(501, f"The model '{room.name}' keeps no conversations.", param="model", code="not_implemented")
    id = await in_thread(memories.begin)
    return _told(id, await in_thread(lambda: memories.store.begun(id)))


async def show(house: House, id: str) -> dict[str, Any]:
    """GET /v1/conversations/{id}. Raises ApiError 404."""
    return _told(id, await _known(house, lambda memories: memories.store.begun(id), conversation=id))


async def forget(house: House, id: str) -> dict[str, Any]:
    """DELETE /v1/conversations/{id}, with all memories that lead to its head and to no other. Raises ApiError 404, and
    409 while a request is answered in it."""
    await _known(house, lambda memories: memories.forget(id), conversation=id)
    return {"id": id, "object": "conversation.deleted", "deleted": True}


async def delete(house: House, id: str) -> dict[str, Any]:
    """DELETE /v1/responses/{id}: the memory behind one response. Raises ApiError 404, and 409 while it is answered."""
    await _known(house, lambda memories: memories.delete(id), response=id)
    return {"id": id, "object": "response", "deleted": True}


async def _known(
    house: House, call: Callable[[Memories], _T], *, response: str | None = None, conversation: str | None = None
) -> _T:
    """What the first model says that knows the id. Raises ApiError 404 where none does."""

    def work() -> _T:
        error = UnknownSession("no model here keeps any")
        with told_to_clients(response, conversation, previous=False):
            for served in house.models.values():
                if served.memories is not None:
                    try:
                        return call(served.memories)
                    except UnknownSession as unknown:
                        error = unknown
            raise error

    return await in_thread(work)


def _told(id: str, begun: float) -> dict[str, Any]:
    return {"id": id, "object": "conversation", "created_at": int(begun), "metadata": {}}
