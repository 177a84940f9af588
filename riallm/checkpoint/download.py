"""Models from a Hugging Face hub: only what is read as data, every byte checked against the hub's hashes.

The hub's own client does the transfer and honours HF_ENDPOINT; we go on behind what an interrupted try has got.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from riallm.checkpoint import building
from riallm.checkpoint.building import Hear
from riallm.checkpoint.carried import CARRIED, PICKLED, SUMS
from riallm.core.errors import CheckpointError, UsageError
from riallm.core.files import atomic_write, sync

WANTED = ("*.safetensors", "*.gguf", "*.json", "*.jinja", "LICENSE*", *CARRIED)
HASH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a repository. sha256: of large files; blob: git's hash of small ones."""

    name: str
    num_bytes: int
    sha256: str | None
    blob: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """What was got. revision: the commit."""

    path: Path
    repository: str
    revision: str
    files: tuple[str, ...]
    num_bytes: int


def download(
    repository: str,
    target: Path,
    *,
    revision: str | None = None,
    include: Sequence[str] = (),
    hear: Hear | None = None,
) -> Downloaded:
    """Get a model; the folder is whole or absent, and an interrupted try is gone on with.

    repository: OWNER/NAME. revision: a branch, tag or commit (None: the main branch). include: patterns of weights to
    get (none: all safetensors; else the only GGUF file). Raises UsageError for what the hub does not have or does not
    give, CheckpointError for files that are not what the hub says, pickles alone, or a full disk.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UsageError(f"downloads need more than the core: {error}. Run: pip install 'riallm[serve]'") from None
    if repository.count("/") != 1:
        raise UsageError(f"'{repository}' is no repository; expected OWNER/NAME")
    if target.exists():
        raise CheckpointError(f"{target} is there already; remove it or name another")
    commit, remote = _told(lambda: _listing(huggingface_hub, repository, revision), repository)
    files = chosen(remote, include, repository)
    with building.guarded(target, True), building.scratch(target, resumable=True) as place:
        folder = place / "model"
        folder.mkdir(exist_ok=True)
        _room(folder, files)
        hashes = _fetched(folder, files, repository, commit, hear)
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
        atomic_write(folder / SUMS, text.encode())
        sync(folder)
        folder.rename(target)
        sync(target.parent)
    return Downloaded(
        path=target,
        repository=repository,
        revision=commit,
        files=tuple(file.name for file in files),
        num_bytes=sum(file.num_bytes for file in files),
    )


def _listing(hub: Any, repository: str, revision: str | None) -> tuple[str, list[RemoteFile]]:
    """The commit and its files at the top; those in folders belong to other programs."""
    found = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = [
        RemoteFile(
            name=each.rfilename,
            num_bytes=int(each.size or 0),
            sha256=None if each.lfs is None else each.lfs.sha256,
            blob=each.blob_id,
        )
        for each in found.siblings or ()
    ]
    return str(found.sha), [file for file in files if Path(file.name).name == file.name]


def chosen(remote: Sequence[RemoteFile], include: Sequence[str], repository: str) -> list[RemoteFile]:
    """Which files are got. Raises CheckpointError where the weights are pickles, UsageError where a choice is due."""
    known = [file for file in remote if any(fnmatchcase(file.name, pattern) for pattern in WANTED)]
    small = [file for file in known if not file.name.endswith((".safetensors", ".gguf"))]
    weights = [file for file in known if file not in small]
    if include:
        picked = [file for file in weights if any(fnmatchcase(file.name, pattern) for pattern in include)]
        if not picked:
            names = ", ".join(file.name for file in weights) or "none"
            raise UsageError(f"{repository} has no weights like {', '.join(include)}; it has {names}")
        return [*small, *picked]
    plain = [file for file in weights if file.name.startswith("model") and file.name.endswith(".safetensors")]
    if plain:
        return [*small, *plain]
    packed = [file for file in weights if file.name.endswith(".gguf")]
    if len(packed) > 1 and not all("-of-" in file.name for file in packed):
        raise UsageError(
            f"{repository} has {len(packed)} GGUF files; name one with --include: "
            + ", ".join(file.name for file in packed)
        )
    if packed:
        return [*small, *packed]
    pickled = [file.name for file in remote if file.name.endswith(PICKLED)]
    if pickled:
        raise CheckpointError(
            f"{repository} has its weights in {pickled[0]}, a pickle, which runs code when it is read and is never "
            "loaded; look for a revision or repository with safetensors"
        )
    raise CheckpointError(f"{repository} has neither model*.safetensors nor a GGUF file")


def _room(folder: Path, files: Sequence[RemoteFile]) -> None:
    there = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    needed = sum(file.num_bytes for file in files) - there
    found = os.statvfs(folder)
    if needed > found.f_bavail * found.f_frsize:
        raise CheckpointError(
            f"{folder.parent.parent} has {found.f_bavail * found.f_frsize:,} bytes free; {needed:,} more are needed. "
            "Make room, or name another disk"
        )


def _fetched(
    folder: Path, files: Sequence[RemoteFile], repository: str, commit: str, hear: Hear | None
) -> dict[str, str]:
    """Get all files that are not there yet, and check them; their sha256."""
    total, done = sum(file.num_bytes for file in files), 0
    hashes = {}
    for file in files:

        def advance(num_bytes: int, file: RemoteFile = file, done: int = done) -> None:
            if hear is not None:
                hear(file.name, done + num_bytes, total)

        if not (folder / file.name).exists():
            part = folder / f".{file.name}.part"
            _told(partial(_get, part, file, repository, commit, advance), repository)
            hashes[file.name] = checked(part, file)
            part.rename(folder / file.name)
        else:
            hashes[file.name] = checked(folder / file.name, file)
        done += file.num_bytes
        advance(file.num_bytes)
    return hashes


def _get(part: Path, file: RemoteFile, repository: str, commit: str, advance: Callable[[int], None]) -> None:
    """Append what is missing. The client's own `hf_hub_download` begins anew whenever it is called; the function under
    it does not have to."""
    from huggingface_hub import hf_hub_url, utils
    from huggingface_hub.file_download import http_get

    tools: Any = utils
    tools.disable_progress_bars()
    with part.open("ab") as stream:
        if stream.tell() > file.num_bytes:
            stream.truncate(0)
            stream.seek(0)
        if stream.tell() < file.num_bytes:
            # Compressed on the way, a file has no place to go on from.
            headers = {**tools.build_hf_headers(), "Accept-Encoding": "identity"}
            url = hf_hub_url(repository, file.name, revision=commit)
            http_get(url, cast(BinaryIO, _Told(stream, advance)), resume_size=stream.tell(), headers=headers)
        stream.flush()
        os.fsync(stream.fileno())


class _Told:
    """A file that says how long it has become."""

    def __init__(self, stream: BinaryIO, advance: Callable[[int], None]) -> None:
        self._stream, self._advance = stream, advance
        self.seek, self.tell, self.truncate = stream.seek, stream.tell, stream.truncate

    def write(self, data: bytes) -> int:
        written = self._stream.write(data)
        self._advance(self._stream.tell())
        return written


def checked(path: Path, file: RemoteFile) -> str:
    """The sha256 of what came. Raises CheckpointError, and removes the file, where it is not what the hub says."""
    size = path.stat().st_size
    strong, git = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while data := stream.read(HASH_BYTES):
            strong.update(data)
            git.update(data)
    expected = file.sha256 or file.blob
    found = strong.hexdigest() if file.sha256 else git.hexdigest()
    if size != file.num_bytes or (expected is not None and found != expected):
        path.unlink()
        raise CheckpointError(
            f"{file.name} came with {size} bytes and hash {found}; the hub says {file.num_bytes} and {expected}. It "
            "was removed; the same command gets it again"
        )
    return strong.hexdigest()


def _told(act: Callable[[], Any], repository: str) -> Any:
    """What `act` gives; what the hub refuses, as an error that says what to do."""
    from huggingface_hub import constants, errors

    where = f"{repository} at {constants.ENDPOINT}"
    try:
        return act()
    except errors.GatedRepoError:
        raise UsageError(f"{where} asks for its licence to be accepted there first, by an account of yours") from None
    except errors.RepositoryNotFoundError:
        raise UsageError(f"{where} is not there, or not for everybody; check the name") from None
    except errors.LocalEntryNotFoundError as error:  # the client's word for a hub that does not answer
        raise _unreached(where, error) from None
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise UsageError(f"{where} does not have that: {error}") from None
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.HFValidationError) as error:
        raise UsageError(f"{where} did not give it: {error}. The same command goes on") from None
    except Exception as error:
        # The client lets errors of its HTTP library through, which has another name in each of its versions.
        if type(error).__module__.startswith("http") or isinstance(error, ConnectionError | TimeoutError):
            raise _unreached(where, error) from None
        if isinstance(error, OSError) and error.errno is None:  # its word for fewer bytes than were promised
            raise UsageError(f"{where} did not give it whole: {error} The same command goes on") from None
        raise


def _unreached(where: str, error: Exception) -> UsageError:
    return UsageError(f"{where} cannot be reached: {error}. HF_ENDPOINT names another hub; the same command goes on")
