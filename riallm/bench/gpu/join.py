"""The model folder from the parts that came back.

python -m riallm.bench.gpu.join FOLDER --to MODEL
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from riallm.bench.gpu import command, parts
from riallm.bench.gpu.train import MODEL, REPORT
from riallm.core.errors import UsageError
from riallm.core.files import sha256


def body(argv: Sequence[str]) -> int:
    """Join, check every hash, and move the folder to its place whole."""
    parser = command.parser("join", "A model folder from the parts that came back.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("back"), help="where parts and report.json lie")
    parser.add_argument("--to", type=Path, metavar="MODEL", help="the model folder to be made")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="riallm-join-") as scratch:
        folder, target = options.folder, options.to
        if options.rehearse:
            folder, target = Path(scratch) / "back", options.to or Path(scratch) / "model"
            _rehearsed(Path(scratch) / "made", folder)
        if target is None:
            raise UsageError("--to names the model folder to be made")
        join(folder, target)
        command.say(f"{target}: {', '.join(sorted(path.name for path in target.iterdir()))}")
    return 0


def join(folder: Path, target: Path) -> None:
    """Raises UsageError for parts that are missing or damaged, or a target that is there."""
    if target.exists():
        raise UsageError(f"{target} is there already; remove it or name another")
    try:
        told = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no report of a visit ({error})") from error
    if "parts" not in told:
        raise UsageError(f"{folder / REPORT} says '{told.get('state')}': no model came back from that visit")
    data = parts.joined(folder, parts.parts_of(told["parts"]))
    if sha256(data) != told["model"]["sha256"]:
        raise UsageError(f"{folder}: the parts together are not the model that was cut")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        building = Path(scratch) / "model"
        building.mkdir()
        for name, content in parts.read_tar(io.BytesIO(data)):
            (building / name).write_bytes(content)
        from riallm.checkpoint.folder import verify

        verify(building)
        shutil.move(building, target)


def _rehearsed(made: Path, back: Path) -> None:
    """A tiny model folder, cut as a visit cuts it."""
    import torch

    from riallm.bench.gpu.train import _archived
    from riallm.models.load import save_ria
    from riallm.models.ria import RIA
    from riallm.models.zoo import nano

    torch.manual_seed(0)
    save_ria(RIA(nano(hidden=256, layers=1, inner=256, vocab=64, context=32)), made, bits=4)
    data = _archived(made)
    cut = parts.split(data, back, MODEL, part_bytes=100_000)
    told = {
        "model": {"sha256": sha256(data)},
        "parts": [{"name": part.name, "bytes": part.bytes, "sha256": part.sha256} for part in cut],
    }
    (back / REPORT).write_text(json.dumps(told))


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 2 for parts that are missing or damaged."""
    return command.guarded(body, argv)


if __name__ == "__main__":
    sys.exit(main())
