"""The interpreter that a release's tests run in: pinned wheels in a shared folder, and a small venv for each project.

Only wheels are installed, so no build script runs; and the package under test is taken out again wherever another
requirement brought a copy of it, so that only the project's own sources can be imported.
"""

from __future__ import annotations

import compileall
import fcntl
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, canonical_json, sha256
from riallm.data.releases import metadata
from riallm.data.upstream_project import import_roots

_INSTALL_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """A folder of installed wheels and what lies in it, as `name==version`."""

    folder: Path
    pins: tuple[str, ...]


def canonical(name: str) -> str:
    """A distribution name in its one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def install(requirements: Sequence[str], *, without: str, home: Path, exact: bool = False) -> Packages:
    """Install `requirements` as wheels below `home`, once, and take the package `without` out again.

    With `exact` the requirements are a full list of pins and nothing else is added.
    Raises UsageError with pip's last words when they cannot be installed.
    """
    wanted = sorted(set(requirements))
    key = sha256(canonical_json([wanted, canonical(without), exact, sys.version_info[:2]]).encode())[:16]
    folder = home / key
    done = home / f"{key}.json"
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two bugs of one package want the same folder at the same moment
        if not done.exists():
            pins = _install(wanted, without, folder, exact)
            atomic_write(done, json.dumps({"pins": sorted(pins), "asked": wanted}, indent=1).encode())
    return Packages(folder=folder, pins=tuple(json.loads(done.read_text())["pins"]))


def _install(wanted: Sequence[str], without: str, folder: Path, exact: bool) -> list[str]:
    """Install into `folder`, which is whole or absent; the pins of what lies in it."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".installing-") as scratch:
        building = Path(scratch) / "packages"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        command += ["--target", str(building), "--no-compile", "--no-warn-conflicts"]
        command += [*(["--no-deps"] if exact else []), *wanted]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        if ended.returncode:
            words = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"pip could not install {', '.join(wanted)}: {words}")
        pins = []
        for found in distributions(path=[str(building)]):
            if canonical(found.metadata["Name"]) == canonical(without):
                _take_out(found, building)
            else:
                pins.append(f"{canonical(found.metadata['Name'])}=={found.version}")
        # Byte code made once here, since a sandbox shows the folder read-only; to compile is not to run.
        compileall.compile_dir(building, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    return pins


def _take_out(found: Distribution, folder: Path) -> None:
    """Delete every file that an installed distribution lists, as far as it lies in `folder`."""
    for entry in found.files or []:
        path = Path(os.path.normpath(folder / entry))
        if path.is_relative_to(folder) and path.is_file():
            path.unlink()


def make_venv(project: Path, packages: Path) -> Path:
    """Make `project`/.venv, whose path is the project's own import roots, then `packages`; gives its interpreter.

    It holds links and two text files only. A `.dist-info` beside it lets the project ask for its own version without
    having been installed.
    """
    venv = project / ".venv"
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (venv / "bin").mkdir()
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    python = venv / "bin" / "python"
    python.symlink_to(base)
    for name in ("python3", f"python{sys.version_info.major}.{sys.version_info.minor}"):
        (venv / "bin" / name).symlink_to("python")
    config = f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {sys.version.split()[0]}\n"
    (venv / "pyvenv.cfg").write_text(config)
    lines = [str(root) for root in import_roots(project)] + [str(packages)]
    (site / "project.pth").write_text("\n".join(lines) + "\n")
    headers = metadata(project)
    name, version = headers.get("name", [""])[0], headers.get("version", [""])[0]
    if name and version:
        info = site / f"{re.sub(r'[-.]+', '_', name)}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        for entry in [*project.glob("*.egg-info/entry_points.txt"), *project.glob("src/*.egg-info/entry_points.txt")]:
            shutil.copyfile(entry, info / "entry_points.txt")
    return python


def readable(packages: Path) -> tuple[Path, ...]:
    """Folders that a sandbox must show for such a venv to run: the base interpreter's prefix and the packages."""
    return (Path(sys.base_prefix), packages)
