"""What a server says of itself: its models, its health, its load."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riallm import __version__
from riallm.core import device
from riallm.serve.served import Served


def models(served: Mapping[str, Served]) -> dict[str, Any]:
    """GET /v1/models"""
    return {"object": "list", "data": [model(name, each) for name, each in served.items()]}


def model(name: str, served: Served) -> dict[str, Any]:
    """GET /v1/models/{name}; the last three fields are ours. chats: it was trained to answer messages."""
    return {
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": served.owner,
        "max_model_len": served.engine.context,
        "note": served.note,
        "chats": served.tokenizer.chat_template is not None,
    }


def props(served: Mapping[str, Served]) -> dict[str, Any]:
    """GET /props, as llama.cpp's clients read it, of the first model."""
    name, first = next(iter(served.items()))
    return {
        "model_path": name,
        "model_alias": name,
        "build_info": f"riallm {__version__}",
        "total_slots": 1,
        "chat_template": first.tokenizer.chat_template or "",
        "modalities": {"vision": False, "audio": False},
        "default_generation_settings": {"n_ctx": first.engine.context},
    }


def load(served: Mapping[str, Served]) -> dict[str, Any]:
    """GET /load: figures of every engine, and bytes of memory of this process and of the machine."""
    machine = device.memory()
    return {
        "models": {name: dataclasses.asdict(each.engine.load()) for name, each in served.items()},
        "memory": {
            "process_bytes": _resident_bytes(),
            "available_bytes": machine.available_bytes,
            "total_bytes": machine.total_bytes,
        },
    }


def _resident_bytes() -> int | None:
    """Memory that this process holds; None where the system does not say (only Linux does)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), None)
