"""Opening a sandbox: the strongest tier that really works here, and why the others do not."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from riallm.core.errors import SandboxError
from riallm.sandbox import seccomp
from riallm.sandbox.base import Limits, Policy, Tier
from riallm.sandbox.session import LaunchedSandbox

_ORDER = (Tier.BUBBLEWRAP, Tier.NAMESPACES, Tier.LANDLOCK)
_SWITCHES = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=1"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=0"),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=0"),
)
_PROOF = "it runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class TierReport:
    """Whether a tier works on this machine, found by running something in it.

    reason: why it does not, empty when it does. details: what it makes use of ("limits", "workspace", ...).
    """

    tier: Tier
    available: bool
    reason: str = ""
    details: dict[str, str] = field(default_factory=dict)


def probe() -> list[TierReport]:
    """Try each tier once per process, strongest first; `NONE` is not among them."""
    return [_try(tier) for tier in _ORDER]


def open_sandbox(policy: Policy, *, tier: Tier | None = None, unsafe: bool = False) -> LaunchedSandbox:
    """A sandbox for `policy` on the strongest tier that works, or on `tier` exactly.

    `unsafe=True` allows, when nothing else works, a run with limits only (Tier.NONE). Raises SandboxError when no
    tier may be had, UsageError for a policy that cannot be carried out.
    """
    if tier is Tier.NONE:
        if not unsafe:
            raise SandboxError("the tier 'none' isolates nothing; it is only given with --unsafe")
        return _make(policy, Tier.NONE)
    if tier is not None:
        report = _try(tier)
        if not report.available:
            raise SandboxError(f"the tier '{tier}' is not available: {report.reason}")
        return _make(policy, tier, report)
    for report in map(_try, _ORDER):
        if report.available:
            return _make(policy, report.tier, report)
    if unsafe:
        return _make(policy, Tier.NONE)
    reasons = "; ".join(f"{r.tier}: {r.reason}" for r in probe())
    raise SandboxError(f"no sandbox works here ({reasons}). Install bubblewrap, or accept the risk with --unsafe")


def _make(policy: Policy, tier: Tier, report: TierReport | None = None) -> LaunchedSandbox:
    if tier is not Tier.BUBBLEWRAP:
        return LaunchedSandbox(policy, tier)
    details = report.details if report else {}
    plain = details.get("further namespaces") == "denied by the filter alone"
    return LaunchedSandbox(policy, tier, bubblewrap=details.get("program", ""), disable_userns=not plain)


@cache
def _try(tier: Tier) -> TierReport:
    reason = _hindrance(tier)
    if reason:
        return TierReport(tier=tier, available=False, reason=reason)
    if tier is not Tier.BUBBLEWRAP:
        return _run(tier, {})
    details = {"program": shutil.which("bwrap") or ""}
    report = _run(tier, details)
    if not report.available:  # bubblewrap before 0.8 cannot forbid further namespaces; the filter does
        older = _run(tier, details | {"further namespaces": "denied by the filter alone"})
        report = older if older.available else report
    return report


def _hindrance(tier: Tier) -> str:
    if not sys.platform.startswith("linux"):
        return f"it needs Linux (Windows: WSL); this is {sys.platform}"
    if not seccomp.supported():
        return "system call filters are built for x86_64 and aarch64 only"
    if tier is Tier.BUBBLEWRAP and shutil.which("bwrap") is None:
        return "bubblewrap is not installed (apt-get install bubblewrap)"
    return ""


def _run(tier: Tier, details: dict[str, str]) -> TierReport:
    limits = Limits(seconds=20.0, memory_bytes=256 << 20, disk_bytes=8 << 20, processes=50)
    with tempfile.TemporaryDirectory(prefix="riallm-probe-") as folder:
        policy = Policy(workspace=Path(folder), limits=limits)
        report = TierReport(tier=tier, available=True, details=details)
        try:
            with _make(policy, tier, report) as sandbox:
                done = sandbox.exec(["/bin/sh", "-c", f"echo {_PROOF} > here && cat here"])
                details = details | dict(sandbox.details)
        except SandboxError as error:
            return TierReport(tier=tier, available=False, reason=f"{error}{_hint(tier)}", details=details)
        if done.returncode == 0 and done.stdout.strip() == _PROOF:
            return TierReport(tier=tier, available=True, details=details)
        words = (done.stderr or done.stdout).strip()
        return TierReport(tier=tier, available=False, reason=f"a first command failed: {words}", details=details)


def _hint(tier: Tier) -> str:
    """What an administrator may have closed, for a tier that needs namespaces."""
    if tier is Tier.LANDLOCK:
        return ""
    for name, closed, words in _SWITCHES:
        try:
            value = Path("/proc/sys", name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if value == closed:
            return f". User namespaces are closed to ordinary users here ({words})"
    return ""
