"""The manifest as tables for people: packages, reasons, and what evaluation sets cost."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from riallm.data.corpus.filters import REASONS
from riallm.data.corpus.manifest import Manifest


def show(manifest: Manifest, console: Console) -> None:
    """Print the tables; MB are 10^6 bytes of text."""
    table = Table(title=f"Corpus {manifest.recipe}, {manifest.content[:16]}", title_justify="left")
    for name in ("package", "version", "SPDX", "split"):
        table.add_column(name)
    for name in ("raw MB", "kept MB", "share", "tests", "files", "rows", "related"):
        table.add_column(name, justify="right")
    whole = manifest.totals()
    for record in manifest.packages:
        table.add_row(
            record.name,
            record.version,
            record.spdx,
            record.split,
            f"{record.raw_bytes / 1e6:.2f}",
            f"{record.kept_bytes / 1e6:.2f}",
            f"{record.kept_bytes / max(1, whole['kept_bytes']):.1%}",
            f"{record.test_bytes / max(1, record.kept_bytes):.0%}",
            str(record.kept_files),
            str(record.rows),
            str(record.related_documents),
        )
    table.add_section()
    for split in ("train", "validation"):
        sums = manifest.totals(split)
        table.add_row(
            f"{sums['packages']} packages",
            "",
            "",
            split,
            f"{sums['raw_bytes'] / 1e6:.2f}",
            f"{sums['kept_bytes'] / 1e6:.2f}",
            f"{sums['kept_bytes'] / max(1, whole['kept_bytes']):.1%}",
            f"{sums['test_bytes'] / max(1, sums['kept_bytes']):.0%}",
            str(sums["kept_files"]),
            str(sums["rows"]),
            str(sums["related_documents"]),
        )
    console.print(table)
    reasons = Table(title="Left out", title_justify="left")
    reasons.add_column("reason")
    reasons.add_column("files", justify="right")
    reasons.add_column("MB", justify="right")
    left = manifest.left_out()
    for reason in sorted(left, key=REASONS.index):
        reasons.add_row(reason, str(left[reason].files), f"{left[reason].bytes / 1e6:.2f}")
    console.print(reasons)
    sets = Table(title="Left out for an evaluation set", title_justify="left")
    sets.add_column("set")
    sets.add_column("files", justify="right")
    sets.add_column("of packages")
    for name, count in sorted(manifest.contaminated().items()):
        where = [f"{one.name} {len(one.contaminated[name])}" for one in manifest.packages if name in one.contaminated]
        sets.add_row(name, str(count), ", ".join(where))
    console.print(sets)
