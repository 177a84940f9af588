"""What the trusted side tells a launcher, and what the launcher answers: JSON over one socket pair."""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

# The uid and gid of what runs inside when we are started as root, on systems of every make: "nobody".
DROP_UID = 65534
PROCESS = "launcher"  # among the details: the launcher's process id, for our own use


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One launch. Paths are real (no symlinks); `links` are the symlinked spellings of them that must work too.

    `owner` is the process that asked: when it ends, so does all of this. Seconds of 0 mean no limit. `staging` is
    the folder of kept changes, in overlay format, "" for none.
    """

    tier: str
    owner: int
    workspace: str
    readable: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    staging: str
    keep: bool
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    seconds: float
    memory_bytes: int
    disk_bytes: int
    processes: int
    open_files: int
    scratch: str = ""  # a folder of ours on disk, for the tiers without mount namespaces
    bubblewrap: str = ""
    disable_userns: bool = True
    copy: bool = False  # a private copy instead of an overlay
    groups: bool = True  # control groups, where they can be made


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a launch ended, as the launcher saw it.

    failure: not empty when the sandbox itself failed. missing: the program could not be started inside.
    """

    returncode: int = 0
    stopped: str = ""
    seconds: float = 0.0
    failure: str = ""
    missing: bool = False
    details: dict[str, str] = field(default_factory=dict)


def drop_uid() -> int | None:
    """The uid to drop to: DROP_UID when this process is root, otherwise None (an ordinary user stays itself)."""
    return DROP_UID if os.geteuid() == 0 else None


def send(channel: socket.socket, value: Spec | Result) -> None:
    """Write one message: a length of 4 bytes, then JSON (lone surrogates of odd file names survive)."""
    data = json.dumps(asdict(value)).encode("ascii")
    channel.sendall(struct.pack("=I", len(data)) + data)


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """The next message as a dict, or None when the other side is gone."""
    head = _exactly(channel, 4)
    if head is None:
        return None
    body = _exactly(channel, struct.unpack("=I", head)[0])
    return None if body is None else json.loads(body)


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = channel.recv(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)
