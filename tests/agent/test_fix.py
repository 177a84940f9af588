"""riallm fix on good input: it repairs, shows, applies only when told, and leaves a record."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from riallm.__main__ import main
from riallm.agent.audit import AuditLog
from tests.agent.conftest import FIXED, MEDIAN, TEST_MEDIAN, Result

Make = Callable[..., Path]
Fix = Callable[..., Result]
FILES = {"stats.py": MEDIAN, "tests/test_stats.py": TEST_MEDIAN}


def test_repairs_and_changes_nothing(project: Make, fix: Fix) -> None:
    result = fix(project(FILES))
    assert result.code == 0, result.text
    report = result.report
    assert report["status"] == "repaired"
    assert FIXED in report["patch"]
    assert (report["file"], report["line"]) == ("stats.py", 6)
    assert report["tests_before"] == {"passed": 1, "failed": 2}
    assert report["tests_after"] == {"passed": 3}
    assert report["candidates_tried"] >= report["candidates_plausible"] >= 1
    assert report["sandbox_tier"] == "bubblewrap"
    assert report["model"].startswith("ngram")


def test_the_patch_is_one_that_git_applies(project: Make, fix: Fix) -> None:
    root = project(FILES)
    patch = fix(root).report["patch"]
    subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=root, check=True)
    assert FIXED in (root / "stats.py").read_text()


def test_apply_writes_the_one_file_and_keeps_its_mode(project: Make, fix: Fix) -> None:
    root = project(FILES)
    (root / "stats.py").chmod(0o750)
    before = (root / "tests/test_stats.py").read_bytes()
    result = fix(root, "--apply", changes=True)
    assert result.code == 0, result.text
    assert FIXED in (root / "stats.py").read_text()
    assert (root / "stats.py").stat().st_mode & 0o777 == 0o750
    assert (root / "tests/test_stats.py").read_bytes() == before
    events = [entry.event for entry in AuditLog(root).entries()]
    assert events == ["start", "searched", "patch", "applied"]
    assert AuditLog(root).entries()[-1].data["by"] == "--apply"
    assert fix(root).code == 2  # now green


@pytest.mark.parametrize(("answer", "applied"), [("y", True), ("n", False), ("", False)])
def test_the_prompt_on_a_terminal(project: Make, answer: str, applied: bool) -> None:
    root = project(FILES)
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "riallm", "fix", str(root)], stdin=child, stdout=child, stderr=child, close_fds=True
    ) as process:
        os.close(child)
        seen = b""
        while b"[y/N]" not in seen:
            seen += os.read(parent, 4096)
        os.write(parent, answer.encode() + b"\n")
        try:
            while data := os.read(parent, 4096):
                seen += data
        except OSError:  # the terminal closes with its last process
            pass
        assert process.wait() == 0
    os.close(parent)
    assert (FIXED in (root / "stats.py").read_text()) is applied
    assert AuditLog(root).entries()[-1].event == ("applied" if applied else "left")


@pytest.mark.parametrize("model", ["none", "ngram"])
def test_the_same_seed_gives_the_same_patch(project: Make, fix: Fix, model: str) -> None:
    root = project(FILES)
    first, second = (fix(root, "--model", model, "--seed", "7").report for _ in range(2))
    assert first["patch"] == second["patch"] != ""


def test_unittest_without_pytest(project: Make, fix: Fix) -> None:
    tests = (
        "import unittest\nfrom stats import median\n\n\nclass TestMedian(unittest.TestCase):\n"
        "    def test_odd(self):\n        self.assertEqual(median([3, 1, 2]), 2)\n\n"
        "    def test_even(self):\n        self.assertEqual(median([4, 1, 3, 2]), 2.5)\n"
    )
    root = project({"stats.py": MEDIAN, "test_stats.py": tests})
    result = fix(root, "--test", "python -m unittest")
    assert result.code == 0, result.text
    assert FIXED in result.report["patch"]
    assert result.report["tests_after"] == {"passed": 2}


def test_an_interpreter_of_its_own_without_pytest(project: Make, fix: Fix) -> None:
    tests = (
        "import unittest\nfrom stats import median\n\n\nclass TestMedian(unittest.TestCase):\n"
        "    def test_even(self):\n        self.assertEqual(median([4, 1, 3, 2]), 2.5)\n"
    )
    root = project({"stats.py": MEDIAN, "test_stats.py": tests})
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / ".venv")], check=True)
    result = fix(root)
    assert result.code == 0, result.text
    assert FIXED in result.report["patch"]


def test_any_command(project: Make, fix: Fix) -> None:
    checks = "from stats import median\nassert median([4, 1, 3, 2]) == 2.5\nassert median([1, 2]) == 1.5\n"
    root = project({"stats.py": MEDIAN, "checks.py": checks})
    result = fix(root, "--test", "python checks.py", "--budget", "60", "--model", "none")
    assert result.code == 0, result.text
    assert "checks.py" not in result.report["patch"]


def test_only_the_given_files_are_edited(project: Make, fix: Fix) -> None:
    root = project({**FILES, "other.py": "NUMBER = 1\n"})
    result = fix(root, "--file", "other.py", "--budget", "20")
    assert result.code == 1, result.text
    assert result.report["patch"] == ""


def test_a_module_level_constant_is_reached(project: Make, fix: Fix) -> None:
    files = {
        "limits.py": "LIMIT = 10\n\n\ndef fits(number):\n    return number <= LIMIT\n",
        "test_limits.py": (
            "from limits import fits\n\n\ndef test_low():\n    assert fits(3)\n\n\n"
            "def test_edge():\n    assert fits(11)\n\n\ndef test_high():\n    assert not fits(12)\n"
        ),
    }
    result = fix(project(files))
    assert result.code == 0, result.text


def test_a_src_layout(project: Make, fix: Fix) -> None:
    result = fix(project({"src/stats/__init__.py": MEDIAN, "tests/test_stats.py": TEST_MEDIAN}))
    assert result.code == 0, result.text
    assert result.report["file"] == "src/stats/__init__.py"


def test_a_test_file_as_the_path(project: Make, fix: Fix) -> None:
    root = project({**FILES, "pyproject.toml": "", "tests/test_other.py": "def test_no():\n    assert False\n"})
    code = main(["fix", str(root / "tests/test_stats.py"), "--json", "--jobs", "1"])
    assert code == 0


def test_audit_verify_finds_a_changed_record(project: Make, fix: Fix, capsys: pytest.CaptureFixture[str]) -> None:
    root = project(FILES)
    fix(root)
    assert main(["audit", "verify", str(root)]) == 0
    assert main(["audit", "show", str(root), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [json.loads(line)["event"] for line in lines] == ["start", "searched", "patch", "left"]
    path = AuditLog(root).path
    whole = path.read_text()
    path.write_text(whole.replace("stats.py", "other.py", 1))
    assert main(["audit", "verify", str(root)]) == 1
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert main(["audit", "verify", str(root)]) == 1
    assert "shortened" in capsys.readouterr().out
