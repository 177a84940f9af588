"""Builds a corpus package by package: fetch, filter, compare with everything kept before, order, write.

Each package leaves a shard, the signatures of its files and a record, the record last: a record whose key fits means
that the package is done. The key chains over all packages before it, since what is a copy depends on them. So a
build that was stopped, by Ctrl-C, a full disk or a lost network, goes on at the package where it stopped.
"""

from __future__ import annotations

import io
import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from riallm.core.config import from_json, to_json
from riallm.core.errors import RiallmError
from riallm.core.files import canonical_json, sha256
from riallm.data.corpus import filters, personal, shards
from riallm.data.corpus.decontaminate import Protected
from riallm.data.corpus.duplicates import Kept
from riallm.data.corpus.lex import Tokens, numpy
from riallm.data.corpus.licences import of_file, permissive, without_header
from riallm.data.corpus.manifest import Left, Manifest, PackageRecord, text_of
from riallm.data.corpus.packages import Package, chosen, opened, python_files, table
from riallm.data.corpus.recipe import RULES, CorpusRecipe
from riallm.data.corpus.rows import File, rows
from riallm.data.upstream_project import is_test

Say = Callable[[str], None]


class _Sieve:
    """One package on its way: the files that are kept, and a count for every reason."""

    def __init__(self, package: Package, recipe: CorpusRecipe, protected: Protected, kept: Kept) -> None:
        self.package, self.recipe, self.protected, self.kept = package, recipe, protected, kept
        self.files: dict[str, File] = {}
        self.signatures: list[tuple[str, object]] = []
        self.left: dict[str, list[int]] = {}
        self.contaminated: dict[str, list[str]] = {}
        tests = recipe.package_bytes * recipe.test_share
        self.room = {True: tests, False: recipe.package_bytes - tests}  # bytes left for tests and for code

    def take(self, path: str, data: bytes, held_out: frozenset[str]) -> None:
        """Keep the file, or count why not."""
        reason = self._reason(path, data, held_out)
        if reason:
            count = self.left.setdefault(reason, [0, 0])
            count[0] += 1
            count[1] += len(data)

    def _reason(self, path: str, data: bytes, held_out: frozenset[str]) -> str | None:
        by_path = filters.of_path(path, held_out)
        if by_path == filters.CONTAMINATED:
            self.contaminated.setdefault("held_out", []).append(path)
        if by_path:
            return by_path
        test = is_test(PurePosixPath(path))
        if self.room[test] < len(data):
            return filters.TEST_SHARE if test else filters.PACKAGE_SHARE
        text = filters.decoded(data)
        if text is None:
            return filters.NOT_UTF8
        reason = filters.of_text(text)
        if reason:
            return reason
        spdx = of_file(text, self.package.spdx)
        if not permissive(spdx):
            return filters.LICENCE
        if filters.parsed(path, text) is None:
            return filters.NOT_PYTHON
        text = cleaned(text)
        tokens = Tokens.of(text)
        reason = filters.of_tokens(tokens) or (filters.TOO_SMALL if len(text) < filters.MIN_BYTES else None)
        if reason:
            return reason
        source = filters.parsed(path, text)
        if source is None:
            return filters.NOT_PYTHON
        if personal.holds_secret(text):
            return filters.SECRET
        hit = self.protected.found_in(tokens, text)
        if hit:
            self.contaminated.setdefault(hit, []).append(path)
            return filters.CONTAMINATED
        reason, digest, signature = self.kept.copy_of(tokens)
        if reason:
            return reason
        self.kept.add(digest, signature)
        self.signatures.append((digest, signature))
        self.room[test] -= len(text.encode())
        self.files[path] = File(source=source, spdx=spdx, is_test=test)
        return None


def cleaned(text: str) -> str:
    """A file as the corpus has it: without its licence header, and without e-mail addresses."""
    return personal.without_addresses(without_header(text)).rstrip() + "\n"


def drawn(paths: list[str], package: str) -> list[str]:
    """The order in which files are asked while there is room: code before tests, folder by folder, folders drawn by
    their hash, so that what is kept of a large package is whole folders."""

    def key(path: str) -> tuple[bool, str, str]:
        pure = PurePosixPath(path)
        return is_test(pure), sha256(f"{package}/{pure.parent}".encode()), path

    return sorted(paths, key=key)


def _sieved(
    package: Package, recipe: CorpusRecipe, protected: Protected, kept: Kept, held_out: frozenset[str], archives: Path
) -> tuple[_Sieve, int, int]:
    """(sieve, raw files, raw bytes) of a package. Tests get their room once the code is known."""
    sieve = _Sieve(package, recipe, protected, kept)
    raw = 0
    with opened(package, archives) as root:
        paths = drawn(python_files(package, root), package.name)
        code_known = False
        for path in paths:
            if not code_known and is_test(PurePosixPath(path)):
                code_known = True
                code = sum(len(file.source.text) for file in sieve.files.values())
                share = code * recipe.test_share / (1 - recipe.test_share)
                sieve.room[True] = min(share, sieve.room[True])
            data = (root / path).read_bytes()
            raw += len(data)
            sieve.take(path, data, held_out)
    return sieve, len(paths), raw


