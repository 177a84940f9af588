"""The two commands of a bug, settled by running them: the visible tests that show it, and the hidden rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from riallm.data.upstream_run import Outcome, Report

VISIBLE_SECONDS = 5.0
_CROWD = 20  # a hidden module with more tests than this that stay red is left out
_CROWD_VISIBLE = 40

Run = Callable[[Sequence[str], bool], Report]
"""Runs tests on the older release; True: with the hunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """What pytest is asked for, what it is told to leave out, and what the visible part shows."""

    visible: tuple[str, ...]
    visible_deselect: tuple[str, ...]
    visible_seconds: float
    hidden: tuple[str, ...]
    hidden_deselect: tuple[str, ...]
    hidden_seconds: float
    fixed: dict[str, Outcome]  # by node id, as they fail without the hunk


def modules_of(nodes: Iterable[str]) -> list[str]:
    """The modules of node ids."""
    return sorted({node.split("::")[0] for node in nodes})


def settle(run: Run, fixed: frozenset[str], never: frozenset[str], suite: Sequence[str]) -> Commands | None:
    """The commands for a hunk that turns `fixed` green and leaves `never` red in the whole suite.

    The visible command is the modules of `fixed` or, where that takes over VISIBLE_SECONDS, their functions alone. Each
    part is run by itself, since tests may behave differently without the others. None when no such command tells
    the two states apart.
    """
    paths = modules_of(fixed)
    away = {node for node in never if node.split("::")[0] in paths}
    visible, hidden = list(paths), [module for module in suite if module not in paths]
    with_hunk = run(visible, True)
    if with_hunk.seconds > VISIBLE_SECONDS or len(away) > _CROWD_VISIBLE:
        visible, hidden = sorted({node.split("[")[0] for node in fixed}), list(suite)
        away = {node for node in never if node.split("[")[0] in visible}
        with_hunk = run(visible, True)
    without = run(visible, False)
    shown = without.failed() & with_hunk.passed()
    away |= with_hunk.failed() | (without.failed() - shown)
    seconds = max(with_hunk.seconds, without.seconds)
    usable = with_hunk.ended and without.ended and not with_hunk.uncollected and not without.uncollected
    # pytest deselects by prefix, so a test that stays red must not be the beginning of a mended one.
    if (
        not usable
        or not shown
        or seconds > VISIBLE_SECONDS
        or any(node.startswith(tuple(away)) for node in shown if away)
    ):
        return None
    modules, left_out, hidden_seconds = _hidden(run, hidden, never)
    return Commands(
        visible=tuple(visible),
        visible_deselect=tuple(sorted(away)),
        visible_seconds=round(seconds, 2),
        hidden=tuple(modules),
        hidden_deselect=tuple(sorted(left_out)),
        hidden_seconds=round(hidden_seconds, 2),
        fixed={node: without.tests[node] for node in sorted(shown)},
    )


def _hidden(run: Run, modules: Sequence[str], never: frozenset[str]) -> tuple[list[str], set[str], float]:
    """Hidden modules that are green with the hunk, the tests to leave out of them, and the seconds of a run."""
    if not modules:
        return [], set(), 0.0
    first = run(modules, True)
    red = never | first.failed()
    crowd = Counter(node.split("::")[0] for node in red)
    green, broken = set(modules_of(first.passed())), set(modules_of(first.uncollected))
    kept = [name for name in modules if name in green and name not in broken and crowd[name] <= _CROWD]
    if not kept:
        return [], set(), 0.0
    second = run(kept, True)
    spoilt = set(modules_of(second.failed() - red)) | set(modules_of(second.uncollected))
    kept = [name for name in kept if name not in spoilt] if second.ended else []
    return kept, {node for node in red if node.split("::")[0] in kept}, second.seconds
