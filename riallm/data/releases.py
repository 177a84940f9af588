"""Source releases of named packages: list, fetch, unpack and read the licence, without running any of their code.

pip is the client: its finder and its session are used as they are configured (index, proxy, certificates), so no
host is named here. `pip download` itself would run a release's build script only to learn its metadata; nothing
here does.
"""

from __future__ import annotations

import importlib
import logging
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import Any

from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, sha256

_FINAL = re.compile(r"\d+(\.\d+)*(\.post\d+)?")
_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".zip")

# What a classifier or a free-text licence field means in SPDX; only licences that allow reuse are here.
_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zope Public License": "ZPL-2.1",
}
_FREE_TEXT = (
    (r"\bMIT\b", "MIT"),
    (r"BSD[- ]?2|2-clause|simplified", "BSD-2-Clause"),
    (r"\bBSD\b|new bsd", "BSD-3-Clause"),
    (r"apache", "Apache-2.0"),
    (r"\bPSF|python software foundation", "PSF-2.0"),
    (r"\bISC\b", "ISC"),
    (r"\bunlicense\b", "Unlicense"),
)
_WORDINGS = {
    "Permission is hereby granted, free of charge, to any person obtaining a copy": "MIT",
    "Redistribution and use in source and binary forms, with or without modification": "BSD-3-Clause",
    "Apache License Version 2.0, January 2004": "Apache-2.0",
}
_PERMISSIVE = {*_CLASSIFIERS.values(), "BSD-2-Clause", "0BSD", "CC0-1.0", "BSD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdist:
    """One source archive of one release, as the index lists it."""

    package: str
    version: str
    filename: str
    url: str
    sha256: str  # hex digest by the index; empty where it gives none

    @property
    def key(self) -> tuple[int, ...]:
        """Sort key of a final version: its numbers, a post-release after its release."""
        release, _, post = self.version.partition(".post")
        numbers = [int(part) for part in release.split(".")]
        while len(numbers) > 1 and numbers[-1] == 0:
            numbers.pop()
        return (*numbers, *([0] * (6 - len(numbers))), int(post or 0))


@contextmanager
def _pip() -> Iterator[tuple[Any, Any]]:
    """pip's (session, finder), configured as the user's pip is; only source archives are looked at."""
    try:
        command = importlib.import_module("pip._internal.commands").create_command("download")
    except ImportError as error:
        raise UsageError(
            f"pip is not importable ({error}); run in an environment made with `python -m venv`."
        ) from error
    logging.getLogger("pip").setLevel(logging.ERROR)
    with command.main_context():
        options, _ = command.parse_args(["--no-binary", ":all:", "nothing"])
        try:
            session = command._build_session(options)
            finder = command._build_package_finder(options, session)
        except (AttributeError, TypeError) as error:
            raise UsageError(
                f"this pip has no finder as pip 23 to 25 have it ({error}); install one of those."
            ) from error
        yield session, finder


def list_sdists(package: str) -> list[Sdist]:
    """Source archives of all final releases of `package` that this Python may run, oldest first."""
    found: dict[tuple[int, ...], Sdist] = {}
    with _pip() as (_, finder):
        for candidate in finder.find_all_candidates(package):
            link = candidate.link
            version = str(candidate.version)
            if not _FINAL.fullmatch(version) or not link.filename.endswith(_ARCHIVES):
                continue
            digest = link.hash if link.hash_name == "sha256" else ""
            sdist = Sdist(
                package=package,
                version=version,
                filename=link.filename,
                url=link.url_without_fragment,
                sha256=digest or "",
            )
            if sdist.key not in found or not sdist.filename.endswith(".zip"):
                found[sdist.key] = sdist
    if not found:
        raise UsageError(f"the index has no source release of '{package}'; check the name and the network.")
    return [found[key] for key in sorted(found)]


def fetch(sdist: Sdist, folder: Path) -> tuple[Path, str]:
    """The archive in `folder` (downloaded unless it lies there) and its sha256.

    Raises UsageError when the download fails or the bytes are not those that `sdist.sha256` names.
    """
    path = folder / sdist.filename
    if path.exists():
        digest = sha256(path.read_bytes())
        if sdist.sha256 in ("", digest):
            return path, digest
    if not sdist.url:
        raise UsageError(f"{sdist.filename} is not in {folder} and no address is known for it.")
    with _pip() as (session, _):
        try:
            response = session.get(sdist.url)
        except OSError as error:  # what pip's own client raises is one
            raise UsageError(f"{sdist.filename}: the index cannot be reached ({error}); try again later.") from error
        if response.status_code != 200:
            raise UsageError(f"{sdist.filename}: the index answered {response.status_code}; try again later.")
        data: bytes = response.content
    digest = sha256(data)
    if sdist.sha256 not in ("", digest):
        raise UsageError(
            f"{sdist.filename}: sha256 is {digest}, expected {sdist.sha256}; the file is not the one recorded."
        )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, data)
    return path, digest


