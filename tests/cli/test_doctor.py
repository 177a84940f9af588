"""`riallm doctor`: what it finds here, and what it says on machines that lack things."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from riallm.cli import doctor
from riallm.core.device import num_cores
from riallm.quant.compiled import kernel_status
from riallm.sandbox.base import Tier
from riallm.sandbox.open import TierReport

ROOT = Path(__file__).parents[2]
WORKS = TierReport(tier=Tier.LANDLOCK, available=True, details={"limits": "rlimits"})
FAILS = TierReport(tier=Tier.BUBBLEWRAP, available=False, reason="bubblewrap is not installed")


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "riallm", "doctor", *args]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)


def shown(health: doctor.Health) -> str:
    console = Console(file=io.StringIO(), width=200)
    doctor.show(health, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_json_is_one_object_with_what_is_here() -> None:
    done = run("--json")
    found = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert found["python"] == platform.python_version()
    assert found["cores"] == num_cores()
    assert found["pytest"] == pytest.__version__
    assert found["kernels"] == kernel_status()
    assert [entry["tier"] for entry in found["tiers"]] == ["bubblewrap", "namespaces", "landlock"]
    assert all(entry["available"] or entry["reason"] for entry in found["tiers"])
    working = [entry["tier"] for entry in found["tiers"] if entry["available"]]
    assert found["sandbox_tier"] == (working[0] if working else None)
    assert done.returncode == (0 if working else 3)


def test_the_table_says_the_same() -> None:
    done, found = run(COLUMNS="200"), json.loads(run("--json").stdout)
    lines = {line[:12].strip(): line[12:].strip() for line in done.stdout.splitlines() if line}
    assert lines["cores"] == str(found["cores"])
    assert lines["sandbox"] == (found["sandbox_tier"] or "none")
    for entry in found["tiers"]:
        assert lines[entry["tier"]].startswith("yes" if entry["available"] else "no")


def test_the_strongest_tier_that_works_is_named_and_the_others_say_why() -> None:
    health = doctor.examine(tiers=lambda: [FAILS, WORKS])
    assert (health.sandbox_tier, health.sandbox_limits) == ("landlock", "rlimits")
    text = shown(health)
    assert "bubblewrap is not installed" in text and "limits: rlimits" in text
    assert "runs nothing of yours" not in text


def test_without_any_sandbox_it_ends_with_3_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = doctor.examine(tiers=lambda: [FAILS])
    assert nowhere.sandbox_tier is None and nowhere.sandbox_limits is None
    assert "Install bubblewrap" in shown(nowhere)
    monkeypatch.setattr(doctor, "examine", lambda: nowhere)
    assert doctor.main([]) == doctor.main(["--json"]) == 3


def test_a_machine_without_git_is_told_so(tmp_path: Path) -> None:
    found = json.loads(run("--json", PATH=str(tmp_path)).stdout)
    assert found["git"] is None


def test_models_are_the_folders_of_weights(tmp_path: Path) -> None:
    for name in ("ria-nano", "half"):
        (tmp_path / name).mkdir()
    (tmp_path / "ria-nano" / "config.json").write_text("{}")
    (tmp_path / "readme.md").write_text("not a model")
    assert doctor.examine(tiers=lambda: [WORKS], weights=tmp_path).models == ("ria-nano",)
    assert doctor.examine(tiers=lambda: [WORKS], weights=tmp_path / "none").models == ()


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert doctor._installed("no-such-distribution") is None
