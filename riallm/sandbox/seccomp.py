"""A seccomp filter as a classic BPF program, assembled here: no library, x86_64 and aarch64.

The list denies what no test run needs and what has carried most container escapes: mounts, namespaces, tracing,
other processes' memory, bpf, perf, io_uring, userfaultfd, keyrings, modules, clocks, sockets outside
UNIX/INET/INET6, terminal injection, and files left setuid or setgid. Anything else is allowed; system calls newer
than this list answer "no such call", as does `clone3`, whose flags sit behind a pointer (C libraries then fall
back to `clone`). System call numbers: the kernel's syscall tables.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from riallm.sandbox import kernel

_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALU_AND = 0x54
_KILL = 0x80000000
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97

_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
NEWEST = 467  # first number that this list does not know: open_tree_attr (Linux 6.15)

# The same number everywhere.
_COMMON = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435, "openat2": 437,
    "pidfd_getfd": 438, "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447, "fchmodat2": 452,
    "process_madvise": 440, "process_mrelease": 448, "statmount": 457, "listmount": 458,
}  # fmt: skip
_TABLE: dict[str, dict[str, int]] = {
    "x86_64": {
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "clone": 56,
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
        "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176,
        "create_module": 174, "get_kernel_syms": 177, "query_module": 178, "settimeofday": 164,
        "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305, "reboot": 169, "swapon": 167, "swapoff": 168,
        "acct": 163, "quotactl": 179, "iopl": 172, "ioperm": 173, "syslog": 103, "vhangup": 153,
        "sethostname": 170, "setdomainname": 171, "open_by_handle_at": 304, "fanotify_init": 300,
        "lookup_dcookie": 212, "uselib": 134, "_sysctl": 156, "nfsservctl": 180, "migrate_pages": 256,
        "move_pages": 279, "personality": 135, "modify_ldt": 154, "socket": 41, "socketpair": 53, "ioctl": 16,
        "chmod": 90, "fchmod": 91, "fchmodat": 268, "creat": 85, "open": 2, "openat": 257, "mknod": 133,
        "mknodat": 259, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "prlimit64": 302, "memfd_create": 319,
        "setpriority": 141, "sched_setaffinity": 203, "sched_setscheduler": 144, "sched_setparam": 142,
        "sched_setattr": 314, "ioprio_set": 251,
    },
    "aarch64": {
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "clone": 220,
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "add_key": 217, "request_key": 218, "keyctl": 219,
        "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106,
        "settimeofday": 170, "clock_settime": 112, "adjtimex": 171, "clock_adjtime": 266, "reboot": 142,
        "swapon": 224, "swapoff": 225, "acct": 89, "quotactl": 60, "syslog": 116, "vhangup": 58,
        "sethostname": 161, "setdomainname": 162, "open_by_handle_at": 265, "fanotify_init": 262,
        "lookup_dcookie": 18, "nfsservctl": 42, "migrate_pages": 238, "move_pages": 239, "personality": 92,
        "socket": 198, "socketpair": 199, "ioctl": 29, "fchmod": 52, "fchmodat": 53, "openat": 56, "mknodat": 33,
        "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "prlimit64": 261, "memfd_create": 279,
        "setpriority": 140, "sched_setaffinity": 122, "sched_setscheduler": 119, "sched_setparam": 118,
        "sched_setattr": 274, "ioprio_set": 30,
    },
}  # fmt: skip

_DENIED = (
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount", "fsopen", "fsconfig",
    "fsmount", "fspick", "mount_setattr", "statmount", "listmount", "ptrace", "process_vm_readv",
    "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp", "bpf", "perf_event_open",
    "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key", "keyctl",
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module",
    "get_kernel_syms", "query_module", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "reboot",
    "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "iopl", "ioperm", "syslog", "vhangup", "sethostname",
    "setdomainname", "open_by_handle_at", "fanotify_init", "lookup_dcookie", "uselib", "_sysctl", "nfsservctl",
    "migrate_pages", "move_pages", "modify_ldt", "memfd_secret",
)  # fmt: skip
# Without namespaces of one's own: what would outlive the command, or act on other processes of the same user. The
# number is the argument that must be 0 ("myself").
_OUTLASTING = ("shmget", "msgget", "semget", "mq_open")
# Memory that belongs to no process: nobody sees it where no control group counts it.
_UNCOUNTED = ("memfd_create", "shmget")
_ON_OTHERS = {
    "prlimit64": 0, "setpriority": 1, "sched_setaffinity": 0, "sched_setscheduler": 0, "sched_setparam": 0,
    "sched_setattr": 0, "ioprio_set": 1,
}  # fmt: skip
_UNKNOWN = ("clone3", "openat2")  # their flags cannot be seen from a filter

_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_SETID_BITS = 0o6000
_CREATES = 0o100 | 0o20000000  # O_CREAT | __O_TMPFILE: only then does a mode follow
_TTY_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6


@dataclass(frozen=True, slots=True)
class _Op:
    code: int
    k: int
    jt: int = 0
    jf: int = 0

    def pack(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.jt, self.jf, self.k)


def _argument(index: int) -> _Op:
    return _Op(_LOAD, 16 + 8 * index)  # the low half: both architectures are little-endian


def _errno(number: int) -> _Op:
    return _Op(_RET, _ERRNO | number)


def _when(number: int, body: list[_Op]) -> list[_Op]:
    """Run `body`, which must end in a return, for one system call; otherwise step over it."""
    return [_Op(_JEQ, number, 0, len(body)), *body]


def _deny_if_any(index: int, mask: int) -> list[_Op]:
    return [_argument(index), _Op(_JSET, mask, 0, 1), _errno(EPERM), _Op(_RET, _ALLOW)]


def _deny_if_equal(index: int, values: tuple[int, ...]) -> list[_Op]:
    body = [_argument(index)]
    for value in values:
        body += [_Op(_JEQ, value, 0, 1), _errno(EPERM)]
    return [*body, _Op(_RET, _ALLOW)]


def _allow_only(index: int, values: tuple[int, ...], error: int) -> list[_Op]:
    body = [_argument(index)]
    for value in values:
        body += [_Op(_JEQ, value, 0, 1), _Op(_RET, _ALLOW)]
    return [*body, _errno(error)]


def _deny_setid_creation(flags: int, mode: int) -> list[_Op]:
    tail = _deny_if_any(mode, _SETID_BITS)
    return [_argument(flags), _Op(_JSET, _CREATES, 1, 0), _Op(_RET, _ALLOW), *tail]


def _special(alone: bool, counted: bool) -> dict[str, list[_Op]]:
    absent = (() if alone else _OUTLASTING) + (() if counted else _UNCOUNTED)
    others = {name: _allow_only(index, (0,), EPERM) for name, index in _ON_OTHERS.items()}
    return (
        {name: [_errno(ENOSYS)] for name in absent}
        | ({} if alone else others)
        | {
            "clone": _deny_if_any(0, _NEW_NAMESPACES),
            "socket": _allow_only(0, _FAMILIES if alone else (), EAFNOSUPPORT),
            "socketpair": _allow_only(0, (1,), EAFNOSUPPORT),
            "ioctl": _deny_if_equal(1, _TTY_INJECTION),
            "personality": _allow_only(0, (0, 0xFFFFFFFF), EPERM),
            "chmod": _deny_if_any(1, _SETID_BITS),
            "fchmod": _deny_if_any(1, _SETID_BITS),
            "fchmodat": _deny_if_any(2, _SETID_BITS),
            "fchmodat2": _deny_if_any(2, _SETID_BITS),
            "creat": _deny_if_any(1, _SETID_BITS),
            "open": _deny_setid_creation(1, 2),
            "openat": _deny_setid_creation(2, 3),
            "mknod": _deny_if_any(1, _SETID_BITS),
            "mknodat": _deny_if_any(2, _SETID_BITS),
        }
    )


def supported() -> bool:
    """Whether there is a table for this machine's architecture."""
    return kernel.machine() in _ARCH


