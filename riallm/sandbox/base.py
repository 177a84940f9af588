"""The contract of a sandbox: run a command in a view of a folder, within limits, and nothing survives it.

A sandbox shows `workspace` at its own path. What runs inside may write there, but the writes go to a capped
layer and are thrown away when the command ends, unless `keep=True`: then they are gathered in a staging
folder of ours, where later commands see them, and `changes()` and `apply()` (trusted side, no symlinks followed) bring
them home. The real folder is never written by what runs inside.

The environment is built from nothing: only `Policy.env` and a fixed allowlist. There is no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Protocol

MEGABYTE = 1 << 20


class Tier(StrEnum):
    """Kinds of isolation, strongest first. `NONE` only ever by `--unsafe`, and recorded."""

    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    NONE = "none"


class Stop(StrEnum):
    """Why a command ended before its own end."""

    TIME = "time"
    MEMORY = "memory"
    OUTPUT = "output"
    DISK = "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one command may use, all its processes together. Bytes and seconds."""

    seconds: float = 60.0
    memory_bytes: int = 512 * MEGABYTE
    disk_bytes: int = 100 * MEGABYTE  # in each of workspace, /tmp and /dev/shm
    processes: int = 200
    output_bytes: int = MEGABYTE  # kept of each of stdout and stderr: head and tail, the middle counted
    open_files: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is shown to the command.

    workspace: the folder it works on, at the same path inside.
    readable: further folders shown read-only at their own paths (an interpreter's prefix, a virtual environment).
    env: environment variables beside the fixed clean ones.
    """

    workspace: Path
    readable: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a command ended. Output is decoded, capped and free of control sequences."""

    argv: tuple[str, ...]
    returncode: int  # negative: the signal that ended it
    stdout: str
    stderr: str
    seconds: float
    stopped: Stop | None = None
    tier: Tier = Tier.NONE


class ChangeKind(StrEnum):
    """What happened to a path of the workspace."""

    WRITTEN = "written"
    DELETED = "deleted"
    LINK = "link"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One kept change; `path` is relative to the workspace, with `/`."""

    path: str
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was brought home, and what was refused, with the reason."""

    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


class Running(Protocol):
    """A long-lived command (the warm worker). `stdin`/`stdout` are raw pipes; close() ends all its processes."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def poll(self) -> int | None: ...
    def stderr_tail(self) -> str: ...
    def close(self) -> None: ...


class Sandbox(Protocol):
    """One policy, one tier. Usable as a context manager; close() removes staging and all processes.

    Raises SandboxError when the sandbox itself fails, never for what the command does.
    """

    policy: Policy
    tier: Tier

    def exec(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
        keep: bool = False,
    ) -> Completed:
        """Run to its end or to a limit. `cwd` defaults to the workspace."""
        ...

    def start(self, argv: Sequence[str], *, cwd: Path | None = None, limits: Limits | None = None) -> Running:
        """Start and leave running; limits other than `seconds` hold. `seconds` is the caller's business."""
        ...

    def read_file(self, path: str) -> bytes:
        """Bytes of a workspace file as a command would see it; FileNotFoundError when absent; UsageError outside."""
        ...

    def write_file(self, path: str, data: bytes) -> None:
        """Put a file where commands see it (staging, not the real folder); UsageError outside the workspace."""
        ...

    def changes(self) -> tuple[Change, ...]:
        """What was kept so far (`keep=True` and `write_file`), sorted by path."""
        ...

    def apply(self, destination: Path | None = None, *, below: str = "") -> Applied:
        """Write the kept changes into a real folder (default: the workspace), those at or below `below` only.

        No symlink is followed. Refused and told: symlinks that lead out, setuid bits, any `.git` but the content
        of the top one (never its hooks or config). SandboxError when the folder cannot be written.
        """
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Sandbox: ...
    def __exit__(self, *exc: object) -> None: ...
