"""Parcels of a corpus and its repairs for a machine without a network.

    python -m riallm.bench.gpu.pack --corpus python_full --out FOLDER

Compressing 250 MB takes some minutes on one core, and as long again where a first try does not fit.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from riallm.bench.gpu import command, parcels, rehearsal
from riallm.bench.gpu.parts import MIB
from riallm.core.errors import UsageError
from riallm.core.files import cache_home


def body(argv: Sequence[str]) -> int:
    """Pack, read it all back, tell the sizes."""
    parser = command.parser("pack", "Carry-able parcels of a corpus and its repairs.")
    parser.add_argument("--corpus", default="python_full", help="name of a built corpus, or its folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the parcels go")
    parser.add_argument("--parcel-mib", type=float, default=24.0, help="most of one parcel")
    parser.add_argument(
        "--most-mib", type=float, default=44.0, help="most of all parcels; 64 travel, the tree included"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the training rows, to begin with")
    parser.add_argument("--repairs", type=float, default=1.0, help="share of the repairs")
    parser.add_argument("--seed", type=int, default=0, help="draws the rows that are kept")
    options = parser.parse_args(argv)
    if not (options.parcel_mib > 0.0 and 0.0 < options.share <= 1.0 and 0.0 <= options.repairs <= 1.0):
        raise UsageError("--parcel-mib is above 0, --share above 0 and at most 1, --repairs from 0 to 1")
    with tempfile.TemporaryDirectory(prefix="riallm-pack-") as scratch:
        folder, name, preset = _folder(options.corpus), _folder(options.corpus).name, 9 | lzma.PRESET_EXTREME
        if options.rehearse:
            folder, name, preset = Path(scratch) / rehearsal.NAME, rehearsal.NAME, 6
            rehearsal.corpus(folder)
        made = parcels.pack(
            folder,
            options.out,
            name=name,
            parcel_bytes=int(options.parcel_mib * MIB),
            most_bytes=int(options.most_mib * MIB),
            share=options.share,
            repairs=options.repairs,
            seed=options.seed,
            preset=preset,
        )
    for part in made.names:
        command.say(f"{(options.out / part).stat().st_size / MIB:7.2f} MiB  {part}")
    num = sum(1 for _ in parcels.members(options.out))
    command.say(
        f"{made.num_bytes / MIB:7.2f} MiB  together, of {made.text_bytes / 1e6:.1f} MB: "
        f"{8 * made.num_bytes / max(1, made.text_bytes):.3f} bits a byte; {made.share:.4f} of the training rows; "
        f"all {num} members read back as they were"
    )
    return 0


def _folder(corpus: str) -> Path:
    return Path(corpus) if "/" in corpus else cache_home() / "corpus" / corpus


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 2 for a corpus that is not there or does not fit."""
    return command.guarded(body, argv)


if __name__ == "__main__":
    sys.exit(main())
