"""Repairs of a whole corpus: bugs put into the functions of its files, once, a file of JSON lines a package.

Drawing a bug takes some milliseconds, too long while a model waits. Which functions get one is a matter of the seed.
"""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from riallm.code.source import Source
from riallm.core.errors import ProjectError, UsageError
from riallm.core.files import canonical_json
from riallm.core.workers import worker_begins
from riallm.data.corpus import shards
from riallm.data.corpus.manifest import read as read_manifest
from riallm.data.inject_site import Library
from riallm.data.repair_rows import Repair, injected

FOLDER = "repairs"


def write(
    folder: Path, *, per_row: int = 48, seed: int = 0, jobs: int = 1, say: Callable[[str], None] = lambda line: None
) -> int:
    """Write the repairs of the corpus in `folder`, up to `per_row` for each of its rows; how many there are now.

    Packages that are done are left as they are. Raises UsageError for a corpus that is not built.
    """
    names = [record.name for record in read_manifest(folder / shards.MANIFEST).packages]
    total = 0
    with ProcessPoolExecutor(max_workers=jobs, initializer=worker_begins) as pool:
        for name, num in zip(names, pool.map(partial(_package, folder, per_row, seed), names), strict=True):
            total += num
            say(f"{name}: {num} repairs, {total} so far")
    return total


def _path(folder: Path, package: str) -> Path:
    return folder / FOLDER / f"{package}.jsonl.xz"


def _package(folder: Path, per_row: int, seed: int, package: str) -> int:
    path = _path(folder, package)
    if path.exists():
        return sum(1 for _ in _read(path))
    found: list[Repair] = []
    for number, row in enumerate(shards.read(shards.shard(folder, package))):
        draw = random.Random(f"{seed}:{package}:{number}")
        sources = []
        for document in row.documents:
            try:
                sources.append(Source.parse(document.path, document.text.encode()))
            except ProjectError:
                continue
        if not sources:
            continue
        library = Library.of(sources)
        # Long files hold more functions, and get more bugs.
        drawn = draw.choices(sources, weights=[len(source.text) for source in sources], k=per_row)
        found += [repair for source in drawn if (repair := injected(source, library, draw)) is not None]
    return _put(path, found)


def _put(path: Path, repairs: Iterable[Repair]) -> int:
    unique = list(dict.fromkeys(repairs))
    lines = b"".join(canonical_json(asdict(repair)).encode() + b"\n" for repair in unique)
    shards.put(path, lzma.compress(lines, preset=1))
    return len(unique)


def of_package(folder: Path, package: str) -> list[Repair]:
    """A package's repairs. Raises UsageError where they have not been written."""
    path = _path(folder, package)
    if not path.exists():
        raise UsageError(f"{folder} has no repairs of {package}: run `riallm data repairs` first.")
    return list(_read(path))


def add(folder: Path, package: str, repairs: Sequence[Repair]) -> int:
    """Put more repairs to those of a package; how many there are now."""
    return _put(_path(folder, package), [*of_package(folder, package), *repairs])


def _read(path: Path) -> Iterator[Repair]:
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield Repair(**json.loads(line))
    except (OSError, EOFError, lzma.LZMAError, ValueError, TypeError) as error:
        raise UsageError(f"{path.name} is no whole file of repairs ({error}); delete it and write it again.") from error


def read(folder: Path, split: str) -> Iterator[Repair]:
    """The repairs of a split's packages. Raises UsageError where a package has none yet."""
    for record in read_manifest(folder / shards.MANIFEST).packages:
        if record.split == split:
            yield from of_package(folder, record.name)