def program(machine: str | None = None, *, alone: bool = True, counted: bool = True) -> bytes:
    """The filter for `machine` (default: this one) as the kernel takes it, 8 bytes an instruction.

    alone: the command has network, process and message namespaces of its own. Otherwise it gets no sockets but
    pairs, no System V or message queue objects, and may change limits and priorities of itself only.
    counted: a control group counts memory; otherwise there is none that belongs to no process.
    Raises KeyError for an architecture without a table.
    """
    machine = machine or kernel.machine()
    numbers = _COMMON | _TABLE[machine]
    ops = [_Op(_LOAD, 4), _Op(_JEQ, _ARCH[machine], 1, 0), _Op(_RET, _KILL), _Op(_LOAD, 0)]
    if machine == "x86_64":
        ops += [_Op(_JGE, _X32_BIT, 0, 1), _Op(_RET, _KILL)]
    ops += [_Op(_JGE, NEWEST, 0, 1), _errno(ENOSYS)]
    for name in _UNKNOWN:
        ops += _when(numbers[name], [_errno(ENOSYS)])
    for name in _DENIED:
        if name in numbers:
            ops += _when(numbers[name], [_errno(EPERM)])
    for name, body in _special(alone, counted).items():
        if name in numbers:
            ops += _when(numbers[name], body)
    ops.append(_Op(_RET, _ALLOW))
    return b"".join(op.pack() for op in ops)
