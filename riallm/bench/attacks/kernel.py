"""Attacks on the kernel's own doors: mounts, namespaces, settings, and calls that have carried escapes."""

from __future__ import annotations

from riallm.bench.attacks.attack import Attack, Proof

_SAYS = Proof.SAYS
# a raw call that got as far as looking at its arguments was not held back
_REACHED = "if got >= 0 or errno() not in (1, 13, 38, 97): through(got, errno())"
# free, and only free: a read-only mount of one's own in a mount namespace of one's own, to try the call on
_OWN_MOUNT = (
    "if not world['inside']:\n    os.mkdir('m'); libc.unshare(0x20000)\n"
    "    libc.mount(None, b'/', None, 16384 | (1 << 18), None); libc.mount(b'none', b'm', b'tmpfs', 1, None)\n"
)

KERNEL: tuple[Attack, ...] = (
    Attack(
        name="mount", number="10", proof=_SAYS, needs="root",
        source="os.mkdir('m')\nif libc.mount(b'none', b'm', b'tmpfs', 0, None) == 0:\n"
        "    libc.umount2(b'm', 2); through()",
    ),
    Attack(
        name="bind a folder outside", number="10", proof=Proof.SECRET, needs="root",
        source="os.mkdir('m'); folder = os.path.dirname(world['secret_file'])\n"
        "libc.mount(folder.encode(), b'm', None, 4096, None)\n"
        "show('m/' + os.path.basename(world['secret_file'])); libc.umount2(b'm', 2)",
    ),
    Attack(
        name="remount for writing", number="10", proof=_SAYS, needs="root",
        source=_OWN_MOUNT + "for line in open('/proc/self/mounts'):\n    _, place, _, options, *_ = line.split()\n"
        "    if options.startswith('ro') and (world['inside'] or place.endswith('/m')):\n"
        "        if libc.mount(None, place.encode(), None, 32 | 4096, None) == 0: through(place)",
    ),
    Attack(
        name="unmount what covers", number="10", proof=_SAYS, needs="root",
        source=_OWN_MOUNT + "for place in ('/proc/sys', '/dev/shm', '/tmp') if world['inside'] else ('m',):\n"
        "    if libc.umount2(place.encode(), 2) == 0: through(place)",
    ),
    Attack(
        name="mount by the newer calls", number="10", proof=_SAYS, needs="root",
        source="got = call(430, 430, ctypes.c_char_p(b'tmpfs'), 0)\nif got >= 0: through()\n"
        "got = call(428, 428, -100, ctypes.c_char_p(b'.'), 1)\nif got >= 0: through()",
    ),
    Attack(
        name="new user namespace", number="27", proof=_SAYS, source="if libc.unshare(0x10000000) == 0: through()"
    ),
    Attack(
        name="new user namespace by clone", number="27", proof=_SAYS,
        source="got = call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)\nif got == 0: os._exit(0)\nif got > 0: through()",
    ),
    Attack(
        name="new user namespace by clone3", number="27", proof=_SAYS,
        source="import struct\nargs = struct.pack('<8Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0)\n"
        "got = call(435, 435, ctypes.c_char_p(args), 64)\nif got == 0: os._exit(0)\nif got > 0: through()",
    ),
    Attack(
        name="enter another namespace", number="27", proof=_SAYS, needs="root",
        source="if libc.setns(os.open('/proc/self/ns/net', 0), 0) == 0: through()",
    ),
    Attack(
        name="control groups", number="28", proof=_SAYS, needs="root",
        source="import glob\nfor top in glob.glob('/sys/fs/cgroup/*/') + ['/sys/fs/cgroup/']:\n"
        "    try:\n        os.mkdir(top + 'probe'); os.rmdir(top + 'probe'); through(top)\n    except OSError: pass",
    ),
    Attack(
        name="core pattern", number="29", proof=_SAYS, needs="root",
        source="path = '/proc/sys/kernel/core_pattern'; old = open(path).read()\n"
        "with open(path, 'w') as file: file.write(old)\nthrough()",
    ),
    Attack(
        name="settings of any kind", number="29", proof=_SAYS, needs="root",
        source="for top, _, names in os.walk('/proc/sys'):\n    for name in names:\n"
        "        if os.access(top + '/' + name, os.W_OK): through(top, name)",
    ),
    Attack(
        name="sysrq", number="29", proof=_SAYS, needs="sysrq",
        source="os.open('/proc/sysrq-trigger', os.O_WRONLY); through()",
    ),
    Attack(
        name="settings in /sys", number="29", proof=_SAYS, needs="root",
        source="path = '/sys/kernel/mm/transparent_hugepage/enabled'\n"
        "if not os.path.exists(path): path = '/sys/kernel/profiling'\nos.open(path, os.O_WRONLY); through()",
    ),
    Attack(
        name="the kernel's log", number="29", proof=_SAYS, needs="root",
        source="got = call(103, 116, 10, 0, 0)\nif got >= 0: through()\nos.open('/dev/kmsg', os.O_WRONLY); through()",
    ),
    Attack(
        name="add a key", number="30", proof=_SAYS, needs="keyrings",
        source="c = ctypes.c_char_p\ngot = call(248, 217, c(b'user'), c(b'probe'), c(b'x'), 1, -2)\n"
        "if got >= 0: through(); call(250, 219, 21, got, -2)",
    ),
    Attack(
        name="read a keyring", number="30", proof=_SAYS, needs="keyrings",
        source="if call(250, 219, 0, -3, 1) >= 0: through()",
    ),
    Attack(
        name="io_uring", number="31", proof=_SAYS, needs="io_uring",
        source="got = call(425, 425, 2, ctypes.create_string_buffer(120))\nif got >= 0: through()",
    ),
    Attack(
        name="userfaultfd", number="31", proof=_SAYS, needs="userfaultfd",
        source="if call(323, 282, 1) >= 0: through()",
    ),
    Attack(
        name="bpf", number="31", proof=_SAYS, needs="root",
        source="import struct\nattr = ctypes.create_string_buffer(struct.pack('<4I', 2, 4, 4, 1), 128)\n"
        "if call(321, 280, 0, attr, 128) >= 0: through()",
    ),
    Attack(
        name="performance events", number="31", proof=_SAYS, needs="perf",
        source="import struct\nattr = ctypes.create_string_buffer(struct.pack('<IIQ', 1, 112, 1), 112)\n"
        "attr[40] = 0x62\nif call(298, 241, attr, 0, -1, -1, 0) >= 0: through()",
    ),
    Attack(
        name="set the clock", number="32", proof=_SAYS, needs="root",
        source="timex = ctypes.create_string_buffer(208); timex[0:4] = (0x100).to_bytes(4, 'little')\n"
        "if call(159, 171, timex) >= 0: through()",  # ADJ_SETOFFSET by nothing
    ),
    Attack(
        name="load a module", number="31", proof=_SAYS, needs="modules",
        source="got = call(175, 105, ctypes.create_string_buffer(64), 64, ctypes.c_char_p(b''))\n" + _REACHED,
    ),
    Attack(
        name="name of the machine", number="29", proof=_SAYS, needs="root",
        source="import socket\nsocket.sethostname(socket.gethostname()); through()",
    ),
    Attack(
        name="calls of another architecture", number="31", proof=_SAYS, needs="32-bit calls",
        source="import mmap\nif X86:\n    page = mmap.mmap(-1, 4096, prot=7)\n"
        "    page.write(b'\\x53\\xb8\\x14\\0\\0\\0\\xcd\\x80\\x5b\\xc3')\n"
        "    at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "    if ctypes.CFUNCTYPE(ctypes.c_int)(at)() == os.getpid(): through()",
    ),
    Attack(
        name="type into the terminal", number="40", proof=_SAYS, needs="root",
        source="import fcntl, pty\na, b = pty.openpty()\nif os.fork() == 0:\n    os.setsid()\n"
        "    fcntl.ioctl(b, 0x540E, 0); fcntl.ioctl(b, 0x5412, b'x'); through(); os._exit(0)\nos.wait()",
    ),
    Attack(
        name="file handles", number="9", proof=_SAYS, needs="root",
        source="c = ctypes.c_char_p\nbuffer = ctypes.create_string_buffer(136)\n"
        "buffer[0:4] = (128).to_bytes(4, 'little')\n"
        "mount = ctypes.c_int()\ncall(303, 264, -100, c(b'/usr'), buffer, ctypes.byref(mount), 0)\n"
        "if call(304, 265, os.open('/usr', 0), buffer, 0) >= 0: through()",
    ),
)  # fmt: skip
