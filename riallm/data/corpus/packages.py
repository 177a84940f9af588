"""What the corpus is made of: an explicit table of releases, and the standard library of the running interpreter.

The table is `packages.json`: name -> version, file, sha256 and SPDX expression of one source archive. Names are chosen
by hand, none is found by searching. `python -m riallm.data.corpus.pin` asks the index again.
"""

from __future__ import annotations

import json
import platform
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from riallm.core.errors import UsageError
from riallm.core.files import sha256
from riallm.data.releases import Sdist, fetch, list_sdists, unpack

TABLE = Path(__file__).with_name("packages.json")
CPYTHON = "cpython"

# Parts of the standard library's folder that are tests, other people's packages, or not source.
_NOT_LIBRARY = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "ensurepip",
    "pydoc_data",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One release. `filename` is empty for the standard library, which is read where it is installed."""

    name: str
    version: str
    filename: str
    sha256: str  # hex digest of the archive; of the standard library, of its files' paths and bytes
    spdx: str


def table(path: Path = TABLE) -> dict[str, Package]:
    """Name -> pinned release. Raises UsageError for a table that cannot be read."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: Package(name=name, **entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path.name} is no table of packages ({error}); restore it or pin again.") from error


def chosen(names: tuple[str, ...], pinned: Mapping[str, Package]) -> list[Package]:
    """The packages of these names, in this order; UsageError names those that are not pinned."""
    missing = [name for name in names if name != CPYTHON and name not in pinned]
    if missing:
        raise UsageError(
            f"not pinned: {', '.join(missing)}; pin them with `python -m riallm.data.corpus.pin {' '.join(missing)}`."
        )
    return [standard_library() if name == CPYTHON else pinned[name] for name in names]


def standard_library() -> Package:
    """The running interpreter's library as a package; its digest changes with every file of it."""
    root = _library_root()
    listing = "".join(f"{path} {sha256((root / path).read_bytes())}\n" for path in _library_files(root))
    return Package(
        name=CPYTHON,
        version=platform.python_version(),
        filename="",
        sha256=sha256(listing.encode()),
        spdx="PSF-2.0",
    )


def archive(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`, fetched when it is not there.

    Raises UsageError when the index cannot be reached, does not list the file, or the bytes are not those pinned.
    """
    path = folder / package.filename
    if path.exists():
        digest = sha256(path.read_bytes())
        if digest != package.sha256:
            raise UsageError(
                f"{path.name} has sha256 {digest}, but {package.sha256} is pinned; delete it from {folder}"
                " and build again, or pin the package anew if you trust the other file."
            )
        return path
    try:
        listed = [sdist for sdist in list_sdists(package.name) if sdist.filename == package.filename]
        if not listed:
            raise UsageError(
                f"the index no longer lists {package.filename}; put it into {folder} yourself, or pin again."
            )
        wanted = Sdist(
            package=package.name,
            version=package.version,
            filename=package.filename,
            url=listed[0].url,
            sha256=package.sha256,
        )
        return fetch(wanted, folder)[0]
    except OSError as error:  # requests' errors are such; so is a full disk
        raise UsageError(
            f"{package.filename} could not be fetched ({error}); check the network and the disk, then build again:"
            " it goes on where it stopped."
        ) from error


@contextmanager
def opened(package: Package, folder: Path) -> Iterator[Path]:
    """A folder with the package's files; an archive is unpacked for as long as the block lasts, and nothing is run."""
    if not package.filename:
        yield _library_root()
        return
    packed = archive(package, folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked-") as scratch:
        yield unpack(packed, Path(scratch) / "release")


def python_files(package: Package, root: Path) -> list[str]:
    """Relative paths of the package's Python files, sorted, with forward slashes."""
    if not package.filename:
        return _library_files(root)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py") if path.is_file())


def _library_root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _library_files(root: Path) -> list[str]:
    found = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not _NOT_LIBRARY & set(relative.parts) and not relative.parts[0].startswith("config-"):
            found.append(relative.as_posix())
    return sorted(found)
