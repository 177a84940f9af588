"""The command table: what it knows, what it says to what it does not know, and how little it loads."""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from riallm import __version__
from riallm.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]


def riallm(*args: str) -> subprocess.CompletedProcess[str]:
    """The program as a user starts it, in a process of its own."""
    return subprocess.run([sys.executable, "-m", "riallm", *args], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("how", ["--help", "-h", "help"])
def test_help_lists_every_command(how: str) -> None:
    done = riallm(how)
    assert (done.returncode, done.stderr) == (0, "")
    listed = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert set(listed) == set(COMMANDS)
    assert all(text in listed[name] for name, (_, text) in COMMANDS.items())


def test_no_command_shows_the_help_and_fails() -> None:
    done = riallm()
    assert done.returncode == 2
    assert "usage: riallm" in done.stdout


def test_an_unknown_command_is_named_beside_the_known_ones() -> None:
    done = riallm("mend")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'mend'" in done.stderr
    assert all(name in done.stderr for name in COMMANDS)
    assert "Traceback" not in done.stderr


def test_version() -> None:
    assert riallm("--version").stdout == f"riallm {__version__}\n"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_reader_who_goes_away_is_no_error(option: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "riallm", option], cwd=ROOT, stdout=write, stderr=PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["models", "doctor --json", "--help"])
def test_a_full_disk_behind_standard_output_is_told_in_a_line(words: str, unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "riallm", *words.split()],
            cwd=ROOT,
            stdout=full,
            stderr=PIPE,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr) == (
        1,
        "riallm: standard output cannot be written: No space left on device\n",
    )


def test_another_error_of_the_system_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(argv: list[str] | None) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("riallm.__main__._run", broken)
    with pytest.raises(OSError, match="No space left"):
        main([])


@pytest.mark.parametrize(("words", "code"), [("--version >&-", 0), ("mend 2>&-", 2)])
def test_a_closed_stream_is_no_error(words: str, code: int) -> None:
    line = f"{shlex.quote(sys.executable)} -m riallm {words}"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str) -> None:
    done = riallm(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: riallm {name}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_refuses_an_unknown_option(name: str) -> None:
    done = riallm(name, "--no-such-option")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_points_at_functions(name: str) -> None:
    module, function = COMMANDS[name][0].split(":")
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    defined = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert function in defined


def test_help_loads_nothing_but_the_table() -> None:
    code = (
        "import sys; before = set(sys.modules); from riallm.__main__ import main; main(['--help']);"
        "import json; sys.stderr.write(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    loaded = set(json.loads(done.stderr))
    assert {name for name in loaded if name.startswith("riallm.")} == {"riallm.__main__"}
    assert not loaded & {"argparse", "asyncio", "ctypes", "pytest", "rich", "subprocess", "torch"}
