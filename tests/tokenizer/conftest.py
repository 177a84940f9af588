"""A few modules of the standard library as texts, and one tokenizer learned from them."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.training import train

MODULES = ("ast", "argparse", "bisect", "calendar", "contextlib", "csv", "dataclasses", "heapq", "inspect", "shlex")
SIZE = 2_048


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Some 300 kB of Python."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [(folder / f"{name}.py").read_text(encoding="utf-8") for name in MODULES]


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> HybridTokenizer:
    return HybridTokenizer(train(texts, size=SIZE))
