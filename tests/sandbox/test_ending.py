"""Everything dead when it ends: the command's end, our interrupt, our death, the death of the thread that began it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sandboxing import Opener, need

from riallm.sandbox.base import Tier

ROOT = Path(__file__).parents[2]
DAEMONS = (
    "for i in 1 2 3; do (trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; sleep 600; : {0}' &) ; done; "
    "echo begun; {1}"
)


def living(token: str) -> list[int]:
    """Processes that have `token` among their arguments, ourselves left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if not dead and token.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def wait_until_gone(token: str) -> list[int]:
    """What still lives once nothing new ends any more, or after 20 s."""
    end = time.monotonic() + 20
    while (left := living(token)) and time.monotonic() < end:
        time.sleep(0.02)
    return left


@pytest.fixture
def token() -> str:
    return f"token{secrets.token_hex(8)}"


def test_daemons_end_with_the_command(opened: Opener, tier: Tier, token: str) -> None:
    done = opened(tier).exec(["sh", "-c", DAEMONS.format(token, "exit 4")])
    assert (done.stdout, done.returncode) == ("begun\n", 4)
    assert living(token) == []


def test_daemons_end_with_a_worker(opened: Opener, tier: Tier, token: str) -> None:
    running = opened(tier).start(["sh", "-c", DAEMONS.format(token, "cat")])
    assert running.stdout.readline() == b"begun\n"
    assert living(token)
    running.close()
    assert living(token) == []


def test_a_worker_that_ends_by_itself_takes_its_daemons_along(opened: Opener, tier: Tier, token: str) -> None:
    running = opened(tier).start(["sh", "-c", DAEMONS.format(token, "read line")])
    assert running.stdout.readline() == b"begun\n"
    running.stdin.close()
    assert running.stdout.read() == b""
    assert wait_until_gone(token) == []


PROGRAM = """
import os, sys, time
script = os.environ["SCRIPT"]  # not among the arguments, which are searched
from pathlib import Path
from riallm.sandbox import open_sandbox
from riallm.sandbox.base import Policy, Tier
with open_sandbox(Policy(workspace=Path(sys.argv[1])), tier=Tier(sys.argv[2])) as sandbox:
    running = sandbox.start(["sh", "-c", script])
    running.stdout.readline()
    print("begun", flush=True)
    sandbox.exec(["sh", "-c", script])
"""


def began(project: Path, tier: Tier, token: str) -> subprocess.Popen[bytes]:
    """Another process of ours that holds a worker and waits for a command."""
    script = DAEMONS.format(token, f"sleep 600; : {token}")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(project), tier],
        cwd=ROOT, env=os.environ | {"SCRIPT": script}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_our_own_end_is_the_end_of_all(project: Path, tier: Tier, token: str, number: signal.Signals) -> None:
    with began(project, tier, token) as process:
        process.send_signal(number)
        _, words = process.communicate(timeout=30)
    if number is signal.SIGINT:
        assert b"KeyboardInterrupt" in words
    assert wait_until_gone(token) == []


def test_a_fork_of_ours_does_not_keep_it_alive(project: Path, token: str) -> None:
    tier = need(Tier.BUBBLEWRAP)
    program = PROGRAM.replace('print("begun"', 'if os.fork() == 0: time.sleep(60)\n    print("begun"')
    script = DAEMONS.format(token, "sleep 600")
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(project), tier],
        cwd=ROOT, env=os.environ | {"SCRIPT": script}, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    process.wait()
    try:
        left = wait_until_gone(token)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
    assert left == []


def test_a_worker_outlives_the_thread_that_began_it(opened: Opener, tier: Tier) -> None:
    sandbox = opened(tier)
    made = []
    thread = threading.Thread(target=lambda: made.append(sandbox.start(["cat"])))
    thread.start()
    thread.join()
    running = made[0]
    running.stdin.write(b"still here\n")
    running.stdin.flush()
    assert running.stdout.readline() == b"still here\n"


def test_commands_at_once_from_many_threads(opened: Opener, tier: Tier) -> None:
    sandbox = opened(tier)
    found: dict[int, str] = {}

    def run(number: int) -> None:
        found[number] = sandbox.exec(["sh", "-c", f"echo {number} > n; sleep 0.1; cat n"]).stdout

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}\n" for number in range(8)}


def test_folders_of_killed_processes_are_removed(
    project: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = project.parent
    monkeypatch.setattr("tempfile.tempdir", str(place))
    dead, other = place / "riallm-sandbox-999999999-x", place / "riallm-sandbox-here"
    (dead / "kept").mkdir(parents=True)
    other.mkdir()
    assert opened(Tier.BUBBLEWRAP).exec(["true"]).returncode == 0
    assert not dead.exists()
    assert other.exists()
