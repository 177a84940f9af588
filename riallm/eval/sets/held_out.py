"""The packages that bugs are injected into. They stay out of every training set, tests and all; so do their forks.

Sources are fetched by name and version, checked by sha256, and never kept in the repository. A package becomes a
flat project: its importable code and its tests at the root, our own pytest settings, and its metadata beside it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from riallm.core.errors import UsageError
from riallm.core.files import cache_home
from riallm.data.releases import Sdist, fetch, list_sdists, unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One release. `code` and `tests` are paths in its source archive; `left_out` are words in the names of tests
    that are not run: tests of speed, tests that take over a second, tests of files that are not packed here."""

    name: str
    version: str
    sha256: str
    licence: str  # SPDX, by the release's own metadata
    code: tuple[str, ...]
    tests: tuple[str, ...] = ("tests",)
    left_out: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Folder name, and what the manifest calls it."""
        return f"{self.name}-{self.version}"


HELD_OUT: dict[str, Held] = {
    held.name: held
    for held in (
        Held(
            name="cachetools",
            version="8.0.1",
            sha256="deb1d376d4d28c2f33f3e3058043b005e0af75c35c094bd54053e27d2906ad95",
            licence="MIT",
            code=("src/cachetools",),
            left_out=("test_lfu_copy_use_counts",),
        ),
        Held(
            name="click",
            version="8.5.1",
            sha256="9bbfada76703fd1d784b83eea012e3e8c6a001a876543ef104fa56aaaeb072b4",
            licence="BSD-3-Clause",
            code=("src/click",),
            left_out=("test_expand_args",),
        ),
        Held(
            name="inflection",
            version="0.5.1",
            sha256="1a29730d366e996aaacffb2f1f1cb9593dc38e2ddd30c91250c6dde09ea9b417",
            licence="MIT",
            code=("inflection",),
            tests=("test_inflection.py",),
        ),
        Held(
            name="isodate",
            version="0.7.2",
            sha256="4cd1aa0f43ca76f4a6c6c0292a85f40b35ec2e43e315b59f06e6d32171a953e6",
            licence="BSD-3-Clause",
            code=("src/isodate",),
        ),
        Held(
            name="mistune",
            version="3.4.0",
            sha256="2eaf7952af928ca8d33b779762effc1da517b62c6ad85ec8ca957e3b07b9782a",
            licence="BSD-3-Clause",
            code=("src/mistune",),
            left_out=("linear", "quickly", "test_project_script_entrypoint"),
        ),
        Held(
            name="more-itertools",
            version="11.2.1",
            sha256="cbf08fd0af284dc69718b9b76a8e6203df624d70209ea511e4219d350c856f63",
            licence="MIT",
            code=("more_itertools",),
            left_out=(
                "test_primes",
                "DiscreteFourier",
                "concurrent",
                "test_nth_prime_approximate",
                "test_lcg_mitigation",
            ),
        ),
        Held(
            name="parse",
            version="1.22.4",
            sha256="706d458feed5a81b02768d3156e8070baf6cee7d150a3a3c0cd43101a875c3b5",
            licence="MIT",
            code=("parse",),
        ),
        Held(
            name="pyflakes",
            version="4.1.0",
            sha256="592beb57058eb82eb190fb7514f2081c555c51000b029ff71286a681e6cf2f83",
            licence="MIT",
            code=("pyflakes",),
            tests=("pyflakes/test",),
        ),
        Held(
            name="schema",
            version="0.7.8",
            sha256="e86cc08edd6fe6e2522648f4e47e3a31920a76e82cce8937535422e310862ab5",
            licence="MIT",
            code=("schema",),
            tests=("test_schema.py",),
            left_out=("test_complex", "test_validate_file"),
        ),
        Held(
            name="semver",
            version="3.1.1",
            sha256="149b26cabada6f63212f97e94505d21578cb1d280cf714827f328d5e70765fea",
            licence="BSD-3-Clause",
            code=("src/semver",),
        ),
        Held(
            name="sqlparse",
            version="0.6.1",
            sha256="ca722573f848ff2d30e40ea30f53a104b7dea7635ea9285891263eb2c58fb6e7",
            licence="BSD-3-Clause",
            code=("sqlparse",),
            left_out=("test_dos_prevention",),
        ),
        Held(
            name="tabulate",
            version="0.10.0",
            sha256="e2cfde8f79420f6deeffdeda9aaec3b6bc5abce947655d17ac662b126e48a60d",
            licence="MIT",
            code=("tabulate",),
            tests=("test",),
        ),
        Held(
            name="unidiff",
            version="1.0.1",
            sha256="d9425bc516390c54743a1045b2c1c97f02d245a913a241dd499f958adb2df998",
            licence="MIT",
            code=("unidiff",),
        ),
        Held(
            name="voluptuous",
            version="0.16.0",
            sha256="006535e22fed944aec17bef6e8725472476194743c87bd233e912eb463f8ff05",
            licence="BSD-3-Clause",
            code=("voluptuous",),
            tests=("voluptuous/tests",),
        ),
        Held(
            name="webcolors",
            version="25.10.0",
            sha256="62abae86504f66d0f6364c2a8520de4a0c47b80c03fc3a5f1815fedbef7c19bf",
            licence="BSD-3-Clause",
            code=("src/webcolors",),
        ),
    )
}
"""Name -> release. Pure Python, permissive, with tests that need nothing but pytest."""


def settings(held: Held) -> str:
    """The text of the project's `pytest.ini`."""
    options = "-m 'not stress'" + (f" -k 'not ({' or '.join(held.left_out)})'" if held.left_out else "")
    names = "test_*.py *_test.py tests.py"
    return f"[pytest]\npython_files = {names}\naddopts = {options}\nmarkers =\n    stress: slow\n"


