"""The world that attacks are run in: fake secrets, folders, listeners and victims, all made for it and removed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_VICTIM = (
    "import ctypes, os, sys, time; held = ctypes.create_string_buffer(sys.argv[2].encode(), 64);"
    "fd = os.open(sys.argv[3], 0); print(ctypes.addressof(held), fd, flush=True); time.sleep(600)"
)

SEGMENTS = Path("/proc/sysvipc/shm")


class Listeners:
    """Sockets of every kind that is tried; what they receive is kept."""

    def __init__(self, folder: Path) -> None:
        self.received = b""
        self._lock = threading.Lock()
        self.abstract = f"riallm-{secrets.token_hex(6)}"
        self.path = str(folder / "docker.sock")
        self._sockets: list[socket.socket] = []
        self.tcp = self._add(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self.udp = self._add(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self.tcp6 = 0
        with contextlib.suppress(OSError):
            self.tcp6 = self._add(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0))
        self._add(socket.AF_UNIX, socket.SOCK_STREAM, self.path)
        self._add(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self.abstract)

    def listen_at(self, path: Path) -> None:
        """One more listener, at a path."""
        self._add(socket.AF_UNIX, socket.SOCK_STREAM, str(path))

    def got(self, mark: bytes) -> bool:
        """Whether `mark` came in; what was sent a moment ago is waited for."""
        end = time.monotonic() + 0.6
        while mark not in self.received and time.monotonic() < end:
            time.sleep(0.01)
        return mark in self.received

    def close(self) -> None:
        """Close all; their threads end."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _add(self, family: int, kind: int, address: object) -> int:
        one = socket.socket(family, kind)
        one.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            one.listen(16)
        self._sockets.append(one)
        threading.Thread(target=self._take, args=(one, kind), daemon=True).start()
        name = one.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    def _take(self, one: socket.socket, kind: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                if kind == socket.SOCK_DGRAM:
                    self._keep(one.recv(1000))
                    continue
                peer, _ = one.accept()
                with peer:
                    peer.settimeout(3)
                    self._keep(peer.recv(1000))

    def _keep(self, data: bytes) -> None:
        with self._lock:
            self.received += data


@dataclass(slots=True)
class World:
    """A folder of one's own per attack, and what all attacks share."""

    base: Path
    secret: str = field(default_factory=lambda: f"secret-{secrets.token_hex(12)}")
    token: str = field(default_factory=lambda: f"token-{secrets.token_hex(8)}")
    inherited: list[int] = field(default_factory=list)
    listeners: Listeners = field(init=False)
    victim: subprocess.Popen[bytes] = field(init=False)
    address: int = 0
    descriptor: int = 0

    def __post_init__(self) -> None:
        self.listeners = Listeners(self.base)
        self.secret_file.parent.mkdir(parents=True)
        self.secret_file.write_text(self.secret)
        os.environ["RIALLM_FAKE_TOKEN"] = self.secret  # what a careless start would hand on
        for path in (self.secret_file, self.base):
            descriptor = os.open(path, os.O_RDONLY)
            os.set_inheritable(descriptor, True)
            self.inherited.append(descriptor)
        self.victim = self.new_victim()
        assert self.victim.stdout is not None
        self.address, self.descriptor = map(int, self.victim.stdout.readline().split())

    @property
    def secret_file(self) -> Path:
        """The fake key in the fake home folder."""
        return self.base / "home" / ".ssh" / "id_rsa"

    def new_victim(self) -> subprocess.Popen[bytes]:
        """A process that holds the secret in its memory, its arguments and its environment."""
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _VICTIM, self.token, self.secret, str(self.secret_file)],
            stdout=subprocess.PIPE,
            env={"SECRET": self.secret, "TOKEN": self.token},
        )

    def close(self) -> None:
        """End the victim, the listeners, and remove the folder."""
        end(self.victim)
        self.listeners.close()
        for descriptor in self.inherited:
            os.close(descriptor)
        os.environ.pop("RIALLM_FAKE_TOKEN", None)
        remove(self.base)


