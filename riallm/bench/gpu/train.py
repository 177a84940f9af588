"""Train for so many minutes, and leave in a folder what may come back.

    python -m riallm.bench.gpu.train --recipe ria_small --minutes 10 --out $OUT

The trainer is a process of its own: where this command is cut off it goes on, and the same command finds it again;
where it died it goes on from its newest save.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riallm.bench.card import machine
from riallm.bench.gpu import command, parts
from riallm.bench.gpu.running import METRICS, RESULT, End, Trainer
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, cache_home, sha256

PLAN, REPORT, MODEL = "plan.json", "report.json", "model.tar"
REHEARSED = ("train.max_steps=6", "train.save_seconds=0.0", "validation_batches=1")
REHEARSED_STAGES = ("seconds=3.0",)
MOST_STAGES = parts.MOST_FILES - 4
"""Each brings its metrics home, beside the report, the recipe, the log and at least one part of the model."""
COLLECTING = 10.0
"""Seconds at the end of a command for writing what comes back."""


def body(argv: Sequence[str]) -> int:
    """Start or find the trainer, look on, collect."""
    parser = command.parser("train", __doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("override", nargs="*", help="settings of the recipe, for instance train.accumulate=4")
    parser.add_argument("--recipe", default="ria_small")
    parser.add_argument("--minutes", type=float, default=10.0, help="all of it: start, training, validation, writing")
    parser.add_argument("--reserve", type=float, default=120.0, help="seconds of those that are not for training")
    parser.add_argument("--wait", type=float, help="minutes that this command lasts at most (default: --minutes)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two lines")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="what may come back goes here")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="the run itself (default: in the cache, by name)")
    options = parser.parse_intermixed_args(argv)
    minutes = options.minutes if options.wait is None else options.wait
    until = time.monotonic() + 60.0 * minutes - (0.0 if options.rehearse else COLLECTING)
    plan = _plan(options)
    work = options.work or cache_home() / "runs" / f"{plan['recipe']}-visit"
    plan = _kept(plan, work)
    trainer = Trainer(work=work, command=[plan["recipe"], *plan["overrides"]])
    end = trainer.watch(until=until, every=options.every, say=command.say)
    num_bytes = collect(trainer, options.out, end, plan)
    command.say(f"{end}: {trainer.progress()}; {num_bytes / parts.MIB:.2f} MiB in {options.out}")
    if end == "failed":
        command.say(trainer.log_tail(4_000))
    if end == "running":
        command.say("the trainer goes on by itself; the same command looks on, and collects the model in the end")
    return 0 if end == "over" else 1


def _plan(options: argparse.Namespace) -> dict[str, Any]:
    """What is trained: fixed by the first command of a folder, since a run's clock and schedule are a part of it."""
    try:
        from riallm.recipes.table import STAGED
    except ImportError as error:
        raise UsageError(f"training needs more than the core: {error}. Run: pip install 'riallm[models]'") from None
    seconds = 60.0 * options.minutes - options.reserve
    if seconds <= 0 and not options.rehearse:
        raise UsageError(f"{options.minutes} minutes less {options.reserve} seconds in reserve leave no training")
    plan = _of_stages if options.recipe in STAGED else _of_one
    name, own = plan(options, seconds)
    return {"recipe": name, "overrides": [*own, *options.override], "given": list(options.override)}


def _of_one(options: argparse.Namespace, seconds: float) -> tuple[str, list[str]]:
    """Name and settings of a recipe that is one run."""
    from riallm.core.config import override
    from riallm.recipes.table import recipe

    name = "ria_smoke" if options.rehearse else options.recipe
    stage, own = recipe(name), list(REHEARSED)
    if not options.rehearse:
        own = [f"train.max_seconds={seconds}"]
        if stage.train.max_seconds:
            own.append(f"batches.later_from={int(stage.batches.later_from * seconds / stage.train.max_seconds)}")
    override(stage, [*own, *options.override])  # a slip shows here, and not in the trainer's log
    return name, own


def _of_stages(options: argparse.Namespace, seconds: float) -> tuple[str, list[str]]:
    """Name and settings of a recipe of several stages, which divides the seconds among them."""
    from riallm.core.config import override
    from riallm.recipes.table import STAGED
    from riallm.train.staged import check_files

    name = "rxt_smoke" if options.rehearse else options.recipe
    own = list(REHEARSED_STAGES) if options.rehearse else [f"seconds={seconds}"]
    made = override(STAGED[name](), [*own, *options.override])
    if len(made.stages) > MOST_STAGES:
        raise UsageError(
            f"{name} has {len(made.stages)} stages; of at most {MOST_STAGES} the metrics can come back, in "
            f"{parts.MOST_FILES} files with all else"
        )
    check_files(made)
    return name, own


def _kept(plan: dict[str, Any], work: Path) -> dict[str, Any]:
    path = work / PLAN
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(plan, indent=1).encode())
        return plan
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if (known["recipe"], known["given"]) != (plan["recipe"], plan["given"]):
        raise UsageError(
            f"{work} holds a run of {known['recipe']} {' '.join(known['given'])}; name another folder by --work"
        )
    return known


def collect(trainer: Trainer, out: Path, end: End, plan: dict[str, Any]) -> int:
    """Leave in `out` the report, the run's records, the log's end, and the model in parts; bytes of all.

    Raises UsageError when that is more than may come back.
    """
    out.mkdir(parents=True, exist_ok=True)
    for path in _records(trainer):
        place = out / path.relative_to(trainer.work)
        place.parent.mkdir(exist_ok=True)
        atomic_write(place, path.read_bytes())
    atomic_write(out / "log.txt", trainer.log_tail().encode())
    told: dict[str, Any] = {"state": end, **plan, "machine": machine(), "gpu": _gpu(), "last_step": trainer.last_step()}
    if end == "over":
        told["result"] = json.loads((trainer.work / RESULT).read_text(encoding="utf-8"))
        data = _archived(trainer.work / "model")
        told["model"] = {"sha256": sha256(data), "bytes": len(data)}
        told["parts"] = [
            {"name": part.name, "bytes": part.bytes, "sha256": part.sha256} for part in parts.split(data, out, MODEL)
        ]
    atomic_write(out / REPORT, json.dumps(told, indent=1).encode())
    return parts.must_fit(out)


def _records(trainer: Trainer) -> list[Path]:
    """What a run wrote down of itself. The result of several stages is in the report alone: files that come back are
    few."""
    metrics = trainer.metrics()
    single = [trainer.work / RESULT] if metrics == [trainer.work / METRICS] else []
    return [path for path in (trainer.work / "stage.json", *metrics, *single) if path.exists()]


def _archived(folder: Path) -> bytes:
    with tempfile.TemporaryFile() as file:
        parts.write_tar(file, ((path.name, path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file()))
        file.seek(0)
        return file.read()


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def main(argv: Sequence[str] | None = None) -> int:
    """0 with the model collected, 1 while the trainer runs on or when it failed, 2 for bad usage."""
    return command.guarded(body, argv)


if __name__ == "__main__":
    sys.exit(main())
