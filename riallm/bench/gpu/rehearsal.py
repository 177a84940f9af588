"""What rehearsals use in place of the real thing: a corpus from the interpreter's own library."""

from __future__ import annotations

from pathlib import Path

from riallm.core.files import atomic_write
from riallm.data import repair_corpus
from riallm.data.corpus import shards
from riallm.data.corpus.manifest import Manifest, PackageRecord, text_of
from riallm.data.corpus.rows import Row

NAME = "rehearsal"
SPLITS = {"json": "train", "html": "train", "dbm": "validation"}


def corpus(folder: Path) -> None:
    """Three packages of the library with some repairs, laid out as a built corpus is."""
    from riallm.train.documents import standard_library

    records = []
    folder.mkdir(parents=True, exist_ok=True)
    for package, split in SPLITS.items():
        documents = tuple(document for row in standard_library([package]) for document in row)
        # A row for each file, so that rows can be drawn.
        rows = [
            Row(package=package, version="0", split=split, documents=(single,))
            for document in documents
            for single in [type(document)(path=document.path, text=document.text, spdx="PSF-2.0")]
        ]
        content = shards.write(shards.shard(folder, package), rows)
        size = sum(len(document.text.encode()) for document in documents)
        records.append(
            PackageRecord(
                name=package,
                version="0",
                sha256="",
                spdx="PSF-2.0",
                split=split,
                raw_files=len(documents),
                raw_bytes=size,
                kept_files=len(documents),
                kept_bytes=size,
                test_bytes=0,
                rows=len(rows),
                related_documents=0,
                left_out={},
                contaminated={},
                licences={"PSF-2.0": len(documents)},
                content=content,
            )
        )
    manifest = Manifest(
        recipe=NAME, rules="none", python="any", packages=tuple(records), protected_sets=(), protected_digest=""
    )
    atomic_write(folder / shards.MANIFEST, text_of(manifest))
    repair_corpus.write(folder, per_row=1)
