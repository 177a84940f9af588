"""The sandbox that people hold: one policy on one tier, with the changes that were kept."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from riallm.core.errors import SandboxError, UsageError
from riallm.sandbox import apply, layer, staging
from riallm.sandbox.base import Applied, Change, Completed, Limits, Policy, Stop, Tier
from riallm.sandbox.output import Capture
from riallm.sandbox.process import Launcher, Sink, StderrTail, converse
from riallm.sandbox.spec import PROCESS, Result, Spec, drop_uid

_CLEAN_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "TERM": "dumb",
}
_NOT_A_WORKSPACE = ("/", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/dev", "/proc", "/sys", "/tmp", "/run")
_NOT_FOUND = 127
_PREFIX = "riallm-sandbox-"  # of our folders, then our process id


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, its output aside. moved: where the workspace stood inside, and where it really is."""

    returncode: int
    stopped: Stop | None
    seconds: float
    missing: bool
    moved: tuple[str, str]

    def shown(self, text: str) -> str:
        """`text` with the workspace's own path where the command saw that of its copy."""
        return text.replace(*self.moved) if self.moved[0] else text


class Started:
    """A long-lived command; see `base.Running`."""

    def __init__(self, launcher: Launcher, limit: int) -> None:
        self._launcher = launcher
        self.stdin: IO[bytes] = launcher.stdin
        self.stdout: IO[bytes] = launcher.stdout
        self._stderr = StderrTail(launcher.stderr, limit)
        self._result: Result | None = None

    def poll(self) -> int | None:
        """The return code (negative: a signal) once the command has ended, else None."""
        if self._result is None and self._launcher.has_message():
            self._result = self._launcher.next()
        return None if self._result is None else self._result.returncode

    def stderr_tail(self) -> str:
        """What the command wrote to stderr so far: cleaned, head and tail."""
        return self._stderr.text()

    def stopped(self) -> Stop | None:
        """Which limit ended it, once `poll` has given a return code."""
        return None if self._result is None else _stop(self._result)

    def close(self) -> None:
        """End all its processes and wait until they have ended."""
        self._launcher.end()
        self._stderr.join()
        self._launcher.close()
        if self._launcher.spec.scratch:
            layer.remove(os.fsencode(self._launcher.spec.scratch))


class LaunchedSandbox:
    """Implements `base.Sandbox` with a launcher process for every command.

    private: a folder of ours for kept changes and, in the weaker tiers, copies; gone after `close`.
    """

    def __init__(self, policy: Policy, tier: Tier, *, bubblewrap: str = "", disable_userns: bool = True) -> None:
        self.policy = policy
        self.tier = tier
        self._bubblewrap = bubblewrap
        self._disable_userns = disable_userns
        self._workspace = _workspace(policy.workspace)
        self._readable, self._links = _readable(policy)
        self.private = Path(_private_folder(tier))
        self._staging: Path | None = None
        self._in_use: list[Started] = []
        self.details: Mapping[str, str] = {}

    def exec(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
        keep: bool = False,
    ) -> Completed:
        """Run to its end or to a limit; see `base.Sandbox.exec`."""
        limits = limits or self.policy.limits
        stdout, stderr = Capture(limits.output_bytes), Capture(limits.output_bytes)
        ended = self.stream(argv, stdout, stderr, cwd=cwd, stdin=stdin, limits=limits, keep=keep)
        err = ended.shown(stderr.text())
        if ended.missing:
            err = f"{argv[0]}: cannot be started: no such program in the sandbox\n"
        return Completed(
            argv=tuple(argv), returncode=ended.returncode, stdout=ended.shown(stdout.text()), stderr=err,
            seconds=ended.seconds, stopped=ended.stopped, tier=self.tier,
        )  # fmt: skip

    def stream(
        self,
        argv: Sequence[str],
        stdout: Sink,
        stderr: Sink,
        *,
        cwd: Path | None = None,
        stdin: bytes | IO[bytes] = b"",
        limits: Limits | None = None,
        keep: bool = False,
    ) -> Ended:
        """Like `exec`, handing raw output to the sinks as it comes; `stdin` may be a pipe that is passed on."""
        limits = limits or self.policy.limits
        if keep:
            self._own_staging()
        spec = self._spec(argv, cwd, limits, limits.seconds, keep)
        try:
            launcher = Launcher(spec)
            try:
                self.details = {k: v for k, v in launcher.details.items() if k != PROCESS}
                result, flooded = converse(launcher, stdin, stdout, stderr, limits.output_bytes)
            finally:
                launcher.close()
        finally:
            if spec.scratch:
                layer.remove(os.fsencode(spec.scratch))
        return Ended(
            returncode=_NOT_FOUND if result.missing else result.returncode,
            stopped=Stop.OUTPUT if flooded else _stop(result),
            seconds=result.seconds,
            missing=result.missing,
            moved=(f"{spec.scratch}/work", spec.workspace) if spec.scratch else ("", ""),
        )

    def start(self, argv: Sequence[str], *, cwd: Path | None = None, limits: Limits | None = None) -> Started:
        """Start and leave running; see `base.Sandbox.start`."""
        limits = limits or self.policy.limits
        launcher = Launcher(self._spec(argv, cwd, limits, 0.0, False))
        self.details = {k: v for k, v in launcher.details.items() if k != PROCESS}
        started = Started(launcher, limits.output_bytes)
        self._in_use.append(started)
        return started

    def read_file(self, path: str) -> bytes:
        """Bytes of a workspace file as a command would see it."""
        return staging.read(self._workspace, self._staging, self._relative(path))

    def write_file(self, path: str, data: bytes) -> None:
        """Put a file where later commands see it."""
        relative = self._relative(path)
        staging.write(self._workspace, self._own_staging(), relative, data, drop_uid())

    def changes(self) -> tuple[Change, ...]:
        """What was kept so far."""
        return staging.changes(self._staging)

    def apply(self, destination: Path | None = None, *, below: str = "") -> Applied:
        """Bring the kept changes home; see `base.Sandbox.apply`."""
        if self._staging is None:
            return Applied()
        return apply.bring_home(self._staging, destination or self._workspace, below=below)

    def close(self) -> None:
        """End all processes and remove what was kept."""
        for started in self._in_use:
            started.close()
        self._in_use.clear()
        layer.remove(os.fsencode(self.private))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _spec(self, argv: Sequence[str], cwd: Path | None, limits: Limits, seconds: float, keep: bool) -> Spec:
        if not argv:
            raise UsageError("no command to run: argv is empty")
        if not self.private.exists():
            raise SandboxError("this sandbox is closed")
        env = _CLEAN_ENV | dict(self.policy.env)
        bad = [a for a in (*argv, *env, *env.values()) if "\0" in a]
        if bad:
            raise UsageError(f"a NUL character in an argument or a variable: {bad[0]!r}")
        if odd := [name for name in env if not name or "=" in name]:
            raise UsageError(f"{odd[0]!r} cannot be the name of a variable")
        return Spec(
            tier=self.tier, owner=os.getpid(), workspace=str(self._workspace), readable=self._readable,
            links=self._links, staging=str(self._staging or ""), keep=keep, argv=tuple(argv), env=env,
            cwd=str(cwd.resolve() if cwd else self._workspace), seconds=seconds,
            memory_bytes=limits.memory_bytes, disk_bytes=limits.disk_bytes, processes=limits.processes,
            open_files=limits.open_files, bubblewrap=self._bubblewrap, disable_userns=self._disable_userns,
            scratch=self._scratch(),
        )  # fmt: skip

    def _scratch(self) -> str:
        """A fresh folder for the tiers that work in a private copy on disk; its parents can be passed through."""
        if self.tier not in (Tier.LANDLOCK, Tier.NONE):
            return ""
        self.private.chmod(0o711)
        scratch = tempfile.mkdtemp(dir=self.private, prefix="run-")
        os.chmod(scratch, 0o711)
        return scratch

    def _own_staging(self) -> Path:
        """The staging folder, for changing it: a fresh copy while a running command has the old one mounted."""
        self._in_use = [s for s in self._in_use if s.poll() is None]
        old = self._staging
        if old is None or self._in_use:
            new = Path(tempfile.mkdtemp(dir=self.private, prefix="kept-"))
            if old is not None:
                layer.duplicate(os.fsencode(old), os.fsencode(new), drop_uid())
            self._staging = new
        assert self._staging is not None
        return self._staging

    def _relative(self, path: str) -> Path:
        given = Path(path)
        for base in (self.policy.workspace, self._workspace):
            if given.is_absolute() and given.is_relative_to(base):
                given = given.relative_to(base)
        if given.is_absolute() or ".." in given.parts or not given.parts:
            raise UsageError(f"{path!r} is not a path inside the workspace {self._workspace}")
        return given


