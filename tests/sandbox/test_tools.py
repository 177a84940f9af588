"""What people work with works inside: Python and its processes, pytest, git, a compiler; and the fallbacks do too."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path

import pytest
from sandboxing import PYTHON, Opener, need

from riallm.core.errors import SandboxError, UsageError
from riallm.sandbox import interpreter, open_sandbox, probe, session
from riallm.sandbox import open as opening
from riallm.sandbox.base import Limits, Policy, Tier

OURS = Path(sys.executable)


def test_multiprocessing(opened: Opener, mounting: Tier) -> None:
    program = (
        "import multiprocessing as m\nif __name__ == '__main__':\n"
        "    with m.get_context('fork').Pool(3) as pool: print(sum(pool.map(abs, range(-50, 0))))\n"
        "    q = m.Queue(); p = m.Process(target=q.put, args=(7,)); p.start(); print(q.get()); p.join()"
    )
    done = opened(mounting).exec([str(PYTHON), "-c", program])
    assert (done.stdout, done.stderr) == ("1275\n7\n", "")


def test_threads_and_subprocesses(opened: Opener, tier: Tier) -> None:
    program = (
        "import asyncio, concurrent.futures as f, subprocess, tempfile\n"
        "with f.ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(5))))\n"
        "print(subprocess.run(['echo', 'hi'], capture_output=True, text=True).stdout, end='')\n"
        "async def main():\n    p = await asyncio.create_subprocess_exec('echo', 'ho'); return await p.wait()\n"
        "print(asyncio.run(main()))\n"
        "with tempfile.TemporaryDirectory() as d: open(d + '/x', 'w').write('y')"
    )
    done = opened(tier).exec([str(PYTHON), "-c", program])
    assert (sorted(done.stdout.split()), done.stderr) == (["0", "10", "hi", "ho"], "")


def test_pytest_of_our_own_interpreter(project: Path, mounting: Tier) -> None:
    (project / "test_it.py").write_text(
        "import os\ndef test_good(tmp_path):\n    (tmp_path / 'x').write_text('y')\n    os.mkdir('made here')\n"
        "def test_bad():\n    assert 1 == 2\n"
    )
    policy = Policy(workspace=project, readable=interpreter.prefixes(OURS), env={"PYTHONDONTWRITEBYTECODE": "1"})
    with open_sandbox(policy, tier=mounting) as sandbox:
        done = sandbox.exec([str(OURS), "-m", "pytest", "-q", "-p", "no:cacheprovider"])
    assert "1 failed, 1 passed" in done.stdout
    assert done.returncode == 1
    assert not (project / "made here").exists()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git(opened: Opener, mounting: Tier) -> None:
    script = (
        "set -e; git init -q .; git config user.email a@b; git config user.name c; git add -A; git commit -qm one; "
        "echo more >> b.txt; git diff --stat | cat; git log --oneline | wc -l"
    )
    done = opened(mounting).exec(["sh", "-c", script])
    assert "b.txt | 1 +" in done.stdout
    assert (done.returncode, done.stdout.split()[-1]) == (0, "1")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_compiler(opened: Opener, tier: Tier) -> None:
    script = "echo 'int main(){return 42;}' > m.c && gcc -o m m.c && ./m"
    assert opened(tier).exec(["sh", "-c", script]).returncode == 42


@pytest.mark.parametrize("tier", [Tier.BUBBLEWRAP, Tier.NAMESPACES])
def test_a_private_copy_where_there_is_no_overlay(project: Path, tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    need(tier)
    (project / "shown").mkdir()
    (project / "shown" / "library").write_text("as it is")
    (project / "link").symlink_to("b.txt")
    make = session.Spec
    monkeypatch.setattr(session, "Spec", lambda **given: make(**given, copy=True))
    with open_sandbox(Policy(workspace=project, readable=(project / "shown",)), tier=tier) as sandbox:
        first = sandbox.exec(["sh", "-c", "pwd; cat link shown/library; echo x >> b.txt; rm pkg/a.txt; echo n > n"])
        assert first.stdout == f"{project}\ntwo\nas it is"
        assert sandbox.details["workspace"] == "private copy, as asked for"
        sandbox.exec(["sh", "-c", "echo x >> b.txt; rm -r pkg; mkdir pkg; echo n > pkg/n"], keep=True)
        assert sandbox.exec(["sh", "-c", "cat b.txt; ls pkg"]).stdout == "two\nx\nn\n"
        assert [change.path for change in sandbox.changes()] == ["b.txt", "pkg/a.txt", "pkg/n"]
        full = sandbox.exec(["sh", "-c", "head -c 30000000 /dev/zero > big"], limits=Limits(disk_bytes=9 << 20))
        assert full.stopped == "disk"
    assert (project / "b.txt").read_text() == "two\n"


def test_limits_without_control_groups(project: Path, tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    make = session.Spec
    monkeypatch.setattr(session, "Spec", lambda **given: make(**given, groups=False))
    limits = Limits(memory_bytes=150 << 20, processes=40, seconds=30)
    with open_sandbox(Policy(workspace=project, limits=limits), tier=tier) as sandbox:
        held = sandbox.exec([str(PYTHON), "-c", "import time; held = bytearray(b'x' * (300 << 20)); time.sleep(5)"])
        assert (held.stopped, sandbox.details["limits"]) == ("memory", "rlimits and watching")
        program = (
            "import os, time\ntry:\n    for n in range(90):\n        if os.fork() == 0: time.sleep(9)\n"
            "except BlockingIOError: print('refused', n < 75)"
        )
        assert sandbox.exec([str(PYTHON), "-c", program]).stdout == "refused True\n"


def test_an_older_bubblewrap_that_cannot_forbid_namespaces(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(Tier.BUBBLEWRAP)
    make = session.Spec
    monkeypatch.setattr(session, "Spec", lambda **given: make(**(given | {"disable_userns": False})))
    with open_sandbox(Policy(workspace=project), tier=Tier.BUBBLEWRAP) as sandbox:
        done = sandbox.exec(["unshare", "-U", "true"])
    assert "Operation not permitted" in done.stderr


def test_what_cannot_be_shown_without_mounts_is_said(project: Path) -> None:
    need(Tier.LANDLOCK)
    if os.geteuid() != 0:
        pytest.skip("only root is dropped to another user")
    (project / "closed" / "python").mkdir(parents=True)
    (project / "closed").chmod(0o700)
    policy = Policy(workspace=project / "pkg", readable=(project / "closed" / "python",))
    with (
        open_sandbox(policy, tier=Tier.LANDLOCK) as sandbox,
        pytest.raises(SandboxError, match="only its owner may enter"),
    ):
        sandbox.exec(["true"])


def test_every_tier_is_reported_once() -> None:
    assert [report.tier for report in probe()] == [Tier.BUBBLEWRAP, Tier.NAMESPACES, Tier.LANDLOCK]
    for report in probe():
        assert report.available is not bool(report.reason)
        assert probe()[0] is probe()[0]


@pytest.fixture
def nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def report(tier: Tier) -> opening.TierReport:
        return opening.TierReport(tier=tier, available=False, reason=f"no {tier} today")

    monkeypatch.setattr(opening, "_try", report)


@pytest.mark.usefixtures("nothing_works")
def test_no_sandbox_is_an_error_that_names_the_reasons(project: Path) -> None:
    with pytest.raises(SandboxError) as raised:
        open_sandbox(Policy(workspace=project))
    assert "no bubblewrap today" in str(raised.value)
    assert "--unsafe" in str(raised.value)
    assert raised.value.exit_code == 3


@pytest.mark.usefixtures("nothing_works")
def test_a_tier_that_is_not_there_is_refused_also_with_unsafe(project: Path) -> None:
    with pytest.raises(SandboxError, match="no landlock today"):
        open_sandbox(Policy(workspace=project), tier=Tier.LANDLOCK, unsafe=True)


@pytest.mark.usefixtures("nothing_works")
def test_unsafe_runs_in_a_copy_with_limits(project: Path) -> None:
    with open_sandbox(Policy(workspace=project), unsafe=True) as sandbox:
        done = sandbox.exec(["sh", "-c", "cat b.txt; echo x > b.txt; pwd"], limits=Limits(seconds=20))
        assert (done.stdout, done.tier) == (f"two\n{project}\n", Tier.NONE)
        assert sandbox.exec(["sleep", "60"], limits=Limits(seconds=0.3)).stopped == "time"
    assert (project / "b.txt").read_text() == "two\n"


def test_no_isolation_is_never_given_unasked(project: Path) -> None:
    with pytest.raises(SandboxError, match="unsafe"):
        open_sandbox(Policy(workspace=project), tier=Tier.NONE)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "needs Linux" in opening._hindrance(Tier.NAMESPACES)


def test_bubblewrap_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening.shutil, "which", lambda _: None)
    assert "apt-get install bubblewrap" in opening._hindrance(Tier.BUBBLEWRAP)


def test_prefixes_of_a_virtual_environment(tmp_path: Path) -> None:
    base, venv = tmp_path / "base", tmp_path / "venv"
    for folder in (base / "bin", base / "lib" / "python3.11", venv / "bin"):
        folder.mkdir(parents=True)
    (base / "lib" / "python3.11" / "os.py").touch()
    (base / "bin" / "python3.11").touch()
    (venv / "bin" / "python3.11").symlink_to(base / "bin" / "python3.11")
    (venv / "bin" / "python").symlink_to("python3.11")
    (venv / "pyvenv.cfg").write_text(f"home = {base}/bin\n")
    assert set(interpreter.prefixes(venv / "bin" / "python")) == {base, venv}
    assert interpreter.prefixes(base / "bin" / "python3.11") == (base,)


def test_a_configuration_that_points_at_secrets_shows_nothing(tmp_path: Path) -> None:
    secret, venv = tmp_path / "home" / ".ssh", tmp_path / "venv"
    for folder in (secret, venv / "bin"):
        folder.mkdir(parents=True)
    (secret / "python").touch()
    (venv / "bin" / "python").symlink_to(secret / "python")
    (venv / "pyvenv.cfg").write_text(f"home = {secret}\n")
    with pytest.raises(UsageError, match="no standard library"):
        interpreter.prefixes(venv / "bin" / "python")


def test_our_own_interpreter_is_found() -> None:
    shown = interpreter.prefixes(OURS)
    assert all(path.is_dir() for path in shown)
    assert dataclasses.is_dataclass(Policy(workspace=Path("/"), readable=shown))
