"""Many bugs, some at a time, every result on the disk before the next one starts; what is there is not done again."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from riallm.core.errors import SandboxError
from riallm.core.files import sha256
from riallm.core.workers import worker_begins
from riallm.eval.bug import Bug
from riallm.eval.tasks.repair import Settings, evaluate
from riallm.eval.tasks.repair_store import Results, Verdicts

Row = dict[str, Any]


def run(
    bugs: Sequence[Bug], settings: Settings, out: Path, *, jobs: int, on_row: Callable[[Row], None] = lambda row: None
) -> list[Row]:
    """Evaluate what `out` does not hold yet; returns the rows of all `bugs`, in their order.

    Raises SandboxError when there is no sandbox. KeyboardInterrupt leaves everything that is finished.
    """
    results = Results(out, config(settings))
    known = results.latest()
    waiting = [bug for bug in bugs if known.get(bug.id, {}).get("digest") != bug.digest]
    for bug in bugs:
        if bug not in waiting:
            on_row(known[bug.id])
    for row in _rows(waiting, settings, out, jobs):
        results.append(row)
        known[row["id"]] = row
        on_row(row)
    return [known[bug.id] for bug in bugs]


def config(settings: Settings) -> dict[str, Any]:
    """What results belong to: resuming under other settings would mix them."""
    model = {"model": sha256((settings.model / "manifest.json").read_bytes())} if settings.model else {}
    return {
        **model,
        "arms": list(settings.arms),
        "candidates": settings.candidates,
        "pool": settings.pool,
        "seconds_per_bug": settings.seconds_per_bug,
        "look_on": settings.look_on,
        "judged": settings.judged,
        "seed": settings.seed,
    }


def _rows(bugs: Sequence[Bug], settings: Settings, out: Path, jobs: int) -> Iterator[Row]:
    if jobs <= 1 or len(bugs) < 2:
        for bug in bugs:
            yield one(bug, settings, out)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(max_workers=jobs, mp_context=context, initializer=worker_begins)
    try:
        waiting: set[Future[Row]] = set()
        left = iter(bugs)
        for bug in left:
            waiting.add(pool.submit(one, bug, settings, out))
            if len(waiting) < 2 * jobs:
                continue
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


def one(bug: Bug, settings: Settings, out: Path) -> Row:
    """One bug's row. An error of ours becomes a row of status "error" with its traceback: it is told, and tried
    again by the next run; only a missing sandbox ends the run."""
    verdicts = Verdicts(out / "verdicts.sqlite")
    try:
        return evaluate(bug, settings, verdicts, out / "work")
    except SandboxError:
        raise
    except Exception:
        head = {"id": bug.id, "set": bug.set, "pattern": bug.pattern, "injector": bug.injector, "digest": bug.digest}
        return {**head, "status": "error", "reason": traceback.format_exc()[-2000:]}
    finally:
        verdicts.close()
