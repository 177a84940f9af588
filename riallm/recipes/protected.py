"""What no corpus may hold: the texts of every evaluation set, for a filter that keeps only their hashes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riallm.code.source import parse_text
from riallm.core.errors import UsageError
from riallm.data import upstream_bug
from riallm.data.corpus.decontaminate import Text
from riallm.data.releases import Sdist, fetch, list_sdists, unpack
from riallm.eval.sets import benchmark_items, held_out, smoke

# Fields of SWE-bench that are diffs: what they leave behind is the answer.
_DIFFS = ("patch", "test_patch")
_SHORTEST = 60  # characters; ids, labels and single words say nothing


def names() -> frozenset[str]:
    """Import names of all packages that evaluation sets are made of."""
    found = {*held_out.HELD_OUT, *(bug.package for bug in upstream_bug.load())}
    return frozenset({name.replace("-", "_") for name in found} | {"dateutil", "slugify", "jwt"})


def texts(*, benchmarks: Path | None, archives: Path) -> Iterator[Text]:
    """Every protected text: benchmarks, held-out packages, packages of upstream bugs, modules of the smoke set.

    Raises UsageError when the benchmarks are not there or an archive cannot be had.
    """
    yield from benchmark_texts(benchmark_items.root(benchmarks))
    for held in held_out.HELD_OUT.values():
        sdist = Sdist(package=held.name, version=held.version, filename="", url="", sha256=held.sha256)
        yield from _release(sdist, "held_out", archives)
    seen = set()
    for bug in upstream_bug.load():
        for version, filename, digest in (
            (bug.version_before, bug.sdist_before, bug.sha256_before),
            (bug.version_after, bug.sdist_after, bug.sha256_after),
        ):
            if digest not in seen:
                seen.add(digest)
                sdist = Sdist(package=bug.package, version=version, filename=filename, url="", sha256=digest)
                yield from _release(sdist, "upstream", archives)
    for name in smoke.MODULES:
        yield Text(set="smoke", text=smoke.module_text(name).decode(), code=True)


def benchmark_texts(root: Path) -> Iterator[Text]:
    """Every string of every file below the folder; those that are Python, or a diff, count as code as well."""
    for path in sorted(root.glob("*/*")):
        for key, text in _strings(path):
            if len(text) < _SHORTEST:
                continue
            if key in _DIFFS:
                for hunk in _left_behind(text):
                    yield Text(set=path.parent.name, text=hunk, code=True)
            else:
                yield Text(set=path.parent.name, text=text, code=_is_python(text), prose=True)


def _strings(path: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of the strings of a data file; licences and read-me files are none."""
    if path.name.endswith(".jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield from _inner("", json.loads(line))
    elif path.name.endswith(".csv.gz"):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.reader(io.StringIO(file.read())):
                yield from (("", cell) for cell in row)
    elif path.suffix == ".json":
        yield from _inner("", json.loads(path.read_text(encoding="utf-8")))


def _inner(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _inner(str(name), item)
    elif isinstance(value, list):
        for item in value:
            yield from _inner(key, item)


def _is_python(text: str) -> bool:
    if "\n" not in text.strip() and "(" not in text:
        return False
    try:
        parse_text(textwrap.dedent(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _left_behind(diff: str) -> Iterator[str]:
    """The text after each hunk of a diff to Python files; hunks that add nothing are left out."""
    for part in re.split(r"^diff --git ", diff, flags=re.MULTILINE):
        if not part.split("\n", 1)[0].endswith(".py"):
            continue
        for hunk in re.split(r"^@@.*$", part, flags=re.MULTILINE)[1:]:
            lines = hunk.split("\n")
            if any(line.startswith("+") for line in lines):
                yield "\n".join(line[1:] for line in lines if line[:1] in ("+", " "))


def _release(sdist: Sdist, name: str, archives: Path) -> Iterator[Text]:
    archives.mkdir(parents=True, exist_ok=True)
    found = archives / sdist.filename if sdist.filename else None
    if found is None or not found.exists():
        try:
            listed = [one for one in list_sdists(sdist.package) if one.version == sdist.version]
        except OSError as error:
            raise UsageError(f"{sdist.package} could not be looked up ({error}); check the network.") from error
        if not listed:
            raise UsageError(f"the index has no source archive of {sdist.package} {sdist.version}; try again later.")
        sdist = Sdist(
            package=sdist.package,
            version=sdist.version,
            filename=listed[0].filename,
            url=listed[0].url,
            sha256=sdist.sha256,
        )
    with tempfile.TemporaryDirectory(dir=archives, prefix=".unpacked-") as scratch:
        project = unpack(fetch(sdist, archives)[0], Path(scratch) / "release")
        for path in sorted(project.rglob("*.py")):
            yield Text(set=name, text=path.read_text(encoding="utf-8", errors="replace"), code=True)
