"""riallm fix on bad input: a clear message, the right exit code, and the user's files exactly as they were."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from riallm.agent.repair.apply import only_one
from tests.agent.conftest import FIXED, MEDIAN, TEST_MEDIAN, Result
from tests.conftest import fingerprint

Make = Callable[..., Path]
Fix = Callable[..., Result]
FILES = {"stats.py": MEDIAN, "tests/test_stats.py": TEST_MEDIAN}
GREEN = "def test_yes():\n    assert True\n"


@pytest.mark.parametrize(
    ("files", "options", "code", "words"),
    [
        ({"stats.py": MEDIAN}, [], 2, "no tests collected"),
        ({"notes.txt": "nothing"}, [], 2, "no Python files"),
        ({"stats.py": MEDIAN, "test_stats.py": GREEN}, [], 2, "all 1 tests are green"),
        ({"stats.py": "def median(:\n", "test_stats.py": TEST_MEDIAN}, [], 2, "SyntaxError"),
        (FILES, ["--test", "no-such-program --now"], 2, "no program 'no-such-program'"),
        (FILES, ["--test", "pytest tests/nowhere.py"], 2, "nowhere.py"),
        (FILES, ["--test", ""], 2, "--test is empty"),
        (FILES, ["--python", "no-such-python"], 2, "no such program"),
        (FILES, ["--file", "absent.py"], 2, "no such file"),
        (FILES, ["--file", "tests/test_stats.py"], 2, "never edited"),
        (FILES, ["--model", "gpt-9"], 2, "no such model"),
        (FILES, ["--budget", "0"], 2, "--budget 0"),
    ],
)
def test_a_clear_message(
    project: Make, fix: Fix, files: dict[str, str], options: list[str], code: int, words: str
) -> None:
    result = fix(project(files), *options)
    assert result.code == code, result.text
    assert words in " ".join(result.report["message"].split())
    assert result.report["patch"] == ""


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "riallm", "fix", str(tmp_path / "nowhere")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "does not exist" in ended.stdout + ended.stderr


NASTY = {
    "hangs": "while True:\n        pass",
    "sleeps": "time.sleep(10_000)",
    "forks": "[subprocess.Popen(['sleep', '300']) for _ in range(20)]",
    "fills the disk": "open('big', 'wb').write(b'x' * (1 << 28))",
    "prints a gigabyte": "[sys.stdout.write('x' * (1 << 20)) for _ in range(1 << 10)]",
    "needs the network": "socket.create_connection(('192.0.2.1', 80), timeout=3)",
    "calls sys.exit": "sys.exit(0)",
    "ends the process": "os._exit(0)",
    "changes the working directory": "os.chdir('/')",
    "deletes the project": "[os.unlink(p) for p in glob.glob('*.py')]",
    "writes outside": "open(os.path.expanduser('~/mark'), 'w').write('x')",
}


@pytest.mark.parametrize("kind", list(NASTY))
def test_beside_a_test_that(project: Make, fix: Fix, kind: str) -> None:
    """The bug is found all the same: the nasty test is red before and counts as red, hung or green, and stays apart."""
    nasty = (
        "import glob, os, socket, subprocess, sys, time\nfrom stats import median\n\n\n"
        f"def test_nasty():\n    {NASTY[kind]}\n\n\n"
        "def test_even():\n    assert median([4, 1, 3, 2]) == 2.5\n"
    )
    root = project({"stats.py": MEDIAN, "test_stats.py": nasty})
    result = fix(root, "--budget", "60" if kind == "prints a gigabyte" else "12")
    assert result.code in (0, 1), result.text
    before = result.report["tests_before"]
    assert sum(before.values()) == 2, result.text
    if kind in ("forks", "prints a gigabyte", "changes the working directory"):
        assert FIXED in result.report["patch"], result.text  # green by itself, so nothing is in the way
    if kind in ("hangs", "sleeps"):
        assert before.get("hung") == 1
    if kind == "ends the process":
        assert before.get("crashed") == 1
    assert not Path("~/mark").expanduser().exists()


def test_a_candidate_that_never_ends_dies_by_its_lines(project: Make, fix: Fix) -> None:
    """Many edits of this loop never end; they must not cost their whole time, or the budget would not do."""
    code = (
        "def digits(number):\n    found = []\n    while number > 0:\n        found.append(number % 10)\n"
        "        number = number // 10\n    return found\n"
    )
    tests = "from digits import digits\n\n\ndef test_all():\n    assert digits(123) == [1, 2, 3]\n"
    result = fix(project({"digits.py": code, "test_digits.py": tests}), "--budget", "60", "--max-candidates", "150")
    assert result.code in (0, 1), result.text
    assert result.report["candidates_tried"] >= 100


def test_flaky_tests_are_named(project: Make, fix: Fix) -> None:
    flaky = "import os\n\n\ndef test_chance():\n    assert os.urandom(4) in (b'ab', b'cd') or os.getpid() % 2\n"
    root = project({"stats.py": MEDIAN, "test_chance.py": flaky})
    result = fix(root, "--budget", "20")
    assert result.code in (0, 1, 2)
    certain = "import time\nSEEN = time.time()\n\n\ndef test_clock():\n    assert int(time.time() * 1000) % 2\n"
    for _ in range(8):  # red once and green once sooner or later
        result = fix(project({"a.py": "x = 1\n", "test_clock.py": certain}, name="clock"), "--budget", "10")
        if "flaky" in result.text:
            break
    assert "test_clock" in result.text


def test_broken_beside_working_tests(project: Make, fix: Fix) -> None:
    result = fix(project({**FILES, "tests/test_absent.py": "import no_such_module\n"}))
    assert result.code == 0, result.text
    assert "not collected" in result.text


def test_a_dirty_tree_and_a_git_folder_stay_as_they_are(project: Make, fix: Fix) -> None:
    root = project(FILES)
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    (root / "stats.py").write_text(MEDIAN + "\n\nEXTRA = 1\n")
    (root / "untracked.txt").write_text("mine")
    result = fix(root)
    assert result.code == 0, result.text


def test_a_read_only_file_is_shown_and_left(project: Make, fix: Fix) -> None:
    root = project(FILES)
    (root / "stats.py").chmod(0o444)
    result = fix(root, "--apply")
    assert result.code == 2, result.text
    assert "read-only" in result.report["message"]
    assert FIXED in result.report["patch"]


def test_a_link_is_not_written_through(project: Make, fix: Fix) -> None:
    root = project({"tests/test_stats.py": TEST_MEDIAN})
    other = root.parent / "elsewhere.py"
    other.write_text(MEDIAN)
    (root / "stats.py").symlink_to(other)
    result = fix(root, "--apply")
    assert result.code in (1, 2), result.text
    assert other.read_text() == MEDIAN


@pytest.mark.parametrize("name", ["with space", "ünïcødé", "quote'and\"quote", "-dash", "new\nline"])
def test_paths(project: Make, fix: Fix, name: str) -> None:
    result = fix(project(FILES, name=name))
    assert result.code == 0, result.text
    assert FIXED in result.report["patch"]


def test_through_a_linked_folder(project: Make, fix: Fix) -> None:
    root = project(FILES)
    link = root.parent / "link"
    link.symlink_to(root)
    result = fix(link, "--apply", changes=True)
    assert result.code == 0, result.text


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("    ", "\t"),
        lambda text: "\ufeff" + text,
        lambda text: "# -*- coding: latin-1 -*-\n# caf\u00e9\n" + text,
        lambda text: text.rstrip("\n"),
    ],
    ids=["crlf", "tabs", "bom", "latin-1", "no last newline"],
)
def test_a_file_keeps_its_ways(project: Make, fix: Fix, change: Callable[[str], str]) -> None:
    text = change(MEDIAN)
    data = text.encode("latin-1" if "latin-1" in text else "utf-8")
    root = project({"stats.py": data, "tests/test_stats.py": TEST_MEDIAN})
    result = fix(root, "--apply", changes=True)
    assert result.code == 0, result.text
    assert (root / "stats.py").read_bytes() == data.replace(b"middle + 1", b"middle")


def running(root: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "riallm", "fix", str(root), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def inside(mark: str) -> list[str]:
    """Command lines of processes that hold `mark`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has just ended
            continue
        if mark in words:
            found.append(words)
    return found


