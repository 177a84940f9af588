"""Attacks by using too much, and by what is written to the user's screen. All bounded: a free run does no harm."""

from __future__ import annotations

from riallm.bench.attacks.attack import Attack, Proof

_FILL = (
    "total = 0\nos.makedirs({0}, exist_ok=True)\nfor n in range(115):\n"
    "    with open({0} + f'/fill{{n}}', 'wb', 0) as file: total += file.write(bytes(1 << 20))\n"
    "import time\ntime.sleep(0.5)\nif total >= 110 << 20: through(total)"
)

RESOURCES: tuple[Attack, ...] = (
    Attack(
        name="fork without end", number="17", proof=Proof.SAYS,
        source="import time\nchildren = 0\ntry:\n    for _ in range(260):\n"
        "        if os.fork() == 0: time.sleep(20); os._exit(0)\n        children += 1\n"
        "except OSError: pass\nprint(children)\nif children >= 250: through(children)\n"
        "os.killpg(0, 9)",
    ),
    Attack(
        name="threads without end", number="18", proof=Proof.SAYS,
        source="import threading, time\nthreading.stack_size(65536); count = 0\ntry:\n    for _ in range(260):\n"
        "        threading.Thread(target=time.sleep, args=(20,), daemon=True).start(); count += 1\n"
        "except RuntimeError: pass\nprint(count)\nif count >= 250: through(count)\nsys.stdout.flush(); os._exit(0)",
    ),
    Attack(
        name="memory", number="33", proof=Proof.SAYS,
        source="held = []\nfor _ in range(7): held.append(bytearray(b'held' * 26214400))\n"
        "import time\ntime.sleep(0.5); through(len(held))",
    ),
    Attack(
        name="memory shared by many processes", number="33", proof=Proof.SAYS,
        source="import time\nready = os.pipe()\nfor _ in range(7):\n    if os.fork() == 0:\n"
        "        held = bytearray(b'held' * 26214400); os.write(ready[1], b'x'); time.sleep(2); os._exit(0)\n"
        "os.close(ready[1]); got = b''\nwhile piece := os.read(ready[0], 7): got += piece\n"
        "if len(got) == 7: through()",
    ),
    Attack(
        name="memory in nameless files", number="33", proof=Proof.SAYS,
        source="import time\nfor n in range(7):\n    fd = os.memfd_create(str(n))\n"
        "    for _ in range(90): os.write(fd, bytes(1 << 20))\ntime.sleep(0.5); through()",
    ),
    Attack(
        name="memory in segments nobody holds", number="33", proof=Proof.SAYS,
        source="import time\nlibc.shmat.restype = ctypes.c_void_p\nfor n in range(7):\n"
        "    number = call(29, 194, 0, 90 << 20, 0o1600)\n    if number < 0: sys.exit(1)\n"
        "    at = libc.shmat(number, None, 0); ctypes.memset(at, 7, 90 << 20)\n"
        "    if world['inside']: libc.shmdt(ctypes.c_void_p(at))\n"  # free, it must go with its process
        "    else: libc.shmctl(number, 0, None)\n"
        "time.sleep(0.5); through()",
    ),
    Attack(
        name="memory shared without a file", number="33", proof=Proof.SAYS,
        source="import mmap, time\nheld = mmap.mmap(-1, 630 << 20)\n"
        "for n in range(630): held.write(bytes(1 << 20))\ntime.sleep(0.5); through()",
    ),
    Attack(
        name="fill shared memory", number="34", proof=Proof.SAYS, source=_FILL.format("'/dev/shm/' + world['token']")
    ),
    Attack(name="fill /tmp", number="35", proof=Proof.SAYS, source=_FILL.format("'/tmp/' + world['token']")),
    Attack(name="fill the workspace", number="36", proof=Proof.SAYS, source=_FILL.format("'fill'")),
    Attack(
        name="a huge file with holes", number="15", proof=Proof.SAYS,
        source="with open('holes', 'wb') as file: file.truncate(1 << 40)\nthrough()",
    ),
    Attack(
        name="files without end", number="15", proof=Proof.SAYS, disk_bytes=20 << 20,
        source="os.mkdir('many')\nfor n in range(6000): os.close(os.open(f'many/{n}', os.O_CREAT))\nthrough()",
    ),
    Attack(
        name="spin past the time", number="37", proof=Proof.UNSTOPPED, seconds=0.5,
        source="import time\nend = time.time() + 20\nwhile time.time() < end: pass\nthrough()",
    ),
    Attack(
        name="sleep past the time", number="37", proof=Proof.UNSTOPPED, seconds=0.5,
        source="import time\ntime.sleep(20); through()",
    ),
    Attack(
        name="wait for input", number="37", proof=Proof.UNSTOPPED, seconds=0.5, needs="open stdin",
        source="sys.stdin.read()",
    ),
    Attack(
        name="descriptors without end", number="38", proof=Proof.SAYS,
        source="import resource\n_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n"
        "for _ in range(3000): os.dup(1)\nthrough()",
    ),
    Attack(
        name="output without end", number="39", proof=Proof.FLOOD,
        source="block = b'x' * 65536\nfor _ in range(700): os.write(1, block)",
    ),
    Attack(
        name="clipboard, title and colours", number="40", proof=Proof.RAW,
        source="os.write(1, b'\\x1b]52;c;ZXZpbA==\\x07\\x1b]0;title\\x1b\\\\\\x1b[31mred\\x1b[2J\\x9b5n\\x90q\\x9c')",
    ),
    Attack(
        name="text that reads backwards", number="40", proof=Proof.RAW,
        source="os.write(1, 'if x \\u202e\\u2066# check\\u2069 \\u2066: pass\\u200b\\r\\x08\\x08fake'.encode())",
    ),
    Attack(
        name="control characters as one byte", number="39", proof=Proof.RAW,
        source="os.write(1, bytes(range(256))); os.write(2, b'\\xc2\\x9b31m\\xff\\xfe')",
    ),
)  # fmt: skip
