"""The evaluation end to end, on small projects in the real sandbox: what it says, and that it goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from riallm.cli.eval import main
from riallm.eval.tasks.repair_judge import steady
from riallm.sandbox import probe

pytestmark = pytest.mark.skipif(
    not any(report.available for report in probe()), reason="no sandbox works on this machine"
)

CODE = "def double(x):\n    return x {} 2\n\n\ndef triple(x):\n    return x * 3\n"
VISIBLE = "from numbers_ import double\n\n\ndef test_double():\n    assert double(5) == 10\n"
HIDDEN = "from numbers_ import double\n\n\ndef test_more():\n    assert double(7) == 14\n    assert double(0) == 0\n"


def project(root, name, *, operator="+", visible=VISIBLE, correct="*"):
    folder = root / name
    (folder / "tests").mkdir(parents=True)
    (folder / "numbers_.py").write_text(CODE.format(operator))
    (folder / "right").write_text("# Doubles and triples.\n" + CODE.format(correct))  # a comment changes no program
    (folder / "tests/test_visible.py").write_text(visible)
    (folder / "tests/test_hidden.py").write_text(HIDDEN)
    record = {
        "visible": ["tests/test_visible.py"],
        "hidden": ["tests/test_hidden.py"],
        "fixed": {"numbers_.py": "right"},
    }
    (folder / "bug.json").write_text(json.dumps(record))


@pytest.fixture
def bugs(tmp_path):
    root = tmp_path / "bugs"
    project(root, "a")
    project(root, "green", operator="*")
    project(root, "unfixed", correct="-")
    return root


def command(bugs, out, *more):
    options = ["--candidates", "40", "--pool", "100", "--seconds-per-bug", "30", "--json"]
    return ["repair", "--set", str(bugs), "--out", str(out), *options, *more]


def told(text):
    return json.loads(text.strip().splitlines()[-1])


def rows(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_repair_is_measured_and_resumed(bugs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(bugs, out)) == 0
    output = capsys.readouterr()
    found = told(output.out)
    assert (found["num"], found["num_dropped"]) == (1, 2)
    assert "--limit" not in found["command"]
    assert "green: dropped" in output.err and "unfixed: dropped, control" in output.err
    by_id = {row["id"]: row for row in rows(out)}
    for arm in ("B1", "B2"):
        found_by_arm = by_id["a"]["arms"][arm]
        assert 0 < found_by_arm["first_plausible"] <= found_by_arm["first_correct"] <= 40
    assert by_id["a"]["arms"]["B2"]["choice"] == "correct"
    assert by_id["a"]["within_reach"] is True
    assert by_id["a"]["fresh_checks"] < sum(arm["checked"] for arm in by_id["a"]["arms"].values())
    assert found["arms"]["B2"]["fixed"]["correct"]["40"]["value"] == 1.0
    assert "chosen patch correct" in (out / "card.md").read_text()

    before = (out / "results.jsonl").read_bytes()
    assert main(command(bugs, out)) == 0
    again = told(capsys.readouterr().out)
    assert (out / "results.jsonl").read_bytes() == before
    assert again["arms"] == found["arms"]

    (out / "results.jsonl").unlink()
    assert main(command(bugs, out)) == 0
    capsys.readouterr()
    cached = {row["id"]: row for row in rows(out)}["a"]
    assert (cached["fresh_checks"], cached["judged"]) == (0, 0)
    for arm, line in cached["arms"].items():
        assert {**line, "rank_seconds": 0} == {**by_id["a"]["arms"][arm], "rank_seconds": 0}


def test_a_killed_run_goes_on(bugs, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "riallm", "eval", *command(bugs, out)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    results = out / "results.jsonl"
    deadline = time.monotonic() + 90
    while not results.exists() or not results.read_bytes().endswith(b"\n"):
        assert process.poll() is None or results.exists(), "ended without a result"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = rows(out)
    with results.open("ab") as file:
        file.write(b'{"id": "half')
    assert main(command(bugs, out)) == 0
    assert told(capsys.readouterr().out)["num"] == 1
    assert rows(out)[: len(finished)] == finished
    assert sorted(row["id"] for row in rows(out)) == ["a", "green", "unfixed"]


def test_two_at_a_time(bugs, tmp_path, capsys):
    assert main(command(bugs, tmp_path / "out", "--jobs", "2", "--arms", "B1")) == 0
    assert told(capsys.readouterr().out)["num"] == 1


@pytest.mark.parametrize("more", [["--arms", "B9"], ["--candidates", "0"], ["--set", "nowhere"]])
def test_bad_usage(bugs, tmp_path, more):
    from riallm.__main__ import main as program

    assert program(["eval", *command(bugs, tmp_path / "out", *more)]) == 2


@pytest.mark.slow
def test_smoke_set(tmp_path, capsys):
    """All thirty: no item dropped, and the informed arms beat the random one."""
    options = ["--candidates", "50", "--pool", "300", "--seconds-per-bug", "1.5", "--jobs", "2", "--json"]
    assert main(["repair", "--set", "smoke", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *options]) == 0
    found = told(capsys.readouterr().out)
    assert found["num"] >= 25
    assert found["num_dropped"] == 0
    assert found["arms"]["B1"]["fixed"]["plausible"]["50"]["value"] > 0


def test_tests_whose_names_change_are_no_witness() -> None:
    first = frozenset({"t.py::plain", "t.py::two[a]", "t.py::two[b]", "t.py::drawn[a-1]", "t.py::drawn[b-2]"})
    second = frozenset({"t.py::plain", "t.py::two[a]", "t.py::two[b]", "t.py::drawn[a-1]", "t.py::drawn[b-7]"})
    assert steady(first, second) == {"t.py::plain", "t.py::two[a]", "t.py::two[b]"}
    assert steady(first, first) == first
