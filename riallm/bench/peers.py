"""Other people's sandboxes, for the escape suite's table: as they come, where they are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from riallm.bench.attacks.run import Runner, free
from riallm.bench.attacks.world import Scene


def runners() -> dict[str, Runner]:
    """Name with version -> runner, for each peer found on PATH."""
    found: dict[str, Runner] = {}
    if shutil.which("bwrap"):
        found[f"plain {_version('bwrap').replace('bubblewrap', 'bwrap')}"] = free(_plain_bubblewrap, inside=True)
    if shutil.which("codex"):
        found[_version("codex").replace("-cli", "")] = free(_codex, inside=True)
    if shutil.which("srt"):
        found[f"srt {_version('srt')}"] = free(_srt, inside=True)
    return found


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return (done.stdout.strip() or done.stderr.strip() or program).splitlines()[-1]


def _plain_bubblewrap(here: Scene) -> list[str]:
    workspace = str(here.workspace)
    words = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-all"]
    return [*words, "--die-with-parent", "--bind", workspace, workspace, "--chdir", workspace, "--"]


def _codex(_: Scene) -> list[str]:
    return ["codex", "sandbox", "-c", 'sandbox_mode="workspace-write"', "--"]


def _srt(here: Scene) -> list[str]:
    settings = here.folder / "srt.json"
    rules = {
        "network": {"allowedDomains": [], "deniedDomains": []},
        "filesystem": {"denyRead": [str(Path(here.world.secret_file).parent)], "allowWrite": ["."], "denyWrite": []},
    }
    settings.write_text(json.dumps(rules))
    return ["srt", "--settings", str(settings), "--"]
