"""Rebuild a bug from its releases and see that the record is true: red as it is, green with upstream's hunk."""

from __future__ import annotations

from pathlib import Path

from riallm.core.errors import UsageError
from riallm.data.upstream_bug import Bug, Material, materialise
from riallm.data.upstream_run import ENVIRONMENT, LIMITS
from riallm.sandbox.base import Completed, Policy, Stop
from riallm.sandbox.open import open_sandbox

_GREEN = 0
_RED = 1


def objections(bug: Bug, target: Path, *, cache: Path | None = None) -> list[str]:
    """What is not as the record says; empty when all holds. `target` is a new folder and stays behind.

    Raises SandboxError when nothing can be run.
    """
    try:
        material = materialise(bug, target, cache=cache)
    except UsageError as error:
        return [str(error)]
    found = []
    red = _run(material, material.visible)
    if red.returncode != _RED:
        found.append(f"the visible tests are not red on the older release: {_told(red)}")
    found += [f"{node} is not told red" for node in bug.fixed_tests if f"FAILED {node}" not in red.stdout]
    failed = red.stdout.count("\nFAILED ")
    if failed > len(bug.fixed_tests):
        found.append(f"{failed} tests are red, {len(bug.fixed_tests)} were expected")
    material.file.write_bytes(material.upstream_fix().encode())
    for name, command in (("visible", material.visible), ("hidden", material.hidden)):
        if command:
            green = _run(material, command)
            if green.returncode != _GREEN:
                found.append(f"the {name} tests are not green with upstream's hunk: {_told(green)}")
    return found


def _run(material: Material, command: tuple[str, ...]) -> Completed:
    policy = Policy(workspace=material.project, readable=material.readable, env=ENVIRONMENT, limits=LIMITS)
    with open_sandbox(policy) as sandbox:
        return sandbox.exec(command)


def _told(ended: Completed) -> str:
    """The last line of pytest and how it ended."""
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
    stopped = f", stopped by {Stop(ended.stopped).value}" if ended.stopped else ""
    return f"exit {ended.returncode}{stopped}, {lines[-1][:200] if lines else 'no output'}"
