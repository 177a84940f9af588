"""Attacks on other processes, and by processes that will not end."""

from __future__ import annotations

from riallm.bench.attacks.attack import Attack, Proof

PROCESSES: tuple[Attack, ...] = (
    Attack(
        name="daemon that outlives its command", number="19", proof=Proof.ALIVE, seconds=2.0,
        source="import signal, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
        "        os.closerange(0, 256); time.sleep(60)\n    os._exit(0)\nos.wait()",
    ),
    Attack(
        name="daemon that holds the pipes", number="19", proof=Proof.ALIVE, seconds=2.0,
        source="import signal, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    signal.signal(15, signal.SIG_IGN); time.sleep(60)",
    ),
    Attack(
        name="deaf to the request to end", number="20", proof=Proof.ALIVE, seconds=0.5,
        source="import signal, time\nfor n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)",
    ),
    Attack(
        name="swarm that respawns", number="20", proof=Proof.ALIVE, seconds=0.5,
        source="import time\nend = time.time() + 3\nfor _ in range(8):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        while time.time() < end:\n            if os.fork(): os._exit(0)\n            os.setsid()\n"
        "            time.sleep(0.2)\n        os._exit(0)\ntime.sleep(60)",
    ),
    Attack(
        name="signal a process outside", number="21", proof=Proof.VICTIM,
        source="import signal\nos.kill(world['victim'], signal.SIGKILL)",
    ),
    Attack(
        name="signal through a process descriptor", number="21", proof=Proof.VICTIM,
        source="import signal\nfd = os.pidfd_open(world['victim']); signal.pidfd_send_signal(fd, signal.SIGKILL)",
    ),
    Attack(
        name="limits of a process outside", number="21", proof=Proof.CHANGED,
        source="import resource\nresource.prlimit(world['victim'], resource.RLIMIT_CORE, (0, 0))\n"
        "resource.prlimit(world['victim'], resource.RLIMIT_NOFILE, (77, 77))",
    ),
    Attack(
        name="priority of a process outside", number="21", proof=Proof.CHANGED,
        source="os.setpriority(os.PRIO_PROCESS, world['victim'], 15)",
    ),
    Attack(
        name="processors of a process outside", number="21", proof=Proof.CHANGED, needs="two processors",
        source="os.sched_setaffinity(world['victim'], {0})",
    ),
    Attack(
        name="trace a process outside", number="22", proof=Proof.SAYS,
        source="if call(101, 117, 0x4206, world['victim'], 0, 0) == 0: through()",
    ),
    Attack(
        name="trace one's own child", number="22", proof=Proof.SAYS,
        source="pid = os.fork()\nif pid == 0:\n    os._exit(0 if call(101, 117, 0, 0, 0, 0) == 0 else 1)\n"
        "if os.wait()[1] == 0: through()",
    ),
    Attack(
        name="read another process's memory", number="23", proof=Proof.SECRET,
        source="buffer = ctypes.create_string_buffer(64)\n"
        "pair = ctypes.c_size_t * 2\n"
        "here = pair(ctypes.addressof(buffer), 64); there = pair(world['victim_address'], 64)\n"
        "call(310, 270, world['victim'], here, 1, there, 1, 0); print(buffer.raw)",
    ),
    Attack(
        name="open another process's memory", number="24", proof=Proof.SECRET,
        source="fd = os.open(f\"/proc/{world['victim']}/mem\", 0); print(os.pread(fd, 64, world['victim_address']))",
    ),
    Attack(
        name="take a descriptor of another process", number="24", proof=Proof.SECRET,
        source="fd = os.pidfd_open(world['victim']); got = call(438, 438, fd, world['victim_fd'], 0)\n"
        "print(os.pread(got, 200, 0))",
    ),
    Attack(
        name="environments of other processes", number="24", proof=Proof.SECRET,
        source="import glob\nfor path in glob.glob('/proc/[0-9]*/environ'): show(path, world['shared_token'])",
    ),
    Attack(
        name="arguments of other processes", number="24", proof=Proof.SECRET,
        source="import glob\nfor path in glob.glob('/proc/[0-9]*/cmdline'): show(path, world['shared_token'])",
    ),
    Attack(name="own environment", number="57", proof=Proof.SECRET, source="print(dict(os.environ))"),
    Attack(
        name="setuid programs keep their power", number="26", proof=Proof.SAYS,
        source="if call(157, 167, 39, 0, 0, 0, 0) == 0: through()",
    ),
    Attack(
        name="memory segment that stays", number="34", proof=Proof.SEGMENT,
        source="got = call(29, 194, world['key'], 4096, 0o1600)\nprint(got, errno())",
    ),
    Attack(
        name="raise a limit again", number="33", proof=Proof.SAYS, needs="limits raised",
        source="import resource\n_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard - 1))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard)); through()",
    ),
)  # fmt: skip