def unpack(archive: Path, target: Path) -> Path:
    """Unpack into the new folder `target` without its top folder; only plain files and folders inside come out.

    Links, devices and members that point outside are left out. Raises UsageError for a damaged archive.
    """
    target.mkdir(parents=True)
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as pack:
                for info in pack.infolist():
                    inside = _inside(info.filename)
                    if inside and not info.is_dir():
                        _put(target / inside, pack.read(info), 0o644)
        else:
            with tarfile.open(archive) as tar:
                for member in tar:
                    inside = _inside(member.name)
                    stream = tar.extractfile(member) if member.isfile() and inside else None
                    if stream and inside:
                        _put(target / inside, stream.read(), 0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise UsageError(f"{archive.name} cannot be unpacked ({error}); delete it and fetch it again.") from error
    return target


def _inside(name: str) -> PurePosixPath | None:
    """`name` without its first folder, or None when nothing is left or it points outside."""
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or name.startswith("/") or ".." in parts:
        return None
    return PurePosixPath(*parts[1:])


def _put(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def metadata(project: Path) -> dict[str, list[str]]:
    """Headers of the release's PKG-INFO, names in lower case; empty when it has none."""
    for path in [
        project / "PKG-INFO",
        *sorted(project.glob("*.egg-info/PKG-INFO")),
        *sorted(project.glob("src/*.egg-info/PKG-INFO")),
    ]:
        if path.is_file():
            headers: dict[str, list[str]] = {}
            for name, value in HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace")).items():
                headers.setdefault(name.lower(), []).append(value)
            return headers
    return {}


def licence(project: Path) -> str | None:
    """SPDX id of the release's permissive licence by its own metadata; None when it names none that we know."""
    headers = metadata(project)
    for expression in headers.get("license-expression", []):
        if all(part in _PERMISSIVE for part in re.split(r"\s+(?:OR|AND)\s+", expression.strip("() "))):
            return expression
        return None
    classified = [value.split(" :: ")[-1] for value in headers.get("classifier", []) if value.startswith("License :: ")]
    named = [name for name in classified if name not in ("OSI Approved", "License")]
    if any(name not in _CLASSIFIERS for name in named):
        return None
    text = " ".join(headers.get("license", []))
    if re.search(r"GPL|Mozilla|MPL", text[:200]):
        return None
    free = next((spdx for pattern, spdx in _FREE_TEXT if re.search(pattern, text[:200], re.IGNORECASE)), None)
    if named:
        spdx = _CLASSIFIERS[named[0]]
        return free if spdx == "BSD-3-Clause" and free and free.startswith("BSD") else spdx
    return free or _by_wording(text + "".join(_licence_texts(project)))


def _licence_texts(project: Path) -> Iterator[str]:
    for path in sorted([*project.glob("LICEN[SC]E*"), *project.glob("COPYING*")]):
        if path.is_file():
            yield path.read_text(encoding="utf-8", errors="replace")


def _by_wording(text: str) -> str | None:
    """SPDX id of a licence text by the sentence that only it has; None when it is none, or several are there."""
    flat = " ".join(text.split())
    found = {spdx for sentence, spdx in _WORDINGS.items() if sentence in flat}
    if re.search(r"General Public License|Mozilla Public", flat, re.IGNORECASE) or len(found) != 1:
        return None
    spdx = found.pop()
    return "BSD-2-Clause" if spdx == "BSD-3-Clause" and not re.search(r"[Nn]either the name", flat) else spdx
