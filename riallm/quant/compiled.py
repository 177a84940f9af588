"""The compiled kernels: `kernels.cpp`, built at first use with the compiler of the machine, loaded without headers.

The library lies in the cache folder under a name that holds the hash of what it was made from (source, flags, compiler)
and the hash of its own bytes: a half-written or damaged one is never loaded, and two processes that build at the same
time each put a whole one there. Without a compiler, or where a build fails, `riallm.quant.matmul` computes the same
bits in torch, much slower.

RIALLM_KERNELS chooses, read at first use: off (torch), plain (C++ alone), avx2, avx512 (with VNNI). AMX is not used.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError
from riallm.core.files import cache_home, sha256

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-ffp-contract=off", "-w", "-Wl,--as-needed")
PATHS = ("plain", "avx2", "avx512")
"""In the order of the library; each machine has those up to its best."""
VARIABLE = "RIALLM_KERNELS"
_BUILD_SECONDS = 300
_RUNTIME = re.compile(r"/\S*/lib(?:gomp|iomp5|omp)[-.\w]*\.so[.\d]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What computes here. path: one of PATHS, or "torch". linear: the library's function, None for torch.

    reason: why this path and no other, in half a line.
    """

    path: str
    reason: str
    linear: Callable[..., None] | None = None

    @property
    def number(self) -> int:
        """How the library calls the path."""
        return PATHS.index(self.path)


class NotBuilt(Exception):
    """Why there is no library."""


@functools.cache
def kernels() -> Kernels:
    """The path of this process; builds the library when it is not in the cache. Raises UsageError for a
    RIALLM_KERNELS that is unknown or that this processor does not have."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "off", *PATHS):
        raise UsageError(f"{VARIABLE} is {wanted!r}, expected one of: off, {', '.join(PATHS)}; or leave it unset")
    if wanted == "off":
        return Kernels(path="torch", reason=f"{VARIABLE}=off")
    try:
        library = _declared(open_library(SOURCE))
    except NotBuilt as why:
        return Kernels(path="torch", reason=str(why))
    best = library.riallm_best_path()
    if wanted and PATHS.index(wanted) > best:
        raise UsageError(f"{VARIABLE}={wanted}, but the best that this processor has is {PATHS[best]}; unset it")
    reason = f"{VARIABLE}={wanted}" if wanted else "the best that this processor has"
    return Kernels(path=wanted or PATHS[best], reason=reason, linear=library.riallm_linear)


def kernel_status() -> str:
    """One line: what multiplies packed matrices here, and why."""
    found = kernels()
    if found.path == "torch":
        return f"torch, slow: {found.reason}"
    return f"compiled, {found.path}: {found.reason}"


def openmp_runtimes() -> list[str]:
    """Files of the OpenMP runtimes that this process has loaded; empty where the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    return sorted({found[0] for line in lines if (found := _RUNTIME.search(line))})


@functools.cache
def function_of(source: Path, name: str, *arguments: Any) -> Callable[..., None] | None:
    """A function of a file as `open_library` takes it, which gives nothing back, with the types of its arguments; None
    where nothing is compiled."""
    if kernels().linear is None:
        return None
    try:
        found = getattr(open_library(source), name)
    except NotBuilt:
        return None
    found.restype, found.argtypes = None, arguments
    function: Callable[..., None] = found
    return function


def open_library(source: Path) -> ctypes.CDLL:
    """The library of a file of C++ with a C interface, which may include headers of its folder; from the cache, built
    when it is not there. Raises NotBuilt."""
    import torch  # noqa: F401  its OpenMP runtime is to be loaded before ours asks for one

    compiler = _compiler()
    # Naming the file that torch has loaded keeps a second runtime, with threads of its own, out of the process.
    runtimes = openmp_runtimes()[:1]
    made_from = [*compiler, *FLAGS, *(Path(path).name for path in runtimes)]
    code = b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
    key = sha256(b"\0".join((code, shlex.join(made_from).encode(), _version(compiler))))[:16]
    command = [*compiler, *FLAGS, str(source), *runtimes]
    folder = cache_home() / "kernels"
    for path in sorted(folder.glob(f"{key}-*.so")):
        if path.stem == f"{key}-{sha256(path.read_bytes())[:32]}":
            return _opened(path)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    return _opened(_built(command, folder, key))


def _built(command: list[str], folder: Path, key: str) -> Path:
    """Compile into a folder aside, then move the whole file to its name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as aside:
            made = Path(aside) / "kernels.so"
            done = subprocess.run(
                [*command, "-o", str(made)], capture_output=True, text=True, errors="replace", timeout=_BUILD_SECONDS
            )
            if done.returncode != 0:
                said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
                raise NotBuilt(f"{command[0]} failed with exit code {done.returncode}: {said[0][:200]}")
            path = folder / f"{key}-{sha256(made.read_bytes())[:32]}.so"
            made.replace(path)
    except subprocess.TimeoutExpired:
        raise NotBuilt(f"{command[0]} took over {_BUILD_SECONDS} s") from None
    except OSError as error:
        raise NotBuilt(f"cannot build in {folder}: {error}; name another folder in XDG_CACHE_HOME") from None
    return path


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NotBuilt(f"cannot load {path}: {error}") from None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    number, pointer, flag = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    library.riallm_best_path.restype = flag
    library.riallm_linear.restype = None
    library.riallm_linear.argtypes = (
        *(flag, flag, number, number, number, number),  # path, threads, kind, rows, outputs, columns
        *(pointer, flag, pointer, pointer, pointer),  # x, codes, scales, bias
        *(pointer, number, flag, pointer),  # y, workspace
    )
    return library


def _compiler() -> list[str]:
    """The words of the compiler's command: $CXX, or what is on the path."""
    if named := os.environ.get("CXX"):
        words = shlex.split(named)
        if words and shutil.which(words[0]):
            return words
        raise NotBuilt(f"there is no {named} ($CXX); set it to a C++ compiler")
    for name in ("g++", "c++"):
        if shutil.which(name):
            return [name]
    raise NotBuilt("no C++ compiler; install g++ or set CXX, and packed models run many times faster")


def _version(compiler: list[str]) -> bytes:
    """What the compiler says of itself."""
    try:
        return subprocess.run([*compiler, "--version"], capture_output=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{compiler[0]} does not answer: {error}") from None
