"""`riallm doctor`: what this machine offers, and what is missing. It runs the sandbox's probes and changes nothing."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

import riallm
from riallm.core.device import memory, num_cores
from riallm.core.errors import SandboxError
from riallm.core.shipped import home, names
from riallm.sandbox.open import TierReport, probe

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What was found. Versions are None for what is not installed; bytes are None where the system does not say.

    sandbox_tier: the strongest tier that works, None when none does.
    sandbox_limits: what enforces memory and process limits in that tier, in the sandbox's own words.
    tiers: every tier, strongest first; the reason why it is not there, or what it makes use of.
    models: names of the models in the package. kernels: what multiplies packed weights here, and why.
    """

    riallm: str
    python: str
    executable: str
    system: str
    torch: str | None
    pytest: str | None
    git: str | None
    cores: int
    memory_bytes: int | None
    memory_available_bytes: int | None
    sandbox_tier: str | None
    sandbox_limits: str | None
    tiers: tuple[TierReport, ...]
    models: tuple[str, ...]
    kernels: str | None


def main(argv: list[str]) -> int:
    """Print the findings; 0, or 3 when there is no sandbox at all."""
    parser = argparse.ArgumentParser(prog="riallm doctor", description="What this machine offers, and what is missing.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(argv)
    health = examine()
    if options.json:
        sys.stdout.write(json.dumps(asdict(health)) + "\n")
    else:
        show(health, Console())
    return 0 if health.sandbox_tier else SandboxError.exit_code


def examine(*, tiers: Callable[[], Sequence[TierReport]] = probe, weights: Path | None = None) -> Health:
    """Look at the machine."""
    found = memory()
    reports = tuple(tiers())
    best = next((report for report in reports if report.available), None)
    return Health(
        riallm=riallm.__version__,
        python=platform.python_version(),
        executable=sys.executable,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        torch=_installed("torch"),
        pytest=_installed("pytest"),
        git=_git(),
        cores=num_cores(),
        memory_bytes=found.total_bytes,
        memory_available_bytes=found.available_bytes,
        sandbox_tier=best.tier if best else None,
        sandbox_limits=best.details.get("limits") if best else None,
        tiers=reports,
        models=tuple(names(weights or home())),
        kernels=_kernels(),
    )


def show(health: Health, console: Console) -> None:
    """The findings as a table, one line each, then what to do about a missing sandbox."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("riallm", health.riallm)
    table.add_row("Python", f"{health.python}  {health.executable}")
    table.add_row("system", health.system)
    table.add_row("cores", str(health.cores))
    table.add_row("memory", f"{_gibibytes(health.memory_bytes)}, {_gibibytes(health.memory_available_bytes)} free")
    table.add_row("pytest", health.pytest or "not installed: pip install pytest")
    table.add_row("git", health.git or "not installed; riallm works without it")
    table.add_row(
        "torch", health.torch or "not installed; only models and training need it: pip install 'riallm[models]'"
    )
    if health.kernels is not None:
        table.add_row("kernels", health.kernels)
    table.add_row("models", ", ".join(health.models) or "none yet; edits come from operators and an n-gram model")
    table.add_row("sandbox", Text(health.sandbox_tier or "none", style="green" if health.sandbox_tier else "bold red"))
    for report in health.tiers:
        mark = Text("yes  " if report.available else "no   ", style="green" if report.available else "yellow")
        uses = "; ".join(f"{name}: {text}" for name, text in report.details.items() if not text.isdigit())
        why = uses if report.available else report.reason
        table.add_row(f"  {report.tier}", mark + Text(why))
    console.print(table, highlight=False)
    if health.sandbox_tier is None:
        console.print("\nWithout a sandbox riallm runs nothing of yours. Install bubblewrap, or see the reasons above.")


def _gibibytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB"


def _installed(distribution: str) -> str | None:
    """Version of an installed package, from its metadata."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _kernels() -> str | None:
    """The one question for which torch is loaded, and a compiler may run for some seconds; None without torch."""
    if _installed("torch") is None:
        return None
    from riallm.quant.compiled import kernel_status

    return kernel_status()


def _git() -> str | None:
    """Version of git, None when there is none that answers."""
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().removeprefix("git version ") if done.returncode == 0 else None
