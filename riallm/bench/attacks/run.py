"""Running attacks: in a tier, free (the control), or in somebody else's sandbox; and judging from outside."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from riallm.bench.attacks.attack import PRELUDE, Attack, Proof
from riallm.bench.attacks.world import SEGMENTS, Scene, World, end, living, remove, scene, sweep
from riallm.core.errors import UsageError
from riallm.sandbox import open_sandbox
from riallm.sandbox.base import Limits, Policy, Tier
from riallm.sandbox.interpreter import prefixes

_OUTPUT = 1 << 20
_AT_ONCE = 3
_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f]")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run showed: output as kept, and whether nothing but we ended it."""

    stdout: str
    stderr: str
    overran: bool = False


Runner = Callable[[Attack, Scene], Seen]


def python() -> Path:
    """The interpreter of the attacks: the system's, which every sandbox shows, else ours."""
    system = Path("/usr/bin/python3")
    return system if system.exists() else Path(sys.executable)


def in_tier(tier: Tier) -> Runner:
    """Run attacks in a tier of ours."""

    def run(attack: Attack, here: Scene) -> Seen:
        limits = Limits(seconds=attack.seconds, disk_bytes=attack.disk_bytes, output_bytes=_OUTPUT)
        shown = (here.prefix, *prefixes(python()))
        with open_sandbox(Policy(workspace=here.workspace, readable=shown, limits=limits), tier=tier) as sandbox:
            done = sandbox.exec(_command(attack, here, inside=True), keep=attack.keep)
            if attack.then_write:
                with contextlib.suppress(UsageError):
                    sandbox.write_file(attack.then_write, here.mark.encode())
            if attack.keep:
                sandbox.apply()
        return Seen(done.stdout, done.stderr)

    return run


def free(wrap: Callable[[Scene], Sequence[str]] = lambda _: (), *, inside: bool = False) -> Runner:
    """Run attacks as plain processes, behind the words of `wrap` where another sandbox is tried."""

    def run(attack: Attack, here: Scene) -> Seen:
        read, held = os.pipe()  # stdin stays open and silent, as a terminal that nobody types at
        process = subprocess.Popen(
            [*wrap(here), *_command(attack, here, inside=inside)], cwd=here.workspace, start_new_session=True,
            stdin=read, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=False,
        )  # fmt: skip
        here.started = process
        out, err, overran = b"", b"", False
        try:
            out, err = process.communicate(timeout=attack.seconds + 1)
        except subprocess.TimeoutExpired:
            overran = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            out, err = _what_came(process)
        finally:
            os.close(read)
            os.close(held)
        if attack.then_write:
            with contextlib.suppress(OSError):
                (here.workspace / attack.then_write).write_text(here.mark)
        return Seen(out.decode("utf-8", "replace"), err.decode("utf-8", "replace"), overran)

    return run


def _what_came(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Output so far of a process that was told to end; what holds its pipes is not waited for."""
    try:
        return process.communicate(timeout=0.5)
    except subprocess.TimeoutExpired as waited:
        return waited.stdout or b"", waited.stderr or b""


def _command(attack: Attack, here: Scene, *, inside: bool) -> list[str]:
    return [str(python()), "-I", "-S", "-B", "-c", PRELUDE + attack.source, here.argument(inside=inside)]


def got_through(attack: Attack, here: Scene, seen: Seen) -> bool:
    """Judge one run. Only SAYS takes the program's own word."""
    text = seen.stdout + seen.stderr
    match attack.proof:
        case Proof.SECRET:
            return here.world.secret in text
        case Proof.MARK:
            return _marked(attack, here)
        case Proof.SETID:
            return any(map(_privileged, here.workspace.rglob("*")))
        case Proof.ALIVE:
            return any(living(here.token))
        case Proof.VICTIM:
            return here.victim is not None and _ended(here.victim)
        case Proof.CHANGED:
            return here.state() != here.before
        case Proof.SEGMENT:
            return any(line.split()[:1] == [str(here.key)] for line in SEGMENTS.read_text().splitlines())
        case Proof.RECEIVED:
            return here.world.listeners.got(here.mark.encode())
        case Proof.UNSTOPPED:
            return seen.overran or "THROUGH" in text
        case Proof.FLOOD:
            return len(text) > 2 * _OUTPUT + 1000
        case Proof.RAW:
            return _RAW.search(text) is not None
        case Proof.SAYS:
            return "THROUGH" in seen.stdout


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ended; a signal sent a moment ago is waited for."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.3)
    return process.poll() is not None


def _marked(attack: Attack, here: Scene) -> bool:
    """Whether the mark, or a new symlink that leads out, stands where no change may come home to."""
    mark = here.mark.encode()
    for path in here.folder.rglob("*"):
        inside = path.is_relative_to(here.workspace)
        relative = path.relative_to(here.workspace) if inside else path
        if path.is_symlink():
            away = not path.resolve().is_relative_to(here.workspace)
            if inside and away and str(relative) != "link":
                return True
            continue
        guarded = not attack.keep or ".git" in relative.parts or "bare" in relative.parts
        if (not inside or guarded) and path.is_file() and mark in path.read_bytes():
            return True
    return False


def _privileged(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    return bool(path.stat().st_mode & 0o6000) or "security.capability" in os.listxattr(path)


# Before any attack: where this does not say its word, held attacks would prove nothing.
_HELLO = Attack(name="hello", number="0", proof=Proof.SAYS, source="through()")


def run_all(attacks: Sequence[Attack], runner: Runner, folder: Path) -> dict[str, bool | str]:
    """Run attacks; for each name whether it got through, or why the run itself failed."""
    world = World(folder)
    try:
        reason = _one(world, len(attacks), _HELLO, runner)
        if reason is not True:
            return dict.fromkeys((attack.name for attack in attacks), f"nothing can be started: {reason}")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            waiting = {a.name: pool.submit(_one, world, number, a, runner) for number, a in enumerate(attacks)}
            return {name: future.result() for name, future in waiting.items()}
    finally:
        sweep(world.token)
        world.close()


def _one(world: World, number: int, attack: Attack, runner: Runner) -> bool | str:
    here = scene(world, number, victim=attack.proof in (Proof.VICTIM, Proof.CHANGED))
    try:
        return got_through(attack, here, runner(attack, here))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        sweep(here.token)
        for process in (here.victim, here.started):
            if process is not None:
                end(process)
        here.remove_segment()
        for top in ("/tmp", "/dev/shm"):
            shutil.rmtree(f"{top}/{here.token}", ignore_errors=True)
        remove(here.folder)