@pytest.mark.parametrize("after", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_at_any_moment(project: Make, after: float, how: signal.Signals) -> None:
    """Ctrl-C says so and exits with 130; a kill says nothing. Both leave no process and no changed file behind."""
    slow = TEST_MEDIAN + "\n\ndef test_slow():\n    import subprocess\n    subprocess.run(['sleep', '31415.%d'])\n"
    root = project({"stats.py": MEDIAN, "tests/test_stats.py": slow % os.getpid()})
    before = fingerprint(root)
    process = running(root, "--budget", "60")
    time.sleep(after)
    process.send_signal(how)
    said = process.communicate(timeout=60)[0]
    if how is signal.SIGINT and process.returncode != -signal.SIGINT:  # that early, Python itself was still starting
        assert process.returncode == 130, said
        assert "stopped; nothing was changed" in said.lower()
    deadline = time.monotonic() + 20
    while inside(f"31415.{os.getpid()}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not inside(f"31415.{os.getpid()}")
    assert fingerprint(root) == before


def test_a_second_fix_in_the_same_folder(project: Make, fix: Fix) -> None:
    root = project(FILES)
    with only_one(root):
        result = fix(root)
    assert result.code == 2
    assert f"process {os.getpid()}" in result.report["message"]
    assert fix(root).code == 0


def test_no_sandbox_refuses(project: Make, fix: Fix, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no tier works the command refuses with 3, and says what to do."""
    from riallm.sandbox import open as opening

    monkeypatch.setattr(opening, "_ORDER", ())
    result = fix(project(FILES))
    assert result.code == 3, result.text
    assert "--unsafe" in result.report["message"]
    unsafe = fix(project(FILES), "--unsafe")
    assert unsafe.code == 0, unsafe.text
    assert unsafe.report["sandbox_tier"] == "none"


def test_the_network_is_not_there(project: Make, fix: Fix) -> None:
    """A listener on this machine, reachable from here and not from a test."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            server.accept()[0].close()
        server.setblocking(False)
        test = f"import socket\n\n\ndef test_net():\n    socket.create_connection(('127.0.0.1', {port}), timeout=2)\n"
        result = fix(project({**FILES, "tests/test_net.py": test}), "--budget", "8")
        assert result.report["tests_before"]["failed"] == 3, result.text
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()


def test_disk_full_while_applying(project: Make, fix: Fix) -> None:
    """A folder on a full file system: the file is as it was."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    root = project(FILES)
    mount = root.parent / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], check=True)
    try:
        shutil.copytree(root, mount / "project")
        subprocess.run(["dd", "if=/dev/zero", f"of={mount / 'filler'}", "bs=4096"], capture_output=True, check=False)
        result = fix(mount / "project", "--apply")
        assert result.code == 2, result.text
        assert "as it was" in result.report["message"]
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
