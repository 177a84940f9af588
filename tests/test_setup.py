"""Setting up: what `.ci/bubblewrap` does where it may and may not install, and what make says about a wrong Python.

The package managers are scripts of the test's own, so nothing is installed here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Machine:
    """A PATH with nothing on it but a few tools and what a test puts there."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.log = root / "log"
        self.bin.mkdir()
        for tool in ("sh", "timeout", "uname", "cat", "chmod"):
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)

    def put(self, name: str, body: str) -> None:
        """A program `name` that notes how it was called, then does `body`."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{body}\n')
        path.chmod(0o755)

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(ROOT / ".ci/bubblewrap")], env={"PATH": str(self.bin), **env}, capture_output=True, text=True
        )

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def installs(machine: Machine, *, after: str = "") -> str:
    """Body of a package manager that really brings bwrap, when its arguments hold `after`."""
    bwrap = machine.bin / "bwrap"
    return f'case "$*" in *{after}install*|*-S*|*add*) echo "#!/bin/sh" > {bwrap}; chmod 755 {bwrap};; esac'


def test_nothing_happens_where_it_is_there(machine: Machine) -> None:
    machine.put("bwrap", "")
    machine.put("apt-get", "")
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr, machine.calls()) == (0, "", "", [])


@pytest.mark.parametrize("manager", ["apt-get", "dnf", "pacman", "apk"])
def test_root_installs_it(machine: Machine, manager: str) -> None:
    machine.put("id", "echo 0")
    machine.put(manager, installs(machine))
    done = machine.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "bubblewrap" in [call for call in machine.calls() if call.startswith(manager)][-1]
    assert (machine.bin / "bwrap").exists()


def test_fresh_package_lists_are_fetched_after_a_first_failure(machine: Machine) -> None:
    machine.put("id", "echo 0")
    lists = machine.bin.parent / "lists"
    machine.put(
        "apt-get", f'case "$*" in update*) echo > {lists};; *) test -f {lists} || exit 100; {installs(machine)};; esac'
    )
    assert machine.run().stderr == ""
    assert [call.split()[1] for call in machine.calls() if call.startswith("apt-get")] == [
        "install",
        "update",
        "install",
    ]


def test_sudo_is_used_only_when_it_asks_nothing(machine: Machine) -> None:
    machine.put("id", "echo 1000")
    machine.put("sudo", 'test "$1" = -n && shift && exec "$@"')
    machine.put("true", "")
    machine.put("apt-get", installs(machine))
    assert machine.run().stderr == ""
    assert all(call.startswith("sudo -n") for call in machine.calls() if call.startswith("sudo"))
    assert (machine.bin / "bwrap").exists()


@pytest.mark.parametrize("sudo", ["exit 1", None])
def test_a_user_who_may_not_is_told_the_command(machine: Machine, sudo: str | None) -> None:
    machine.put("id", "echo 1000")
    machine.put("dnf", "exit 1")
    if sudo:
        machine.put("sudo", sudo)
    done = machine.run()
    assert done.returncode == 0
    assert "sudo dnf install -y -q bubblewrap" in done.stderr
    assert "goes on with the next tier" in done.stderr
    assert not any(call.startswith("dnf") for call in machine.calls())


def test_a_failing_installation_is_said_and_goes_on(machine: Machine) -> None:
    machine.put("id", "echo 0")
    machine.put("apk", "exit 1")
    done = machine.run()
    assert done.returncode == 0
    assert "failed" in done.stderr and "sudo apk add -q bubblewrap" in done.stderr


def test_an_unknown_system_is_told_the_name_of_the_package(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 0
    assert "install the package bubblewrap" in done.stderr


def test_it_can_be_forbidden(machine: Machine) -> None:
    machine.put("id", "echo 0")
    machine.put("apt-get", installs(machine))
    assert "BWRAP=no" in machine.run(BWRAP="no").stderr
    assert machine.calls() == []


def make(*args: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """`make` on the real Makefile, told to use a Python of the test's choice."""
    make_program = shutil.which("make")
    if make_program is None:
        pytest.skip("no make on this machine")
    env = {"PATH": path or os.environ["PATH"]}
    return subprocess.run([make_program, *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def test_make_refuses_a_missing_python() -> None:
    done = make("python", "PY=no-such-python")
    assert done.returncode != 0
    assert "There is no no-such-python" in done.stderr


def test_make_refuses_an_old_python(machine: Machine) -> None:
    machine.put("old", 'case "$1" in -V) echo Python 3.9.1;; *) exit 1;; esac')
    done = make("python", f"PY={machine.bin}/old")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr and "is Python 3.9.1" in done.stderr


def test_make_names_the_package_of_a_missing_venv(machine: Machine) -> None:
    machine.put("bare", 'case "$2" in *ensurepip*) exit 1;; esac')
    done = make("python", f"PY={machine.bin}/bare")
    assert done.returncode != 0
    assert "python3-venv" in done.stderr


def test_make_says_when_there_is_no_python_at_all(machine: Machine) -> None:
    done = make("python", path=str(machine.bin))
    assert done.returncode != 0
    assert "none of python3" in done.stderr


@pytest.mark.slow
@pytest.mark.net
@pytest.mark.timeout(400)
def test_a_bare_clone_sets_up_and_repairs_its_example(tmp_path: Path) -> None:
    """`make run` as on a fresh machine: no environment but PATH, a home of its own and what pip needs here."""
    clone = tmp_path / "a bare clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    env = {key: value for key, value in os.environ.items() if key == "PATH" or key.startswith("PIP_") or "proxy" in key}
    done = subprocess.run(
        ["make", "run"], cwd=clone, env={**env, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=360
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "semver.py" in done.stdout
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert changed.stdout == ""
