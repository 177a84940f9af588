"""Files cut into parts that may travel, and put together again; and the limits of a visit.

A tar file is written here with nothing in it that depends on the day or the user, so equal contents give equal bytes.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from riallm.core.config import from_json
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, sha256

MIB = 2**20
MOST_FILES, MOST_FILE_BYTES, MOST_BYTES = 8, 16 * MIB, 64 * MIB
"""What may come back from a visit: files, bytes of each, bytes of all."""

PART_BYTES = 15 * MIB
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a larger file."""

    name: str
    bytes: int
    sha256: str


def split(data: bytes, folder: Path, name: str, *, part_bytes: int = PART_BYTES) -> list[Part]:
    """Write `data` into `folder` as NAME.00, NAME.01 and so on; older parts of that name go away."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}.[0-9][0-9]"):
        old.unlink()
    made = []
    for number, start in enumerate(range(0, len(data), part_bytes)):
        piece = data[start : start + part_bytes]
        atomic_write(folder / f"{name}.{number:02d}", piece)
        made.append(Part(name=f"{name}.{number:02d}", bytes=len(piece), sha256=sha256(piece)))
    return made


def joined(folder: Path, parts: Sequence[Part]) -> bytes:
    """The data that was split. Raises UsageError that names a part that is missing or damaged."""
    pieces = []
    for part in parts:
        path = folder / part.name
        if not path.exists():
            raise UsageError(f"{path} is missing; it has {part.bytes} bytes of {len(parts)} parts. Fetch it again.")
        piece = path.read_bytes()
        if sha256(piece) != part.sha256:
            raise UsageError(
                f"{path} is damaged: {len(piece)} bytes with another sha256 than was noted for its {part.bytes}. "
                "Fetch it again."
            )
        pieces.append(piece)
    return b"".join(pieces)


def parts_of(entries: Iterable[Mapping[str, Any]]) -> list[Part]:
    """Parts from their JSON objects; UsageError for anything else, a name that leads elsewhere included."""
    made = [from_json(Part, entry) for entry in entries]
    for part in made:
        if not _NAME.fullmatch(part.name):
            raise UsageError(f"'{part.name}' is no name of a part")
    return made


def write_tar(stream: IO[bytes], members: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Write the members one behind the other; name -> sha256."""
    hashes = {}
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            hashes[name] = sha256(data)
    return hashes


def read_tar(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """The members of `write_tar`. Raises UsageError for a damaged file, or a name that leads out of a folder."""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for entry in tar:
                steps = entry.name.split("/")
                if not entry.isfile() or len(steps) > 2 or any(not _NAME.fullmatch(step) for step in steps):
                    raise UsageError(f"the member '{entry.name}' is no plain file of ours")
                if any(set(step) <= {"."} for step in steps):
                    raise UsageError(f"the member '{entry.name}' leads elsewhere")
                file = tar.extractfile(entry)
                assert file is not None
                yield entry.name, file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"the parts together are no whole archive ({error}); fetch them again") from error


def must_fit(folder: Path) -> int:
    """Bytes of all that lies in the folder. Raises UsageError when it is more than may come back."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in files)
    wrong = [path.name for path in files if path.stat().st_size > MOST_FILE_BYTES or not _NAME.fullmatch(path.name)]
    if wrong or len(files) > MOST_FILES or total > MOST_BYTES:
        raise UsageError(
            f"{folder} holds {len(files)} files and {total / MIB:.1f} MiB, of which {', '.join(wrong) or 'none'} "
            f"cannot travel at all; at most {MOST_FILES} files of {MOST_FILE_BYTES // MIB} MiB and "
            f"{MOST_BYTES // MIB} MiB together come back. Name an empty folder by --out, or fewer bits."
        )
    return total
