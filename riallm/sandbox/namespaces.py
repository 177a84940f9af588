"""Second tier: the same tree and the same filter, with namespaces made here instead of by bubblewrap."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import struct
from contextlib import suppress

from riallm.sandbox import kernel, root, seccomp, watch
from riallm.sandbox.cgroup import Group
from riallm.sandbox.child import Child, set_limit
from riallm.sandbox.spec import Spec, drop_uid

_NAMESPACES = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
)
_DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def account() -> tuple[int, int]:
    """Uid and gid that the command sees as its own: the real ones, for there is no second id map here."""
    drop = drop_uid()
    return (os.geteuid(), os.getegid()) if drop is None else (drop, drop)


class Namespaces(Child):
    """A first process of our own in new namespaces; it starts the command, reaps, and tells the exit status."""

    def __init__(self, spec: Spec, group: Group | None) -> None:
        super().__init__(spec, group)
        self._status, self._write_status = os.pipe()

    def start(self) -> None:
        """Start; the next process that we fork is the first one of a new pid namespace."""
        kernel.unshare(kernel.CLONE_NEWPID)
        self.kept = {self._write_status}
        self.spawn(self._first)
        os.close(self._write_status)

    def finish(self, status: int) -> tuple[int | None, bool]:
        """Exact return code from the first process's report; None when it gave none."""
        text = os.read(self._status, 100)
        if self.missing:
            return 127, True
        return (os.waitstatus_to_exitcode(int(json.loads(text))), False) if text else (None, False)

    def _first(self) -> None:
        if self.group is not None:
            self.group.join()
        # with a user namespace of its own the limit counts from nothing, else with all others of that uid
        others = 0 if drop_uid() is None else watch.threads_of(drop_uid() or 0)
        kernel.unshare(_NAMESPACES)
        with suppress(OSError):
            _raise_loopback()
        socket.sethostname("sandbox")
        _devices()
        _proc(drop_uid() is None)
        _pivot()
        self.limit()
        if self.group is None:
            set_limit(resource.RLIMIT_NPROC, others + self.spec.processes)
        kernel.drop_bounding_set()
        self.become_user()
        kernel.clear_capabilities()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        kernel.load_seccomp(seccomp.program(counted=self.group is not None))
        command = os.fork()
        if command == 0:
            os.close(self._write_status)
            os.setsid()
            self.exec_command(self.spec.argv, self.spec.cwd, self.spec.env)
        os.close(self.errors)
        self._reap(command)

    def _reap(self, command: int) -> None:
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        while True:
            ended, status = os.waitpid(-1, 0)
            if ended == command:
                os.write(self._write_status, str(status).encode())
                os._exit(0)  # the kernel now kills whatever is left in the namespace


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _devices() -> None:
    dev = root.ROOT + b"/dev"
    kernel.mount(b"tmpfs", dev, b"tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, b"size=64k,mode=0755,nr_inodes=64")
    for name in _DEVICES:
        os.close(os.open(dev + b"/" + name, os.O_CREAT | os.O_WRONLY, 0o644))
        kernel.mount(b"/dev/" + name, dev + b"/" + name, None, kernel.MS_BIND)
    for name, target in ((b"fd", b""), (b"stdin", b"/0"), (b"stdout", b"/1"), (b"stderr", b"/2")):
        os.symlink(b"/proc/self/fd" + target, dev + b"/" + name)
    os.mkdir(dev + b"/pts")
    os.mkdir(dev + b"/shm")
    options = b"newinstance,ptmxmode=0666,mode=0620"
    kernel.mount(b"devpts", dev + b"/pts", b"devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, options)
    os.symlink(b"pts/ptmx", dev + b"/ptmx")
    kernel.mount(root.SHM, dev + b"/shm", None, kernel.MS_BIND | kernel.MS_REC)
    kernel.mount(None, dev, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)


def _proc(own_user_namespace: bool) -> None:
    proc = root.ROOT + b"/proc"
    kernel.mount(b"proc", proc, b"proc", _FLAGS | kernel.MS_NOEXEC)
    if own_user_namespace:
        with suppress(OSError), open(proc + b"/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
            file.write("0")
    for name in (b"sys", b"sysrq-trigger", b"irq", b"bus", b"fs"):
        path = proc + b"/" + name
        if os.path.exists(path):
            tree = kernel.open_tree(path)
            kernel.mount_setattr(tree, kernel.MOUNT_ATTR_RDONLY)
            kernel.move_mount(tree, path)
            os.close(tree)


def _pivot() -> None:
    os.chdir(root.ROOT)
    kernel.pivot_root(b".", b".")
    kernel.umount(b".")
    os.chdir("/")
    kernel.mount(None, b"/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | _FLAGS)
