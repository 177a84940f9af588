"""What the sandbox's tests share beside fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from riallm.sandbox import probe
from riallm.sandbox.base import Tier
from riallm.sandbox.session import LaunchedSandbox

PYTHON = Path("/usr/bin/python3")  # shown by every tier, also to a user who may not enter our own interpreter's folder
MOUNTING = (Tier.BUBBLEWRAP, Tier.NAMESPACES)  # tiers that show the workspace at its own path
Opener = Callable[..., LaunchedSandbox]
NOTES = pytest.StashKey[list[str]]()


def need(tier: Tier) -> Tier:
    """Skip, saying why, where a tier is not to be had."""
    for report in probe():
        if report.tier is tier and not report.available:
            pytest.skip(f"the tier '{tier}' does not work here: {report.reason}")
    return tier


def note(config: pytest.Config, text: str) -> None:
    """Have `text` said at the end of the run."""
    config.stash.setdefault(NOTES, []).append(text)
