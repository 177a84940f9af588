"""POST /v1/embeddings: a vector for each text."""

from __future__ import annotations

import base64
import struct
from typing import Any

from riallm.serve.answer import in_thread
from riallm.serve.asking import Room
from riallm.serve.completions import prompts_of
from riallm.serve.errors import ApiError
from riallm.serve.wire import EmbeddingBody


async def embeddings(room: Room, body: EmbeddingBody) -> dict[str, Any]:
    """The answer. Raises ApiError for a model without embeddings, and for a text that the context has no room for."""
    if not room.served.embeds:
        raise ApiError(501, f"The model '{room.name}' has no embeddings.", param="model", code="not_implemented")
    rows = await in_thread(lambda: _rows(room, body))
    vectors = await in_thread(lambda: room.served.engine.embed(rows))
    num = sum(map(len, rows))
    room.tally.prompt_tokens = num
    shown = [_base64(vector) if body.encoding_format == "base64" else vector for vector in vectors]
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(shown)],
        "model": room.name,
        "usage": {"prompt_tokens": num, "total_tokens": num},
    }


def _rows(room: Room, body: EmbeddingBody) -> list[list[int]]:
    rows = [list(room.served.prompts.text(prompt, files=()).ids) for prompt in prompts_of(body.input)]
    context = room.served.engine.context
    longest = max(map(len, rows))
    if longest > context:
        raise ApiError(
            400,
            f"This model's maximum context length is {context} tokens, however you requested {longest} tokens in one "
            "input. Please reduce it.",
            param="input",
            code="context_length_exceeded",
        )
    return rows


def _base64(vector: list[float]) -> str:
    """Little-endian numbers of 4 bytes, as OpenAI's client reads them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
