"""What an attack is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Proof(StrEnum):
    """What shows that an attack got through. All but SAYS are seen from outside."""

    SECRET = "secret"  # a secret that was never handed in stands in the output
    MARK = "mark"  # the attack's mark stands in a file outside the sandbox
    SETID = "setid"  # a file with setuid or setgid bits, or with a capability, stands in the workspace
    ALIVE = "alive"  # a process of the attack lives on after the end
    VICTIM = "victim"  # a process outside was ended
    CHANGED = "changed"  # a file or a process outside has other attributes than before
    SEGMENT = "segment"  # a shared memory segment of the attack stays on the machine
    RECEIVED = "received"  # a listener outside was reached
    UNSTOPPED = "unstopped"  # no limit ended it
    FLOOD = "flood"  # more output was kept than the limit
    RAW = "raw"  # control characters stand in the output
    SAYS = "says"  # the program itself saw its call succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack.

    source: a Python program (standard library); PRELUDE stands before it. `world` holds paths, ports and ids.
    keep: changes are brought home afterwards, by the trusted side, before anything is checked.
    then_write: a path in the workspace that the trusted side writes between the command and bringing home.
    needs: what must be there for the attack to be able to succeed at all: "" nothing, "root", or the name of a
        feature of the kernel or machine; where it is absent no control is expected.
    seconds, disk_bytes: limits of the command.
    """

    name: str
    number: str  # of the list that this comes from
    proof: Proof
    source: str
    keep: bool = False
    then_write: str = ""
    needs: str = ""
    seconds: float = 10.0
    disk_bytes: int = 100 << 20


PRELUDE = """
import ctypes, json, os, sys
world = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = os.uname().machine == "x86_64"

def call(x86, arm, *args):
    ctypes.set_errno(0)
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    return libc.syscall(ctypes.c_long(x86 if X86 else arm), *wide)

def errno():
    return ctypes.get_errno()

def through(*words):
    print("THROUGH", *words, flush=True)

def show(path, only=""):
    try:
        with open(path, errors="replace") as file:
            text = file.read()[:4000]
        if only in text:
            print(text, flush=True)
    except OSError as error:
        print(error)

def mark(path):
    try:
        with open(path, "a") as file:
            file.write(world["mark"])
    except OSError as error:
        print(error)
"""
