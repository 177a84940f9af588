"""The manifest: what was kept of each package, what was left out and why; and the notices that licences ask for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riallm.core.config import from_json, to_json
from riallm.core.errors import UsageError
from riallm.core.files import canonical_json, sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """How much was left out for one reason."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRecord:
    """One package. raw: its .py files as released; kept bytes are those after headers and addresses were removed.

    contaminated: evaluation set -> paths that held a passage of it. licences: SPDX -> kept files.
    content: sha256 of the shard's lines.
    """

    name: str
    version: str
    sha256: str
    spdx: str
    split: str
    raw_files: int
    raw_bytes: int
    kept_files: int
    kept_bytes: int
    test_bytes: int
    rows: int
    related_documents: int  # documents with an import of an earlier document of their row
    left_out: dict[str, Left]
    contaminated: dict[str, tuple[str, ...]]
    licences: dict[str, int]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole corpus. protected: how many windows of each kind were held against it, of which sets."""

    recipe: str
    rules: str
    python: str
    packages: tuple[PackageRecord, ...]
    protected_sets: tuple[str, ...]
    protected_digest: str
    protected_windows: dict[str, int] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Hash of the whole: of every package's content, in order."""
        return sha256("".join(f"{record.name} {record.content}\n" for record in self.packages).encode())

    def totals(self, split: str | None = None) -> dict[str, int]:
        """Sums over all packages, or over those of a split."""
        chosen = [record for record in self.packages if split in (None, record.split)]
        names = ("raw_files", "raw_bytes", "kept_files", "kept_bytes", "test_bytes", "rows", "related_documents")
        return {"packages": len(chosen)} | {name: sum(getattr(record, name) for record in chosen) for name in names}

    def left_out(self) -> dict[str, Left]:
        """Reason -> how much of the whole."""
        files: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for record in self.packages:
            for reason, left in record.left_out.items():
                files[reason] += left.files
                size[reason] += left.bytes
        return {reason: Left(files=files[reason], bytes=size[reason]) for reason in files}

    def contaminated(self) -> dict[str, int]:
        """Evaluation set -> files that were left out for it."""
        counts: Counter[str] = Counter()
        for record in self.packages:
            counts.update({name: len(paths) for name, paths in record.contaminated.items()})
        return dict(counts)

    def as_json(self) -> dict[str, Any]:
        """JSON values: the fields, the sums and the hash of the whole."""
        return {
            **to_json(self),
            "totals": self.totals(),
            "train": self.totals("train"),
            "validation": self.totals("validation"),
            "left_out": to_json(self.left_out()),
            "contaminated": self.contaminated(),
            "content": self.content,
        }


_DERIVED = ("totals", "train", "validation", "left_out", "contaminated", "content")


def read(path: Path) -> Manifest:
    """A manifest from disk. Raises UsageError for a file that is none, or was changed by hand."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        stated = entry.get("content")
        manifest = from_json(Manifest, {key: value for key, value in entry.items() if key not in _DERIVED})
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path.name} is no manifest of a corpus ({error}); build the corpus again.") from error
    if manifest.content != stated:
        raise UsageError(f"{path.name} says content {stated}, but its packages give {manifest.content}; build again.")
    return manifest


def text_of(manifest: Manifest) -> bytes:
    """The file's bytes: one package a line, so that a change shows where it is."""
    whole = manifest.as_json()
    packages = ",\n".join("  " + canonical_json(record) for record in whole.pop("packages"))
    rest = json.dumps(whole, indent=1, sort_keys=True).removesuffix("\n}")
    return f'{rest},\n "packages": [\n{packages}\n ]\n}}\n'.encode()


def notices(manifest: Manifest) -> str:
    """Text of a THIRD_PARTY file: every package that a model was trained on, with version, licence and digest."""
    lines = [f"The corpus {manifest.recipe} ({manifest.content[:16]}) was made from these releases:", ""]
    for record in sorted(manifest.packages, key=lambda record: record.name):
        if record.split == "train" and record.kept_files:
            others = sorted(set(record.licences) - {record.spdx})
            more = f"; single files: {', '.join(others)}" if others else ""
            lines.append(f"- {record.name} {record.version}, {record.spdx}{more} (sha256 {record.sha256})")
    return "\n".join(lines) + "\n"
