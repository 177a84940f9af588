"""Bugs injected into whole packages, as the manifests beside this file say: set (a), "injected", is measured on and
stays out of all training; "calibration" chooses weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.core.errors import UsageError
from riallm.data.inject import apply_edits, reverse_edits
from riallm.eval.bug import Bug, digest_of
from riallm.eval.sets import calibration
from riallm.eval.sets.held_out import HELD_OUT, Held, release_folder, test_files

MANIFEST = Path(__file__).parent / "injected.jsonl"
SETS: dict[str, tuple[dict[str, Held], Path]] = {
    "injected": (HELD_OUT, MANIFEST),
    "calibration": (calibration.CALIBRATION, calibration.MANIFEST),
}
"""Name -> its packages, and its manifest."""


def rows(manifest: Path = MANIFEST) -> list[dict[str, Any]]:
    """The manifest's lines."""
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line]


def edits_of(row: dict[str, Any]) -> tuple[Edit, ...]:
    """The edits of a manifest line; spans are those of the correct text."""
    return tuple(Edit(path=row["path"], **edit) for edit in row["edits"])


def write(base: Path, path: str, edits: Sequence[Edit], folder: Path, fixed: bool) -> None:
    """Put a copy of the correct project `base` into `folder`, with `edits` made unless `fixed`.

    Raises UsageError when the project is not the one that the edits were made for.
    """
    shutil.copytree(base, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    if fixed:
        return
    source = Source.parse(path, (folder / path).read_bytes())
    if any(source.text[edit.start : edit.end] != edit.original for edit in edits):
        raise UsageError(f"{base / path} is not the text that the bug was made for; remove {base} and run again")
    (folder / path).write_bytes(source.encode(apply_edits(source.text, edits)))


def load(data: Path, name: str = "injected") -> list[Bug]:
    """All bugs of a set, packages fetched into `data` as needed. Raises UsageError when a package cannot be had."""
    folders = {}
    bugs = []
    packages, manifest = SETS[name]
    for row in rows(manifest):
        held = packages[row["package"]]
        if held.version != row["version"]:
            raise UsageError(f"{row['id']} was made for {held.name} {row['version']}, the table has {held.version}")
        if held.name not in folders:
            folders[held.name] = release_folder(held, data)
        base, edits = folders[held.name], edits_of(row)
        bugs.append(
            Bug(
                id=row["id"],
                set=name,
                pattern=row["pattern"],
                injector=row["injector"],
                write=partial(write, base, row["path"], edits),
                visible=tuple(row["visible"]),
                hidden=tuple(test_files(held, base)),
                withheld=tuple(row["withheld"]),
                gold=reverse_edits(edits),
                digest=digest_of(row["edits"], row["path"], row["visible"], row["withheld"], held.key, held.sha256),
                notes={"truth": digest_of(held.key, held.sha256, held.left_out)},
            )
        )
    return bugs
