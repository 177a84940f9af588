"""riallm sandbox exec, as people call it: a process of its own in a folder of theirs."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def call(folder: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "riallm", "sandbox", "exec", *words], cwd=folder, input=stdin, capture_output=True,
        check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_working_directory_is_kept_and_writes_are_thrown_away(project: Path) -> None:
    done = call(project, "--", "sh", "-c", "pwd; echo x > new; cat new b.txt; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (f"{project}\nx\ntwo\n", "", 7)
    assert not (project / "new").exists()


def test_only_the_writable_folder_is_brought_home(project: Path) -> None:
    done = call(project, "--writable", "pkg", "--", "sh", "-c", "echo x > new; echo y > pkg/new; rm pkg/a.txt")
    assert done.returncode == 0
    assert sorted(str(p.relative_to(project)) for p in project.rglob("*")) == ["b.txt", "pkg", "pkg/new"]


def test_the_whole_folder_but_no_hooks(project: Path) -> None:
    (project / ".git").mkdir()
    done = call(project, "--writable", ".", "--", "sh", "-c", "mkdir .git/hooks; echo x > .git/hooks/h; echo x > y")
    assert "not brought home: .git/hooks: configuration of git" in done.stderr
    assert sorted(p.name for p in project.iterdir()) == [".git", "b.txt", "pkg", "y"]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--",
        "true",
        "--writable .. -- true",
        "--writable /etc -- true",
        "--memory 0 -- true",
        "--disk x -- true",
        "--seconds -1 -- true",
        "--env x -- true",
        "--tier best -- true",
        "--readable /no/such -- true",
    ],
)
def test_bad_usage(project: Path, words: str) -> None:
    done = call(project, *words.split())
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_exit_codes(project: Path) -> None:
    assert call(project, "--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    late = call(project, "--seconds", "0.3", "--", "sleep", "60")
    assert (late.returncode, late.stderr) == (124, "riallm sandbox: ended by a limit: time\n")
    absent = call(project, "--", "no\x1b[31msuch")
    assert (absent.returncode, absent.stderr) == (127, "riallm sandbox: nosuch: no such program in the sandbox\n")
    assert call(project, "--tier", "none", "--", "true").returncode == 3


def test_limits(project: Path) -> None:
    full = call(project, "--disk", "5", "--", "sh", "-c", "head -c 9000000 /dev/zero > /tmp/x")
    assert "ended by a limit: disk" in full.stderr
    assert full.returncode != 0
    program = "held = bytearray(b'x' * (300 << 20)); import time; time.sleep(3)"
    assert "limit: memory" in call(project, "--memory", "100", "--", sys.executable, "-c", program).stderr


def test_output_is_clean_and_capped(project: Path) -> None:
    done = call(project, "--", "sh", "-c", r"printf 'a\033]52;c;eA==\007b\033[2J\n'; seq 400000")
    assert done.stdout.startswith("ab\n1\n2\n")
    assert done.stdout.endswith("\n399999\n400000\n")
    assert "bytes left out" in done.stdout
    assert len(done.stdout) < 1_100_000


def test_input_is_passed_on(project: Path) -> None:
    assert call(project, "--", "sh", "-c", "wc -c", stdin=b"x" * 300_000).stdout.strip() == "300000"


def test_variables_and_folders(project: Path) -> None:
    shown = project.parent / "shown"
    shown.mkdir()
    (shown / "f").write_text("content")
    done = call(project, "--readable", str(shown), "--env", "A=b=c d", "--", "sh", "-c", f'cat "{shown}/f"; echo " $A"')
    assert done.stdout == "content b=c d\n"


def test_the_own_python_is_there(project: Path) -> None:
    done = call(project, "--", "python", "-c", "import sys; print(sys.prefix)")
    assert done.stdout == f"{os.environ.get('VIRTUAL_ENV') or sys.prefix}\n"


def test_no_isolation_only_when_asked_for_and_said(project: Path) -> None:
    done = call(project, "--tier", "none", "--unsafe", "--", "sh", "-c", "echo x > b.txt; cat b.txt")
    assert (done.stdout, done.returncode) == ("x\n", 0)
    assert "no isolation" in done.stderr
    assert (project / "b.txt").read_text() == "two\n"


def test_the_terminal_is_out_of_reach(project: Path) -> None:
    """Started on a terminal, the command has none: it can neither type into it nor read from it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(project)
        script = "tty; (echo fake > /dev/tty) 2>&1 || echo none"
        words = [sys.executable, "-m", "riallm", "sandbox", "exec", "--", "sh", "-c", script]
        os.execve(sys.executable, words, os.environ | {"PYTHONPATH": str(ROOT)})
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # the other end is closed: how Linux tells the end of a terminal
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"not a tty" in shown
    assert b"none" in shown
    assert b"fake\r" not in shown


def test_an_interrupt_ends_it_with_130(project: Path) -> None:
    words = [sys.executable, "-m", "riallm", "sandbox", "exec", "--", "sh", "-c", "echo begun; sleep 600"]
    with subprocess.Popen(
        words, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        _, words_of_it = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in words_of_it
