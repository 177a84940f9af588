"""A set by its name, or by its folder. What is absent on this machine is said aloud, never passed over in silence."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from riallm.core.errors import UsageError
from riallm.eval.bug import Bug
from riallm.eval.sets import benchmarks, folder, injected, smoke, upstream

Say = Callable[[str], None]
NAMES = ("smoke", *injected.SETS, "upstream", *benchmarks.NAMES, "benchmarks", "all")


def load(name: str, *, data: Path, say: Say, limit: int | None = None, seed: int = 0) -> list[Bug]:
    """The bugs of a set. `say` hears what was skipped and why; `limit` draws that many by `seed`, in the set's order.

    Raises UsageError for an unknown name.
    """
    if name == "all":
        bugs = [bug for part in ("injected", "upstream", "benchmarks") for bug in _load(part, data, say)]
    elif name in NAMES:
        bugs = _load(name, data, say)
    elif Path(name).is_dir():
        bugs = folder.load(Path(name))
    else:
        raise UsageError(f"no set '{name}': give one of {', '.join(NAMES)}, or a folder of projects with a bug.json")
    return drawn(bugs, limit, seed)


def drawn(bugs: Sequence[Bug], limit: int | None, seed: int) -> list[Bug]:
    """All, or `limit` of them."""
    if limit is None or limit >= len(bugs):
        return list(bugs)
    return [bugs[at] for at in sorted(random.Random(seed).sample(range(len(bugs)), limit))]


def _load(name: str, data: Path, say: Say) -> list[Bug]:
    if name == "smoke":
        return smoke.load(data)
    if name in injected.SETS:
        return _or_skip(lambda: injected.load(data, name), name, say)
    if name == "upstream":
        bugs = upstream.load()
        if not bugs:
            say("set upstream: SKIPPED, its manifest is not here")
        return bugs
    parts = benchmarks.NAMES if name == "benchmarks" else (name,)
    return [bug for part in parts for bug in _or_skip(lambda part=part: benchmarks.load(part, data), part, say)]  # type: ignore[misc]


def _or_skip(read: Callable[[], list[Bug]], name: str, say: Say) -> list[Bug]:
    try:
        return read()
    except benchmarks.Absent as error:
        say(f"set {name}: SKIPPED, {error}")
        return []