@dataclass(slots=True)
class Scene:
    """One attack's own folders, marks and victim."""

    world: World
    folder: Path
    token: str
    victim: subprocess.Popen[bytes] | None = None
    started: subprocess.Popen[bytes] | None = None  # a free run, to be ended
    key: int = field(default_factory=lambda: secrets.randbelow(1 << 30) + 1)
    before: tuple[object, ...] = ()

    def state(self) -> tuple[object, ...]:
        """What an attack may have changed of a file and a process outside."""
        path = self.folder / "outside" / "existing"
        file = path.stat()
        process = self.victim.pid if self.victim else 0
        return (
            file.st_mode, file.st_mtime_ns, tuple(os.listxattr(path)),
            resource.prlimit(process, resource.RLIMIT_NOFILE), os.getpriority(os.PRIO_PROCESS, process),
            os.sched_getaffinity(process),
        )  # fmt: skip

    def remove_segment(self) -> None:
        """Remove the shared memory segment that the attack may have left."""
        found = [line.split()[1] for line in SEGMENTS.read_text().splitlines() if line.split()[0] == str(self.key)]
        for number in found:
            subprocess.run(["ipcrm", "-m", number], check=True)

    @property
    def workspace(self) -> Path:
        """The folder that the command works on."""
        return self.folder / "project"

    @property
    def prefix(self) -> Path:
        """A folder shown read-only, as an interpreter's prefix is."""
        return self.folder / "prefix"

    @property
    def mark(self) -> str:
        """What the attack tries to leave."""
        return f"mark-{self.token}"

    def argument(self, *, inside: bool) -> str:
        """What the attack is told."""
        world = self.world
        disk = next((p for p in sorted(Path("/dev").glob("*")) if p.is_block_device()), None)
        device = disk.stat().st_rdev if disk else 0
        told = {
            "workspace": str(self.workspace), "secret_file": str(world.secret_file),
            "sibling_file": str(self.folder / "sibling" / "secret.txt"), "outside": str(self.folder / "outside"),
            "startup": str(self.folder / "outside" / ".bashrc"), "prefix": str(self.prefix), "mark": self.mark,
            "token": self.token if self.victim is None else world.token, "inside": inside,
            "disk": [os.major(device), os.minor(device)], "disk_path": str(disk or "/dev/none"),
            "victim": (self.victim or world.victim).pid, "victim_address": world.address,
            "victim_fd": world.descriptor, "tcp": world.listeners.tcp, "tcp6": world.listeners.tcp6,
            "udp": world.listeners.udp, "socket": world.listeners.path, "abstract": world.listeners.abstract,
            "key": self.key, "inner_socket": str(self.workspace / "agent.sock"), "shared_token": world.token,
        }  # fmt: skip
        return json.dumps(told)


def scene(world: World, number: int, *, victim: bool) -> Scene:
    """Make the folders of one attack."""
    made = Scene(world, world.base / f"s{number}", f"{world.token}-{number}", world.new_victim() if victim else None)
    for name in ("project/data", "project/.git/hooks", "project/.git/refs", "sibling", "outside", "prefix"):
        (made.folder / name).mkdir(parents=True)
    (made.folder / f"note-{world.secret}").touch()
    (made.folder / "sibling" / "secret.txt").write_text(world.secret)
    (made.folder / "outside" / "existing").write_text("as before\n")
    (made.workspace / "data" / "file").write_text("data\n")
    (made.workspace / "link").symlink_to(made.folder / "outside")
    (made.workspace / ".git" / "config").write_text("[core]\n\tbare = false\n")
    (made.workspace / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    world.listeners.listen_at(made.workspace / "agent.sock")
    made.before = made.state()
    return made


def living(token: str) -> Iterator[int]:
    """Ids of processes other than this one that have `token` among their arguments."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and token.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    yield int(name)


def sweep(token: str) -> None:
    """End what is left of an attack."""
    for _ in range(200):
        left = list(living(token))
        if not left:
            return
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours and forget it."""
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def remove(folder: Path) -> None:
    """Remove a folder in which odd permissions may stand."""
    for top, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(top, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)
