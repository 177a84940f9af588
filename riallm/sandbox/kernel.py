"""System calls that Python 3.11 has no name for, through ctypes. Linux on x86_64 and aarch64.

Numbers and constants are those of the kernel's own headers (`unistd.h`, `mount.h`, `landlock.h`, `prctl.h`);
calls above 424 have the same number on every architecture. Each function raises OSError with the call's name.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

MNT_DETACH = 2
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_FDCWD = -100

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_IDMAP = 0x00100000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
LAST_CAP = 63

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK = (444, 445, 446)  # create_ruleset, add_rule, restrict_self
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, name: str, path: bytes | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        text = f"{name}: {os.strerror(number)}"
        raise OSError(number, text, path and os.fsdecode(path))
    return result


def _syscall(name: str, number: int, *args: object) -> int:
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    return _check(int(_libc.syscall(ctypes.c_long(number), *wide)), name)


def machine() -> str:
    """The architecture's name as the kernel says it: `x86_64`, `aarch64`, ..."""
    return platform.machine()


def unshare(flags: int) -> None:
    """Give the calling process new namespaces of the kinds in `flags` (CLONE_NEW*)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int = 0) -> None:
    """Enter the namespace behind `descriptor`."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int = 0, data: bytes = b"") -> None:
    """mount(2)."""
    _check(_libc.mount(source, target, kind, ctypes.c_ulong(flags), data or None), "mount", target)


def umount(target: bytes, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target, ctypes.c_int(flags)), "umount2", target)


def pivot_root(new: bytes, old: bytes) -> None:
    """Make `new` the root of this mount namespace and put the old root at `old`."""
    _syscall("pivot_root", _PIVOT_ROOT[machine()], ctypes.c_char_p(new), ctypes.c_char_p(old))


def open_tree(path: bytes, *, recursive: bool = True) -> int:
    """A descriptor of a detached clone of the mount at `path` (Linux 5.2)."""
    flags = 1 | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)  # 1: OPEN_TREE_CLONE
    return _syscall("open_tree", _SYS_OPEN_TREE, AT_FDCWD, ctypes.c_char_p(path), flags)


def move_mount(tree: int, target: bytes) -> None:
    """Attach a mount from `open_tree` at `target`."""
    empty = ctypes.c_char_p(b"")
    _syscall("move_mount", _SYS_MOVE_MOUNT, tree, empty, AT_FDCWD, ctypes.c_char_p(target), 0x4)  # 4: F_EMPTY_PATH


def mount_setattr(tree: int, attributes: int, *, userns: int = 0, recursive: bool = True) -> None:
    """Set attributes (MOUNT_ATTR_*) of a mount; with MOUNT_ATTR_IDMAP, `userns` holds the id map (Linux 5.12)."""
    record = struct.pack("=QQQQ", attributes, 0, 0, userns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    buffer = ctypes.create_string_buffer(record, len(record))
    _syscall("mount_setattr", _SYS_MOUNT_SETATTR, tree, ctypes.c_char_p(b""), flags, buffer, len(record))


def prctl(option: int, *args: int) -> int:
    """prctl(2) with up to four numbers."""
    wide = [ctypes.c_ulong(a) for a in (*args, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(ctypes.c_int(option), *wide), "prctl")


def load_seccomp(program: bytes) -> None:
    """Put a BPF program (8 bytes an instruction) in force for this process and all that it starts."""
    buffer = ctypes.create_string_buffer(program, len(program))
    record = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    head = ctypes.create_string_buffer(record, len(record))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(head))


def drop_bounding_set() -> None:
    """Make sure that no capability can ever come back through exec. Before giving up root; needs CAP_SETPCAP."""
    for capability in range(LAST_CAP + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # numbers above the kernel's last one, or no right to drop: then there is nothing to keep
            break


def clear_capabilities() -> None:
    """Empty the ambient, inheritable, permitted and effective sets."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    _check(_libc.capset(header, ctypes.create_string_buffer(24)), "capset")


def landlock_abi() -> int:
    """The kernel's landlock version, 0 where there is none."""
    try:
        return _syscall("landlock_create_ruleset", _SYS_LANDLOCK[0], 0, 0, 1)
    except OSError:
        return 0


def landlock_ruleset(fs: int, net: int, scoped: int, abi: int) -> int:
    """A descriptor of a ruleset that handles these rights."""
    record = struct.pack("=QQQ", fs, net, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    buffer = ctypes.create_string_buffer(record, len(record))
    return _syscall("landlock_create_ruleset", _SYS_LANDLOCK[0], buffer, len(record), 0)


def landlock_allow(ruleset: int, path: int, rights: int) -> None:
    """Allow `rights` below the file behind descriptor `path`."""
    buffer = ctypes.create_string_buffer(struct.pack("=Qi", rights, path), 12)
    _syscall("landlock_add_rule", _SYS_LANDLOCK[1], ruleset, 1, buffer, 0)


def landlock_restrict(ruleset: int) -> None:
    """Put the ruleset in force for this process and all that it starts."""
    _syscall("landlock_restrict_self", _SYS_LANDLOCK[2], ruleset, 0)
