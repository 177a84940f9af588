"""How the library of kernels is built: once, whole or not at all, and what is said where it cannot be had."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from riallm.core.errors import UsageError
from riallm.quant.compiled import VARIABLE, kernel_status, kernels

PROBE = """
import torch
from riallm.quant import compiled, matmul, packed, prepared
matrix = prepared.prepare(packed.quantise(torch.ones(64, 64), "int4"))
torch.set_num_threads(2)
found = matmul.linear(torch.ones(300, 64), matrix)
assert torch.allclose(found, torch.full_like(found, 64.0), rtol=1e-2)
torch.ones(300, 300) @ torch.ones(300, 300)
print(compiled.kernel_status())
print(*compiled.openmp_runtimes(), sep="\\n")
"""


@pytest.fixture(autouse=True)
def chosen_anew() -> Iterator[None]:
    """What a test makes of the environment is not what the next computes with."""
    kernels.cache_clear()
    yield
    kernels.cache_clear()


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A compiler that does not think long."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    return script(tmp_path / "quick-g++", 'exec g++ "$@" -O1')


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def probe(cache: Path, compiler: Path) -> subprocess.Popen[str]:
    """A process that multiplies, prints its status, then its OpenMP runtimes; in a group of its own."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    env |= {"XDG_CACHE_HOME": str(cache), "CXX": str(compiler)}
    return subprocess.Popen(
        [sys.executable, "-c", PROBE], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def use(cache: Path, compiler: Path, patch: pytest.MonkeyPatch) -> None:
    """The same environment for this process."""
    patch.setenv("XDG_CACHE_HOME", str(cache))
    patch.setenv("CXX", str(compiler))
    patch.delenv(VARIABLE, raising=False)


def libraries(cache: Path) -> list[Path]:
    return sorted((cache / "riallm" / "kernels").glob("*.so"))


def test_two_build_at_once_and_a_third_builds_nothing(tmp_path: Path, quick: Path) -> None:
    both = [probe(tmp_path, quick), probe(tmp_path, quick)]
    for process in both:
        assert process.communicate()[0].startswith("compiled, ") and process.returncode == 0
    before = {path: path.stat().st_mtime_ns for path in libraries(tmp_path)}
    assert before and [path.name for path in (tmp_path / "riallm" / "kernels").iterdir() if path.suffix != ".so"] == []
    said, *runtimes = probe(tmp_path, quick).communicate()[0].splitlines()
    assert said.startswith("compiled, ")
    assert {path: path.stat().st_mtime_ns for path in libraries(tmp_path)} == before
    assert len(runtimes) == 1, "a second OpenMP runtime brings threads of its own"


def test_a_damaged_library_is_built_again(tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(tmp_path, quick, monkeypatch)
    assert kernel_status().startswith("compiled, ")
    (path,) = libraries(tmp_path)
    whole = path.read_bytes()
    path.unlink()  # this process has it mapped
    path.write_bytes(whole[: len(whole) // 2])
    kernels.cache_clear()
    assert kernel_status().startswith("compiled, ")
    (again,) = libraries(tmp_path)
    assert len(again.read_bytes()) == len(whole)


def test_a_killed_build_leaves_nothing_that_looks_whole(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'case "$*" in *--version*) exec g++ --version;; esac\n'
    body += f'while [ "$1" != -o ]; do shift; done; echo half > "$2"; touch {tmp_path}/begun; exec sleep 60'
    process = probe(tmp_path, script(tmp_path / "slow-g++", body))
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert libraries(tmp_path) == []
    use(tmp_path, quick, monkeypatch)
    assert kernel_status().startswith("compiled, ")


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/c++", "there is no /nowhere/c++ ($CXX); set it to a C++ compiler"),
        ("false", "false failed with exit code 1: nothing"),
        ("sh -c 'echo too old >&2; exit 3'", "sh failed with exit code 3: too old"),
    ],
)
def test_without_a_compiler_torch_computes_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert kernels().path == "torch" and kernels().linear is None
    assert kernel_status() == f"torch, slow: {reason}"


def test_a_machine_without_any_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert kernel_status().startswith("torch, slow: no C++ compiler; install g++")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "riallm").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    status = kernel_status()
    if "no C++ compiler" in status:
        pytest.skip(status)
    assert f"cannot build in {tmp_path}/riallm/kernels" in status and "XDG_CACHE_HOME" in status


def test_the_variable_is_honoured_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert kernel_status() == "torch, slow: RIALLM_KERNELS=off"
    kernels.cache_clear()
    monkeypatch.setenv(VARIABLE, "sse")
    with pytest.raises(UsageError, match="RIALLM_KERNELS is 'sse', expected one of: off, plain, avx2, avx512"):
        kernels()