def release_folder(held: Held, data: Path) -> Path:
    """The flat project of a held-out release below `data`, made when it is not there yet.

    Raises UsageError when the archive cannot be had or is not the one recorded.
    """
    folder = data / "held_out" / held.key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch:
        release = unpack(_archive(held, data / "sdists"), Path(scratch) / "release")
        project = Path(scratch) / "project"
        project.mkdir()
        for path in (*held.code, *held.tests):
            _copy(release / path, project / (PurePosixPath(path).name if path in held.code else path))
        (project / "pytest.ini").write_text(settings(held))
        info = project / f"{held.name.replace('-', '_')}-{held.version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {held.name}\nVersion: {held.version}\n")
        try:
            project.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # another process was first otherwise
                raise UsageError(f"{folder} cannot be made ({error}); give another folder with --data.") from error
    return folder


def _archive(held: Held, folder: Path) -> Path:
    here = [path for path in folder.glob("*") if held.version in path.name and _same(path, held.name)]
    for path in here:
        known = Sdist(package=held.name, version=held.version, filename=path.name, url="", sha256=held.sha256)
        return fetch(known, folder)[0]
    found = [sdist for sdist in list_sdists(held.name) if sdist.version == held.version]
    if not found:
        raise UsageError(f"the index has no source archive of {held.name} {held.version}; see --data.")
    recorded = Sdist(
        package=held.name, version=held.version, filename=found[0].filename, url=found[0].url, sha256=held.sha256
    )
    return fetch(recorded, folder)[0]


def _same(path: Path, name: str) -> bool:
    return path.name.lower().replace("_", "-").startswith(f"{name}-")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)


def is_test_path(held: Held, path: str) -> bool:
    """Whether a file of the flat project belongs to the tests."""
    return any(path == test or path.startswith(test + "/") for test in held.tests)


def code_files(held: Held, folder: Path) -> list[str]:
    """The package's own modules in the flat project, as relative paths, no tests."""
    found = []
    for root in held.code:
        base = folder / PurePosixPath(root).name
        for path in sorted(base.rglob("*.py")) if base.is_dir() else [base]:
            relative = path.relative_to(folder).as_posix()
            if not is_test_path(held, relative):
                found.append(relative)
    return found


def test_files(held: Held, folder: Path) -> list[str]:
    """The test modules of the flat project, as relative paths."""
    found = []
    for root in held.tests:
        base = folder / root
        for path in sorted(base.rglob("*.py")) if base.is_dir() else [base]:
            if path.name.startswith("test_") or path.name.endswith("_test.py") or path.name == "tests.py":
                found.append(path.relative_to(folder).as_posix())
    return found


def default_data() -> Path:
    """Where fetched packages go unless told otherwise: `$RIALLM_EVAL_DATA`, or our cache folder."""

    return Path(os.environ.get("RIALLM_EVAL_DATA") or cache_home() / "eval")
