"""One real upstream bug as a record, the manifest that lists them, and a bug's project rebuilt from its releases."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, cache_home, canonical_json
from riallm.data import upstream_hunks as hunks
from riallm.data.releases import Sdist, fetch, list_sdists, unpack
from riallm.data.upstream_env import install, make_venv, readable
from riallm.data.upstream_project import overlay
from riallm.data.upstream_run import test_command

MANIFEST = Path(__file__).parents[1] / "eval" / "sets" / "upstream.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A bug of release `version_before` that one hunk of `version_after` mends; paths are project-relative."""

    id: str
    package: str
    version_before: str
    version_after: str
    sdist_before: str  # file name
    sdist_after: str
    sha256_before: str
    sha256_after: str
    licence: str  # SPDX
    path: str  # the file that the hunk changes
    hunk: str  # unified diff, three lines of context
    removed: int  # changed lines
    added: int
    regions: int  # contiguous changes inside the hunk
    fixed_tests: tuple[str, ...]  # node ids: red before the hunk, green with it
    errors: tuple[str, ...]  # exception types of those tests, most frequent first
    test_paths: tuple[str, ...]  # their modules, as release n+1 has them
    visible: tuple[str, ...]  # what pytest is asked for: modules or node ids
    visible_deselect: tuple[str, ...]  # red in the visible part with the hunk too
    visible_seconds: float  # of the visible command, pytest's start included
    hidden: tuple[str, ...]  # the rest of the suite, by module
    hidden_deselect: tuple[str, ...]
    hidden_seconds: float
    requires: tuple[str, ...]  # pinned wheels
    python: str  # version the tests were run with

    @property
    def size(self) -> int:
        """Changed lines of the hunk."""
        return self.removed + self.added

    @property
    def sort_key(self) -> tuple[str, str, str]:
        """Stable order of the manifest."""
        return (self.package, self.version_after, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A bug's project on disk, ready to be repaired.

    `visible` and `hidden` are commands to be run in `project`; `hidden` is empty when no test is left for it.
    `readable` are the folders outside the project that a sandbox must show.
    """

    bug: Bug
    project: Path
    python: Path
    visible: tuple[str, ...]
    hidden: tuple[str, ...]
    readable: tuple[Path, ...]

    @property
    def file(self) -> Path:
        """The file that upstream's hunk changes."""
        return self.project / self.bug.path

    def upstream_fix(self) -> str:
        """The text of `file` with upstream's own hunk."""
        return hunks.patch(read_source(self.file), self.bug.hunk)


def read_source(path: Path) -> str:
    """Text of a source file, its line ends as they are; UnicodeDecodeError when it is not UTF-8."""
    return path.read_bytes().decode("utf-8")


def load(path: Path = MANIFEST) -> list[Bug]:
    """The bugs of a manifest, in its order. Raises UsageError for a line that is not one."""
    bugs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            bugs.append(parse(json.loads(line)))
        except ValueError as error:
            raise UsageError(f"{path.name}, line {number} is not a bug record: {error}") from error
    return bugs


def parse(entry: dict[str, Any]) -> Bug:
    """A bug from its JSON object; ValueError when fields are missing or unknown."""
    names = {field.name for field in fields(Bug)}
    if set(entry) != names:
        raise ValueError(f"fields differ: {', '.join(sorted(set(entry) ^ names))}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Bug(**values)


def save(bugs: Iterable[Bug], path: Path = MANIFEST) -> None:
    """Write a manifest: one line of canonical JSON a bug, in the stable order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [canonical_json(asdict(bug)) + "\n" for bug in sorted(bugs, key=lambda bug: bug.sort_key)]
    atomic_write(path, "".join(lines).encode())


def home() -> Path:
    """Folder of downloads, packages and mining state."""
    return cache_home() / "upstream"


def materialise(bug: Bug, target: Path, *, cache: Path | None = None) -> Material:
    """Rebuild the buggy project in the new folder `target`: sources of n, tests of n+1, a .venv, nothing executed.

    Archives and wheels come from `cache` (default `home()`), and from the index where they are not there yet.
    Raises UsageError when `target` exists, an archive is not the recorded one, or a pin cannot be installed.
    """
    cache = cache or home()
    if target.exists():
        raise UsageError(f"{target} exists already; name a folder that does not.")
    archives = {}
    for version, filename, digest in (
        (bug.version_before, bug.sdist_before, bug.sha256_before),
        (bug.version_after, bug.sdist_after, bug.sha256_after),
    ):
        known = Sdist(package=bug.package, version=version, filename=filename, url="", sha256=digest)
        if not (cache / "sdists" / filename).exists():
            listed = [sdist for sdist in list_sdists(bug.package) if sdist.filename == filename]
            if not listed:
                raise UsageError(f"the index no longer lists {filename}; put it into {cache / 'sdists'} yourself.")
            known = Sdist(package=bug.package, version=version, filename=filename, url=listed[0].url, sha256=digest)
        archives[version] = fetch(known, cache / "sdists")[0]
    packages = install(bug.requires, without=bug.package, home=cache / "packages", exact=True)
    try:
        unpack(archives[bug.version_before], target)
        with tempfile.TemporaryDirectory() as scratch:
            overlay(target, unpack(archives[bug.version_after], Path(scratch) / "newer"))
        hunks.patch(read_source(target / bug.path), bug.hunk)
        python = make_venv(target, packages.folder)
    except (ValueError, OSError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise UsageError(f"{bug.id} cannot be rebuilt: {error}") from error
    hidden = test_command(str(python), bug.hidden, deselect=bug.hidden_deselect) if bug.hidden else []
    return Material(
        bug=bug,
        project=target,
        python=python,
        visible=tuple(test_command(str(python), bug.visible, deselect=bug.visible_deselect)),
        hidden=tuple(hidden),
        readable=readable(packages.folder),
    )
