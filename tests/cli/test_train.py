"""`riallm train` on a terminal of 80 columns, and what it says to what it cannot do."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from riallm.__main__ import main
from riallm.cli.train import Told
from riallm.train import saved
from riallm.train.loop import Step

ROOT = Path(__file__).parents[2]
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
COLUMNS = 80


def on_a_terminal(*words: str, interrupt: str) -> tuple[int, str]:
    """Exit code and what was shown; Ctrl-C is typed when `interrupt` has been."""
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": "24"}
        os.execve(sys.executable, [sys.executable, "-m", "riallm", "train", *words], env)
    shown, typed = "", False
    try:
        while piece := os.read(terminal, 4096):
            shown += piece.decode("utf-8", "replace")
            if not typed and re.search(interrupt, shown):
                os.write(terminal, b"\x03")
                typed = True
    except OSError:  # the other end is closed: how Linux tells the end of a terminal
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_ctrl_c_leaves_the_terminal_as_it_was_and_the_run_saved(tmp_path: Path) -> None:
    words = ("rxt_smoke", "stages.memory.train.max_steps=1000", "--out", str(tmp_path))
    code, shown = on_a_terminal(*words, interrupt=r"memory .*min left")
    assert code == 130
    assert HIDDEN in shown and shown.rfind(SHOWN) > shown.rfind(HIDDEN)
    _, behind = shown.split("stopped and saved; the same command goes on")
    assert "min left" not in behind and HIDDEN not in behind
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\^C", "", shown))  # a terminal echoes what is typed
    bars = [line.rstrip() for line in lines if re.match(r"(joint|memory) +[━╸╺]+ step", line)]
    assert bars and all(re.search(r"tokens/s  [\d.]+ min left$", line) and len(line) <= COLUMNS for line in bars)
    assert saved.latest(tmp_path / "1-memory/saves")


def test_the_time_that_is_left_is_that_of_a_run_that_goes_on() -> None:
    def step(number: int) -> Step:
        return Step(
            step=number,
            nats=1.0,
            bits_per_byte=None,
            factor=1.0,
            grad_norm=1.0,
            num_tokens=1000,
            seconds=6.0,
            flops_per_second=1e12,
            elapsed=number / 100,
        )

    begun, goes_on = Told(), Told()
    assert begun(step(1)).endswith("9.9 min left")
    assert begun(step(2)).endswith("167 tokens/s  1.000 TFLOP/s  9.8 min left")
    assert goes_on(step(51)).endswith("4.9 min left")
    assert goes_on(step(60), short=True) == "step 60  loss 1.000  167 tokens/s  0.8 min left"


def test_what_is_missing_or_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert main(["train", *words]) == 2
        return capsys.readouterr().err

    assert "name a recipe: ria_nano, " in said() and "rxt_beta_micro" in said("--json")
    assert "'0' is not one of joint, memory" in said("rxt_nano", "stages.0.rows=8")
    (tmp_path / "file").write_text("")
    assert f"riallm train: {tmp_path}/file is no folder" in said("rxt_smoke", "--out", str(tmp_path / "file"))
    assert "into the folder /proc/x" in said("ria_smoke", "--out", "/proc/x")
    assert "rxt_smoke reads no files" in said("rxt_smoke", "data=/nonexistent", "--out", str(tmp_path / "run"))
