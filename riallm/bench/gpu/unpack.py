"""Parcels laid out as the corpus that they were packed from, where training looks for it.

python -m riallm.bench.gpu.unpack FOLDER
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from riallm.bench.gpu import command, parcels, rehearsal
from riallm.core.files import cache_home
from riallm.data.corpus import shards


def body(argv: Sequence[str]) -> int:
    """Unpack and count the rows."""
    parser = command.parser("unpack", "Restore a corpus from its parcels.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("parcels"), help="where the parcels lie")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="default: the cache, under the corpus's name")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="riallm-unpack-") as scratch:
        folder, target = options.folder, options.to
        if options.rehearse:
            folder, target = Path(scratch) / "parcels", options.to or Path(scratch) / "corpus"
            source = Path(scratch) / rehearsal.NAME
            rehearsal.corpus(source)
            parcels.pack(source, folder, name=rehearsal.NAME, parcel_bytes=20_000, most_bytes=10**9, preset=1)
        target = target or cache_home() / "corpus" / str(parcels.index(folder)["corpus"])
        began = time.monotonic()
        size = parcels.unpack(folder, target)
        rows = {split: sum(1 for _ in shards.read_corpus(target, split)) for split in ("train", "validation")}
    told = ", ".join(f"{num} rows of {split}" for split, num in rows.items())
    command.say(f"{target}: {size / 1e6:.1f} MB, {told}, in {time.monotonic() - began:.1f} s")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 2 for parcels that are not there or damaged."""
    return command.guarded(body, argv)


if __name__ == "__main__":
    sys.exit(main())
