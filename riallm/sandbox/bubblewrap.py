"""First tier: bubblewrap around the built tree. Always as an ordinary user, also when we were started as root."""

from __future__ import annotations

import json
import os

from riallm.sandbox import root, seccomp
from riallm.sandbox.cgroup import Group
from riallm.sandbox.child import Child, limit_processes
from riallm.sandbox.spec import Spec

ACCOUNT = (1000, 1000)  # what the command sees as its own uid and gid


def options(spec: Spec, *, filter_fd: int, status_fd: int, block_fd: int) -> list[str]:
    """Bubblewrap's options for a tree built by `root.build`."""
    args = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    args += ["--unshare-cgroup-try", *(["--disable-userns"] if spec.disable_userns else []), "--die-with-parent"]
    args += ["--new-session", "--cap-drop", "ALL", "--hostname", "sandbox"]
    args += ["--uid", str(ACCOUNT[0]), "--gid", str(ACCOUNT[1]), "--clearenv"]
    for name, value in spec.env.items():
        args += ["--setenv", name, value]
    args += ["--bind", os.fsdecode(root.ROOT), "/", "--dev", "/dev", "--bind", os.fsdecode(root.SHM), "/dev/shm"]
    args += ["--remount-ro", "/dev", "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--remount-ro", "/"]
    args += ["--json-status-fd", str(status_fd), "--seccomp", str(filter_fd), "--block-fd", str(block_fd)]
    return [*args, "--chdir", spec.cwd]


class Bubblewrap(Child):
    """A running bubblewrap. Its status channel tells the inner process first, and the exit code at the end."""

    def __init__(self, spec: Spec, group: Group | None) -> None:
        super().__init__(spec, group)
        self._status, self._write_status = os.pipe()
        self._text = b""

    def start(self) -> None:
        """Start, wait until the inner side stands, set its process limit, and let it go."""
        program = _in_memory(seccomp.program(counted=self.group is not None))
        block_read, block_write = os.pipe()
        words = options(self.spec, filter_fd=program, status_fd=self._write_status, block_fd=block_read)
        # by a descriptor, for the command line of a process can be read by everyone on the machine
        told = _in_memory(b"".join(os.fsencode(word) + b"\0" for word in words))
        passed = (program, told, self._write_status, block_read)
        args = [self.spec.bubblewrap, "--args", str(told), "--", *self.spec.argv]
        self.kept = set(passed)
        self.spawn(lambda: self._become(args, passed))
        for descriptor in passed:
            os.close(descriptor)
        inner = self._inner()
        if inner and self.group is None:
            limit_processes(inner, self.spec.processes)
        os.write(block_write, b"x")
        os.close(block_write)

    def _become(self, args: list[str], passed: tuple[int, ...]) -> None:
        for descriptor in passed:
            os.set_inheritable(descriptor, True)
        if self.group is not None:
            self.group.join()
        self.limit()
        self.become_user()
        os.execve(self.spec.bubblewrap, args, {})

    def _inner(self) -> int:
        """Id of the process inside, 0 when bubblewrap ended before it had one."""
        while b"child-pid" not in self._text or b"}" not in self._text:
            piece = os.read(self._status, 4096)
            if not piece:
                return 0
            self._text += piece
        return int(json.loads(self._text.split(b"\n")[0])["child-pid"])

    def finish(self, status: int) -> tuple[int | None, bool]:
        """(return code, program missing) from the wait status; a code of None says that bubblewrap itself failed.

        Bubblewrap reports an exit code only when the program was really started; a program ended by a signal
        has 128 and the signal's number as its code.
        """
        while piece := os.read(self._status, 4096):
            self._text += piece
        for line in self._text.splitlines():
            if b"exit-code" in line:
                code = int(json.loads(line)["exit-code"])
                return (128 - code if 128 < code <= 192 else code), False
        return None, False


def _in_memory(data: bytes) -> int:
    """A descriptor from which `data` can be read, with no name on disk."""
    descriptor = os.memfd_create("riallm")
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