def _record(sieve: _Sieve, split: str, raw_files: int, raw_bytes: int, folder: Path) -> PackageRecord:
    """Write the shard; what the package came to."""
    package = sieve.package
    made = list(
        rows(sieve.files, package=package.name, version=package.version, split=split, limit=sieve.recipe.row_bytes)
    )
    content = shards.write(shards.shard(folder, package.name), made)
    sizes = {path: len(file.source.text.encode()) for path, file in sieve.files.items()}
    return PackageRecord(
        name=package.name,
        version=package.version,
        sha256=package.sha256,
        spdx=package.spdx,
        split=split,
        raw_files=raw_files,
        raw_bytes=raw_bytes,
        kept_files=len(sizes),
        kept_bytes=sum(sizes.values()),
        test_bytes=sum(size for path, size in sizes.items() if sieve.files[path].is_test),
        rows=len(made),
        related_documents=sum(bool(document.imports) for row in made for document in row.documents),
        left_out={reason: Left(files=count[0], bytes=count[1]) for reason, count in sorted(sieve.left.items())},
        contaminated={name: tuple(paths) for name, paths in sorted(sieve.contaminated.items())},
        licences=dict(sorted(Counter(file.spdx for file in sieve.files.values()).items())),
        content=content,
    )


def build(
    recipe: CorpusRecipe,
    *,
    folder: Path,
    archives: Path,
    protected: Protected,
    held_out: frozenset[str] = frozenset(),
    pinned: Mapping[str, Package] | None = None,
    say: Say = lambda line: None,
) -> Manifest:
    """Build `recipe` into `folder`; archives are kept in `archives`. Finished packages are not built again.

    `held_out` names the evaluation packages: none may be in the recipe, and their folders are left out elsewhere.
    Raises UsageError for an archive that changed, cannot be fetched or unpacked, and for a full disk.
    """
    packages = chosen(recipe.packages, table() if pinned is None else pinned)
    forbidden = sorted(held_out & {name.replace("-", "_") for name in recipe.packages})
    if forbidden:
        raise RiallmError(
            f"recipe {recipe.name} has {', '.join(forbidden)}, which evaluation sets are made of; remove it"
        )
    for place in (folder, archives):
        place.mkdir(parents=True, exist_ok=True)
    kept = Kept()
    records: list[PackageRecord] = []
    key = sha256(f"{recipe.digest} {protected.digest} {sorted(held_out)} {platform.python_version()}".encode())
    for number, package in enumerate(packages, 1):
        split = "validation" if package.name in recipe.validation else "train"
        key = sha256(f"{key} {canonical_json(to_json(package))} {split}".encode())
        record = _finished(folder, package.name, key, kept)
        if record is None:
            sieve, raw_files, raw_bytes = _sieved(package, recipe, protected, kept, held_out, archives)
            record = _record(sieve, split, raw_files, raw_bytes, folder)
            _finish(folder, key, record, sieve.signatures)
        records.append(record)
        say(
            f"[{number}/{len(packages)}] {package.name} {package.version}: {record.kept_files} of {record.raw_files}"
            f" files, {record.kept_bytes / 1e6:.2f} of {record.raw_bytes / 1e6:.2f} MB"
        )
    manifest = Manifest(
        recipe=recipe.name,
        rules=RULES,
        python=platform.python_version(),
        packages=tuple(records),
        protected_sets=protected.sets,
        protected_digest=protected.digest,
        protected_windows={"code": len(protected.code), "prose": len(protected.prose)},
    )
    shards.put(folder / shards.MANIFEST, text_of(manifest))
    return manifest


def _finish(folder: Path, key: str, record: PackageRecord, signatures: list[tuple[str, object]]) -> None:
    """Leave the signatures, then the record that says that the package is done."""
    np = numpy()
    packed = io.BytesIO()
    values = np.array([values for _, values in signatures], dtype=np.uint32).reshape(len(signatures), -1)
    np.savez_compressed(packed, digests=np.array([digest for digest, _ in signatures], dtype="U64"), values=values)
    shards.put(folder / f"{record.name}.signatures.npz", packed.getvalue())
    shards.put(folder / f"{record.name}.json", canonical_json({"key": key, "record": to_json(record)}).encode())


def _finished(folder: Path, name: str, key: str, kept: Kept) -> PackageRecord | None:
    """The record of a package that is done under this key, its files now known to `kept`; None when it is not."""
    path = folder / f"{name}.json"
    if not path.exists() or not shards.shard(folder, name).exists():
        return None
    entry = json.loads(path.read_text(encoding="utf-8"))
    if entry["key"] != key:
        return None
    np = numpy()
    with np.load(folder / f"{name}.signatures.npz") as packed:
        for digest, values in zip(packed["digests"].tolist(), packed["values"], strict=True):
            kept.add(digest, values)
    return from_json(PackageRecord, entry["record"])
