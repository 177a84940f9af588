"""Conversations as OpenAI has them, of models with a memory: a name for the place where the last response stands."""

from __future__ import annotations

import time
from typing import Any

from riallm.engine.memories import Memories
from riallm.engine.sessions import UnknownSession
from riallm.serve.answer import in_thread
from riallm.serve.asking import House, Room
from riallm.serve.errors import ApiError
from riallm.serve.remembering import told_to_clients


async def create(room: Room) -> dict[str, Any]:
    """POST /v1/conversations: one in which nothing was said. Raises ApiError 501 for a model without a memory."""
    memories = room.served.memories
    if memories is None:
        raise ApiError(501, f"The model '{room.name}' keeps no conversations.", param="model", code="not_implemented")
    return _told(await in_thread(memories.begin))


async def show(house: House, id: str) -> dict[str, Any]:
    """GET /v1/conversations/{id}. Raises ApiError 404."""
    await in_thread(lambda: _found(house, id))
    return _told(id)


async def forget(house: House, id: str) -> dict[str, Any]:
    """DELETE /v1/conversations/{id}, with all memories that lead to its head and to no other. Raises ApiError 404, and
    409 while a request is answered in it."""

    def work() -> None:
        memories = _found(house, id)
        with told_to_clients(None, id):
            memories.forget(id)

    await in_thread(work)
    return {"id": id, "object": "conversation.deleted", "deleted": True}


async def delete(house: House, id: str) -> dict[str, Any]:
    """DELETE /v1/responses/{id}: the memory behind one response. Raises ApiError 404."""

    def work() -> None:
        error: UnknownSession | None = None
        for memories in _all(house):
            try:
                memories.delete(id)
                return
            except UnknownSession as unknown:
                error = unknown
        with told_to_clients(id, None):
            raise error or UnknownSession("no model here keeps any")

    await in_thread(work)
    return {"id": id, "object": "response", "deleted": True}


def _all(house: House) -> list[Memories]:
    return [served.memories for served in house.models.values() if served.memories is not None]


def _found(house: House, id: str) -> Memories:
    with told_to_clients(None, id):
        for memories in _all(house):
            if memories.store.head(id) is not None:
                return memories
        raise UnknownSession(f"there is no conversation {id!r}")


def _told(id: str) -> dict[str, Any]:
    return {"id": id, "object": "conversation", "created_at": int(time.time()), "metadata": {}}
