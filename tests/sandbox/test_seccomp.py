"""The filter, run by an interpreter of its own: so also the one for the architecture that is not at hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from riallm.sandbox import seccomp

ALLOW, KILL, EPERM, ENOSYS, NO_FAMILY = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50061
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = ("x86_64", "aarch64")


def run(program: bytes, arch: int, number: int, args: Sequence[int] = ()) -> int:
    """Classic BPF: the verdict on one call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    ops = list(struct.iter_unpack("=HBBI", program))
    at, value = 0, 0
    while True:
        code, yes, no, k = ops[at]
        at += 1
        if code == 0x20:
            value = struct.unpack_from("=I", data, k)[0]
        elif code == 0x06:
            return int(k)
        else:
            test = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            at += yes if test else no


def verdict(machine: str, name: str, *args: int, alone: bool = True, counted: bool = True) -> int:
    numbers = seccomp._COMMON | seccomp._TABLE[machine]
    return run(seccomp.program(machine, alone=alone, counted=counted), ARCH[machine], numbers[name], args)


@pytest.mark.parametrize("machine", MACHINES)
def test_all_that_is_listed_is_denied(machine: str) -> None:
    for name in seccomp._DENIED:
        if name in seccomp._COMMON | seccomp._TABLE[machine]:
            assert verdict(machine, name) == EPERM, name
    assert verdict(machine, "clone3") == verdict(machine, "openat2") == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_no_listed_name_is_misspelt(machine: str) -> None:
    known = set(seccomp._COMMON) | set(seccomp._TABLE["x86_64"])
    assert set(seccomp._DENIED) | set(seccomp._UNKNOWN) | set(seccomp._special(False, False)) <= known


@pytest.mark.parametrize("machine", MACHINES)
def test_other_architectures_are_killed(machine: str) -> None:
    program = seccomp.program(machine)
    others = set(ARCH.values()) - {ARCH[machine]} | {0x40000003, 0x40000028}
    assert {run(program, arch, 1) for arch in others} == {KILL}


def test_the_x32_numbers_are_killed() -> None:
    assert run(seccomp.program("x86_64"), ARCH["x86_64"], 0x40000000 | 39) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_newer_calls_are_unknown(machine: str) -> None:
    program = seccomp.program(machine)
    assert run(program, ARCH[machine], seccomp.NEWEST) == ENOSYS
    assert run(program, ARCH[machine], seccomp.NEWEST + 1000) == ENOSYS
    assert run(program, ARCH[machine], seccomp.NEWEST - 1) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_forks_are_allowed_and_namespaces_are_not(machine: str) -> None:
    assert verdict(machine, "clone", 17) == ALLOW
    assert verdict(machine, "clone", 0x3D0F00) == ALLOW  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, "clone", flag | 17) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_families_of_sockets(machine: str) -> None:
    allowed = [family for family in range(50) if verdict(machine, "socket", family, 1) == ALLOW]
    assert allowed == [1, 2, 10]
    assert verdict(machine, "socket", 40) == NO_FAMILY
    assert [f for f in range(50) if verdict(machine, "socket", f, alone=False) == ALLOW] == []
    assert [f for f in range(50) if verdict(machine, "socketpair", f, alone=False) == ALLOW] == [1]


@pytest.mark.parametrize("machine", MACHINES)
def test_bits_that_lend_power(machine: str) -> None:
    create = 0o101
    for bits in (0o4000, 0o2000, 0o6755):
        assert verdict(machine, "fchmod", 3, bits) == EPERM
        assert verdict(machine, "fchmodat", -100 & (1 << 64) - 1, 0, bits) == EPERM
        assert verdict(machine, "fchmodat2", 0, 0, bits) == EPERM
        assert verdict(machine, "openat", 0, 0, create, bits) == EPERM
        assert verdict(machine, "openat", 0, 0, 0o20200000, bits) == EPERM  # O_TMPFILE
        assert verdict(machine, "openat", 0, 0, 0o2, bits) == ALLOW  # no mode is read without O_CREAT
        assert verdict(machine, "mknodat", 0, 0, bits) == EPERM
    assert verdict(machine, "fchmod", 3, 0o1777) == ALLOW
    assert verdict(machine, "openat", 0, 0, create, 0o755) == ALLOW


def test_bits_in_the_older_calls() -> None:
    for name, args in (
        ("chmod", (0, 0o4755)),
        ("creat", (0, 0o4755)),
        ("mknod", (0, 0o4755)),
        ("open", (0, 0o101, 0o2755)),
    ):
        assert verdict("x86_64", name, *args) == EPERM
    assert verdict("x86_64", "open", 0, 0, 0o7777) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_typing_into_a_terminal(machine: str) -> None:
    assert verdict(machine, "ioctl", 0, 0x5412) == EPERM
    assert verdict(machine, "ioctl", 0, 0x541C) == EPERM
    assert verdict(machine, "ioctl", 0, 0x5412 | 1 << 40) == EPERM  # the kernel looks at the low half only
    assert verdict(machine, "ioctl", 0, 0x5413) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_without_namespaces_nothing_for_others(machine: str) -> None:
    for name, index in seccomp._ON_OTHERS.items():
        for who, expected in ((0, ALLOW), (77, EPERM)):
            args = [0, 0]
            args[index] = who
            assert verdict(machine, name, *args, alone=False) == expected
            assert verdict(machine, name, *args) == ALLOW
    assert verdict(machine, "shmget", alone=False) == ENOSYS
    assert verdict(machine, "shmget") == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_memory_of_nobody_only_where_it_is_counted(machine: str) -> None:
    for name in ("memfd_create", "shmget"):
        assert (verdict(machine, name), verdict(machine, name, counted=False)) == (ALLOW, ENOSYS)


def test_no_jump_leads_out() -> None:
    for machine in MACHINES:
        ops = list(struct.iter_unpack("=HBBI", seccomp.program(machine, alone=False)))
        assert len(ops) < 4096  # the kernel's limit
        assert all(at + 1 + max(yes, no) < len(ops) for at, (code, yes, no, _) in enumerate(ops) if code & 7 == 5)


def test_no_table_no_filter() -> None:
    with pytest.raises(KeyError):
        seccomp.program("riscv64")