def _private_folder(tier: Tier) -> str:
    """A new folder of ours; those of processes of ours that were killed are removed on the way."""
    place = Path(_temporary(tier))
    for old in place.glob(f"{_PREFIX}*-*"):
        owner = old.name[len(_PREFIX) :].partition("-")[0]
        with contextlib.suppress(OSError):
            info = old.lstat()
            mine = info.st_uid == os.geteuid() and stat.S_ISDIR(info.st_mode)
            if mine and owner.isdigit() and not Path("/proc", owner).exists():
                layer.remove(os.fsencode(old))
    return tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)


def _temporary(tier: Tier) -> str:
    """Where our folder goes: as usual, but where the uid that we drop to must pass through, to a place that lets it."""
    if tier is not Tier.LANDLOCK or drop_uid() is None:
        return tempfile.gettempdir()
    for place in map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if place.is_dir() and all(top.stat().st_mode & stat.S_IXOTH for top in (place, *place.parents)):
            return str(place)
    raise SandboxError("no folder for temporary files that another user may enter; looked at TMPDIR, /tmp, /var/tmp")


def _stop(result: Result) -> Stop | None:
    return Stop(result.stopped) if result.stopped in set(Stop) else None


def _workspace(path: Path) -> Path:
    try:
        real = path.resolve(strict=True)
    except OSError as error:
        raise UsageError(f"the workspace {path} cannot be opened: {error.strerror}") from error
    if not real.is_dir():
        raise UsageError(f"the workspace {path} is not a folder")
    if str(real) in _NOT_A_WORKSPACE or real.is_relative_to("/proc") or real.is_relative_to("/sys"):
        raise UsageError(f"{real} belongs to the system and cannot be a workspace; choose the project's own folder")
    return real


def _readable(policy: Policy) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Real paths of what is shown, and the other spellings in the policy that must lead there."""
    real, links = [], []
    for path in policy.readable:
        found = path.resolve()
        if not found.exists():
            raise UsageError(f"the readable path {path} does not exist")
        if str(found) == "/":
            raise UsageError("the whole file system cannot be made readable; name the folders that are needed")
        real.append(str(found))
    for path in (*policy.readable, policy.workspace):
        given = Path(os.path.abspath(path))
        if given != given.resolve():
            links.append((str(given), str(given.resolve())))
    return tuple(dict.fromkeys(real)), tuple(links)
