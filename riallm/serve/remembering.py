"""Which conversation a response goes on with, and under which id its own memory is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from riallm.engine.memories import Lost, Memories, Place, Saying
from riallm.engine.request import Interaction
from riallm.engine.sessions import Conflict, UnknownSession
from riallm.serve.asking import Room
from riallm.serve.errors import ApiError, refused
from riallm.serve.served import Prompt
from riallm.serve.wire_responses import ConversationRef, ResponseBody


class Remembering:
    """Of one response. A model without a memory keeps nothing, and nothing can be gone on with."""

    def __init__(self, room: Room, body: ResponseBody) -> None:
        """Raises ApiError for what cannot be honoured."""
        self._memories: Memories | None = room.served.memories
        named = body.conversation
        self._conversation = named.id if isinstance(named, ConversationRef) else named
        self._previous = body.previous_response_id
        self.saying: Saying | None = None
        self._after: Place | None = None
        if self._memories is None:
            for name in ("store", "previous_response_id", "conversation"):
                if getattr(body, name) not in (None, False):
                    raise refused(
                        name,
                        f"'{name}' is not supported: the model '{room.name}' keeps no conversations; send the whole "
                        "input, and store false.",
                    )
        if self._previous is not None and self._conversation is not None:
            raise refused(
                "previous_response_id",
                "'previous_response_id' and 'conversation' both say where it goes on; give one of them.",
                code="mutually_exclusive_parameters",
            )
        self.stores = self._memories is not None and body.store is not False

    @property
    def told(self) -> dict[str, Any]:
        """Of the response's object."""
        conversation = None if self._conversation is None else {"id": self._conversation}
        return {"store": self.stores, "previous_response_id": self._previous, "conversation": conversation}

    def interaction(self, prompt: Prompt) -> Interaction | None:
        """What the engine is told; whoever gets an error, here or later, calls `drop`. Raises ApiError: 404 for an id
        that there is not any more or never was, 409 while somebody else speaks in the conversation, 500 once where what
        was said there last is not remembered."""
        if self._memories is None:
            return None
        with told_to_clients(self._previous, self._conversation):
            self._after = self._place(self._memories)
            place = self._memories.read(self._after, prompt.history)
        return Interaction(memory=place.memory, after=None if self.saying is None else self.saying.after)

    def drop(self) -> None:
        """It is not asked after all."""
        if self.saying is not None:
            self.saying.drop()

    def why(self, error: ApiError) -> ApiError:
        """What a client is told whose answer failed. If it waited for a memory that could not be kept, it is told so as
        whoever comes later."""
        memory = None if self._after is None else self._after.memory
        missing = memory.exception() if memory is not None and memory.done() else None
        if missing is None:
            return error
        known = isinstance(missing, UnknownSession)
        try:
            with told_to_clients(self._previous, self._conversation):
                raise missing if known else (Lost if self._conversation else UnknownSession)(str(missing))
        except ApiError as told:
            return told

    def _place(self, memories: Memories) -> Place:
        if not self.stores:
            if self._conversation is not None:
                return memories.at(self._conversation)
            return memories.new() if self._previous is None else memories.behind(self._previous)
        if self._conversation is not None:
            self.saying = memories.respond_in(self._conversation)
        else:
            self.saying = memories.respond(self._previous)
        return self.saying.place


@contextmanager
def told_to_clients(response: str | None, conversation: str | None, *, previous: bool = True) -> Iterator[None]:
    """What the store refuses, in the words of the API. previous: the response is one that a request goes on from."""
    try:
        yield
    except UnknownSession as error:
        if conversation is not None:
            message = f"Conversation with id '{conversation[:100]}' not found: {error}."
            raise ApiError(404, message, param="conversation", code="conversation_not_found") from None
        message = f"with id '{(response or '')[:100]}' not found: {error}."
        if not previous:
            raise ApiError(404, f"Response {message}", param="response_id", code="response_not_found") from None
        message, code = f"Previous response {message}", "previous_response_not_found"
        raise ApiError(404, message, param="previous_response_id", code=code) from None
    except Lost as error:
        # Clients ask again by themselves where the server failed, and then nobody would hear of it.
        headers = {"x-should-retry": "false"}
        raise ApiError(500, f"{error}.", param="conversation", code="interaction_lost", headers=headers) from None
    except Conflict as error:
        param, code = (
            (None, "response_in_progress") if conversation is None else ("conversation", "conversation_locked")
        )
        raise ApiError(409, f"{error}.", param=param, code=code) from None
