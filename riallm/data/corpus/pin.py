"""Pins packages anew: `python -m riallm.data.corpus.pin [NAME ...]`, all of the table when no name is given.

Each name is asked of the index once. The newest source release is taken, its archive is kept for the build, and its
licence is read from its own metadata; a release that names no permissive licence is not pinned.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import atomic_write, cache_home
from riallm.data.corpus.licences import permissive
from riallm.data.corpus.packages import TABLE, Package, table
from riallm.data.releases import fetch, licence, list_sdists, metadata, unpack


def pinned(name: str, folder: Path) -> Package:
    """The newest release of `name`; UsageError when there is none, or its licence is not permissive by its metadata."""
    sdist = list_sdists(name)[-1]
    path, digest = fetch(sdist, folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked-") as scratch:
        project = unpack(path, Path(scratch) / "release")
        expression = (metadata(project).get("license-expression") or [licence(project) or ""])[0]
    if not expression or not permissive(expression):
        raise UsageError(
            f"{name} {sdist.version}: the metadata says '{expression or 'nothing'}', no permissive licence"
        )
    return Package(name=name, version=sdist.version, filename=sdist.filename, sha256=digest, spdx=expression)


def write(packages: dict[str, Package], path: Path = TABLE) -> None:
    """Write the table, sorted by name."""
    entries = {}
    for name in sorted(packages):
        entries[name] = asdict(packages[name])
        del entries[name]["name"]
    atomic_write(path, (json.dumps(entries, indent=1) + "\n").encode())


def main(argv: list[str] | None = None) -> int:
    """0 when all names are pinned, 2 when one is not; the others are written all the same."""
    names = sys.argv[1:] if argv is None else argv
    known = table() if TABLE.exists() else {}
    failed = 0
    folder = cache_home() / "corpus" / "sdists"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or sorted(known):
        try:
            known[name] = pinned(name, folder)
        except RiallmError as error:
            failed += 1
            sys.stderr.write(f"{name}: {error}\n")
            continue
        write(known)
        sys.stderr.write(f"{name} {known[name].version} {known[name].spdx}\n")
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
