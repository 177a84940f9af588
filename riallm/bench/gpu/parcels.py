"""A corpus and its repairs as one solid xz stream, cut into few files: half of what its shards take.

The rows of a package stand next to its repairs, which are mostly the same text again and so cost next to nothing.
Where the whole is too large, rows of training packages and repairs are drawn by a seed; the manifest then says so.
"""

from __future__ import annotations

import io
import json
import lzma
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from riallm.bench.gpu import parts
from riallm.core.config import to_json
from riallm.core.device import num_cores
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, sha256
from riallm.data import repair_corpus
from riallm.data.corpus import shards
from riallm.data.corpus.manifest import Manifest, PackageRecord, text_of
from riallm.data.corpus.manifest import read as read_manifest

INDEX = "parcels.json"
FORMAT = 1
TRIES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """share: of the training rows that was kept; num_bytes: of all parcels; text_bytes: before compression."""

    share: float
    num_bytes: int
    text_bytes: int
    names: tuple[str, ...]


def pack(
    corpus: Path,
    out: Path,
    *,
    name: str,
    parcel_bytes: int,
    most_bytes: int,
    share: float = 1.0,
    repairs: float = 1.0,
    seed: int = 0,
    preset: int = 9 | lzma.PRESET_EXTREME,
) -> Packed:
    """Write parcels of at most `parcel_bytes` and `most_bytes` together; equal arguments give equal bytes.

    share: of the training rows to begin with, less where it does not fit; repairs: share of the repairs of what is
    kept. Raises UsageError for a corpus that is not built, or that cannot be made to fit.
    """
    manifest = read_manifest(corpus / shards.MANIFEST)
    for _ in range(TRIES):
        stream, read = io.BytesIO(), Counter[str]()
        with lzma.LZMAFile(stream, "wb", preset=preset) as packed:
            hashes = parts.write_tar(packed, _members(corpus, manifest, share, repairs, seed, read))
        data = stream.getvalue()
        if len(data) <= most_bytes:
            break
        share *= 0.97 * most_bytes / len(data)  # too much where all that is kept whole is small, as it is
    else:
        raise UsageError(f"{len(data)} bytes are left after {TRIES} tries, more than {most_bytes}; give --share")
    made = parts.split(data, out, f"{name}.tar.xz", part_bytes=parcel_bytes)
    told = {"format": FORMAT, "corpus": name, "share": share, "repairs": repairs, "seed": seed}
    told |= {"sha256": sha256(data), "members": hashes, "parts": to_json(made)}
    atomic_write(out / INDEX, json.dumps(told, indent=1).encode())
    return Packed(share=share, num_bytes=len(data), text_bytes=read["bytes"], names=tuple(part.name for part in made))


def _members(
    corpus: Path, manifest: Manifest, share: float, repairs: float, seed: int, read: Counter[str]
) -> Iterator[tuple[str, bytes]]:
    records = []
    with_repairs = (corpus / repair_corpus.FOLDER).is_dir()
    for record in manifest.packages:
        own = share if record.split == "train" else 1.0
        lines = _drawn(shards.shard(corpus, record.name), own, f"{seed}:rows:{record.name}")
        records.append(record if own >= 1.0 else _counted(record, lines))
        members = [(f"{record.name}.jsonl", b"".join(lines))]
        if with_repairs:
            path = corpus / repair_corpus.FOLDER / f"{record.name}.jsonl.xz"
            kept = _drawn(path, own * repairs, f"{seed}:repairs:{record.name}")
            members.append((f"{repair_corpus.FOLDER}/{record.name}.jsonl", b"".join(kept)))
        read["bytes"] += sum(len(data) for _, data in members)
        yield from members
    rules = manifest.rules if share >= 1.0 else f"{manifest.rules}; {share:.4f} of the training rows, seed {seed}"
    yield shards.MANIFEST, text_of(replace(manifest, packages=tuple(records), rules=rules))


def _drawn(path: Path, share: float, seed: str) -> list[bytes]:
    """Lines of a file, each kept by a draw of its own, so that a smaller share is a part of a larger one."""
    try:
        with lzma.open(path) as file:
            lines = file.read().splitlines(keepends=True)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UsageError(f"{path} cannot be read ({error}); build the corpus and its repairs again") from error
    draw = random.Random(seed)
    return [line for line in lines if draw.random() < share]


def _counted(record: PackageRecord, lines: list[bytes]) -> PackageRecord:
    """The record of a package of which only these rows are left."""
    documents = [document for line in lines for document in shards.parse(json.loads(line)).documents]
    sizes = [len(document.text.encode()) for document in documents]
    return replace(
        record,
        kept_files=len(documents),
        kept_bytes=sum(sizes),
        test_bytes=sum(size for size, document in zip(sizes, documents, strict=True) if document.is_test),
        rows=len(lines),
        related_documents=sum(bool(document.imports) for document in documents),
        licences=dict(Counter(document.spdx for document in documents)),
        content=sha256(b"".join(lines)),
    )


def index(folder: Path) -> dict[str, object]:
    """What lies beside the parcels. Raises UsageError where there are none."""
    path = folder / INDEX
    try:
        told: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no parcels ({error}); write some: python -m riallm.bench.gpu.pack") from error
    if told.get("format") != FORMAT:
        raise UsageError(f"{path} has format {told.get('format')}; this version reads {FORMAT}")
    return told


def members(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything in the parcels, checked. Raises UsageError for parcels that are damaged."""
    told = index(folder)
    hashes = told["members"]
    assert isinstance(hashes, dict) and isinstance(told["parts"], list)
    data = parts.joined(folder, parts.parts_of(told["parts"]))
    try:
        with lzma.LZMAFile(io.BytesIO(data)) as stream:
            for name, content in parts.read_tar(stream):
                if hashes.pop(name, None) != sha256(content):
                    raise UsageError(f"{folder}: '{name}' is not what was packed")
                yield name, content
    except lzma.LZMAError as error:
        raise UsageError(f"{folder}: the parcels are damaged ({error}); carry them again") from error
    if hashes:
        raise UsageError(f"{folder}: {', '.join(sorted(hashes))} is missing in the parcels")


def unpack(folder: Path, corpus: Path) -> int:
    """Lay the corpus out as it was built; the manifest comes last, so half of a corpus is none. Bytes of text."""
    if (corpus / shards.MANIFEST).exists():
        raise UsageError(f"{corpus} holds a corpus already; remove it, or name another folder by --to")
    (corpus / repair_corpus.FOLDER).mkdir(parents=True, exist_ok=True)
    manifest, total = b"", 0

    def put(name: str, content: bytes) -> None:
        # The fastest preset: this is read once or twice, and then the machine is gone.
        shards.put(corpus / f"{name}.xz", lzma.compress(content, preset=0))

    with ThreadPoolExecutor(num_cores()) as pool:
        jobs = []
        for name, content in members(folder):
            if name == shards.MANIFEST:
                manifest = content
            else:
                jobs.append(pool.submit(put, name, content))
                total += len(content)
        for job in jobs:
            job.result()
    shards.put(corpus / shards.MANIFEST, manifest)
    return total
