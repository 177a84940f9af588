"""`riallm chat` with a model that keeps the conversation in a memory, and what Ctrl-C does to the process."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from riallm.__main__ import main
from riallm.engine.conversation import Session
from riallm.engine.inspection import changed, looked
from riallm.engine.memory_model import MemoryModel
from riallm.models.load import TOKENIZER, load_rxt
from riallm.nn.memory_state import MemoryState, load_memory
from riallm.testing.tiny import write_tiny
from riallm.testing.tiny_rxt import write_tiny_rxt
from riallm.tokenizer import saved

CHAT = [sys.executable, "-m", "riallm", "chat"]
GREEDY = ("--temperature", "0", "--max-tokens", "8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_rxt(tmp_path_factory.mktemp("models") / "tiny")


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the program said, and how it ended."""

    code: int
    out: str
    err: str


Talked = Callable[..., Said]


@pytest.fixture
def talked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Talked:
    """talked(folder, *lines, more=options)"""

    def talked(folder: Path, *lines: str, more: tuple[str, ...] = GREEDY) -> Said:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        code = main(["chat", "--model", str(folder), *more])
        out, err = capsys.readouterr()
        return Said(code=code, out=out, err=err)

    return talked


def test_by_itself_it_takes_the_likeliest_token(folder: Path, talked: Talked) -> None:
    alone, greedy = (talked(folder, "a", "b", more=(*more, "--max-tokens", "8")) for more in ((), GREEDY[:2]))
    assert alone.out == greedy.out


def test_a_turn_is_answered_and_then_remembered(talked: Talked, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    first = talked(folder, "one", "two", f":save {file}", "three", ":quit", "no more")
    assert first.code == 0, first.err
    found = re.findall(r"\[updated in [\d.]+ s: version (\d) -> (\d), slots moved by ([\d.]+) %\]", first.err)
    assert [each[:2] for each in found] == [("0", "1"), ("1", "2"), ("2", "3")]
    assert all(float(moved) > 0 for *_, moved in found)
    assert first.err.count("[the memory is being updated]") == 3
    assert load_memory(file).version == 2
    later = talked(folder, f":load {file}", "three")
    assert first.out.endswith(later.out) and later.out.strip(), "it goes on as it would have"
    assert talked(folder, "three").out != later.out, "which without the memory it does not"


def test_forks_part_and_one_can_go_back(talked: Talked, folder: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("main", "b", "back", "new")}
    done = talked(
        folder,
        "one",
        ":fork b",
        "two",
        f":save {files['b']}",
        ":fork b",
        ":go main",
        f":save {files['main']}",
        "two",
        f":save {files['back']}",
        ":forget",
        f":save {files['new']}",
        ":go c",
        ":inspect",
    )
    assert done.code == 0
    memories = {name: load_memory(file) for name, file in files.items()}
    assert [memories[name].version for name in ("main", "b", "back", "new")] == [1, 2, 2, 0]
    assert torch.equal(memories["b"].slots, memories["back"].slots), "the same was said"
    assert torch.equal(memories["new"].slots, load_rxt(folder).start().slots)
    assert "`:go main` goes back" in done.err
    assert "there is a b already" in done.err and "there is no c; there are main, b" in done.err
    assert "main: version 0, 2 layers of 6 slots of 32 numbers, 1536 bytes" in done.out
    assert len(re.findall(r"layer \d: mean length of a slot [\d.]+, effective rank [\d.]+ of 6", done.out)) == 2


def test_what_is_wrong_is_told_and_nothing_is_lost(talked: Talked, folder: Path, tmp_path: Path) -> None:
    slots = load_rxt(folder).start().slots
    MemoryState(slots=torch.zeros(3, 1, 6, 32)).save(tmp_path / "other")
    MemoryState(slots=slots, model="that").save(tmp_path / "foreign")
    MemoryState(slots=slots.double()).save(tmp_path / "double")
    MemoryState(slots=slots * float("nan")).save(tmp_path / "empty")
    MemoryState(slots=slots.expand(-1, 2, -1, -1)).save(tmp_path / "two")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 42)
    (tmp_path / "cut").write_bytes((tmp_path / "double").read_bytes()[:-9])
    tokenizer = (folder / TOKENIZER).read_bytes()
    wrong = {
        ":nothing": "no word :nothing; there are :save",
        ":save": ":save takes one FILE, got nothing",
        ":forget it": ":forget takes nothing, got 'it'",
        f":load {tmp_path / 'nowhere'}": "nowhere'. The conversation is as it was; :load takes a file that :save wrote",
        f":load {folder / TOKENIZER}": "json cannot be read as a memory: ",
        f":load {tmp_path / 'cut'}": ". The conversation is as it was; :load takes a file that :save wrote",
        f":load {tmp_path / 'other'}": "a memory of shape (3, 1, 6, 32)",
        f":load {tmp_path / 'foreign'}": "was written by the model that",
        f":load {tmp_path / 'double'}": "the memory's numbers are torch.float64, this model computes in torch.float32",
        f":load {tmp_path / 'two'}": "two holds the memories of 2 conversations side by side, and here one is",
        f":load {tmp_path / 'pipe'}": "it is no regular file",
        f":load {tmp_path / 'sparse'}": "it has no header of ours",
        ":load /dev/zero": "it is no regular file",
        ":save /dev/full": "/dev/full is there and holds no memory",
        f":save {tmp_path / 'pipe'}": "pipe is there and holds no memory",
        f":save {tmp_path / 'sparse'}": "sparse is there and holds no memory",
        f":save {tmp_path}": "is there and holds no memory",
        f":load {tmp_path / 'empty'}": "holds what is no number",
        f":save {folder / TOKENIZER}": "holds no memory; it was left as it is",
        ":save /nowhere/m": "cannot be written",
        ":save ~nobody-here/m": "'~nobody-here/m' is no file that can be had",
        ":load ~nobody-here/m": "home directory",
        f":save {tmp_path / ('m' * 300)}": "name too long",
        ":load a\0b": "null byte",
        "x" * 400: "an interaction of 403 tokens; this model takes 1 to 64",
        "x" * 61: "leaves no room",
    }
    lines = [each for number, line in enumerate(wrong) for each in (line, f":save {tmp_path / f'kept{number}'}")]
    done = talked(folder, "one", *lines, "two")
    told = done.err.split("[version 1 is kept in ")
    assert done.code == 0 and len(told) == len(wrong) + 1, "after each of them the memory is what it was"
    for number, complaint in enumerate(wrong.values()):
        assert complaint in told[number], told[number]
    kept = [load_memory(tmp_path / f"kept{number}").slots for number in range(len(wrong))]
    assert all(torch.equal(each, kept[0]) for each in kept)
    assert "version 1 -> 2" in done.err
    assert (folder / TOKENIZER).read_bytes() == tokenizer


def test_bytes_that_are_no_text_end_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xffone\ntwo\n"), encoding="utf-8"))
    assert main(["chat", "--model", str(folder), *GREEDY]) == 0
    assert "version 2 -> 3" in capsys.readouterr().err


def test_ctrl_c_stops_an_answer_and_not_the_program(tmp_path: Path) -> None:
    folder, file = write_tiny_rxt(tmp_path / "long", max_interaction=4096), tmp_path / "kept"
    words = [*CHAT, "--model", str(folder), "--temperature", "0", "--max-tokens", "4000"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write("one\n")
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "[stopped; what there is of the answer is remembered]\n"
        assert process.stderr.readline() == "[the memory is being updated]\n"
        assert "version 0 -> 1" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n" and process.stderr.readline() == "[:quit ends the conversation]\n"
        process.stdin.write(f":save {file}\n:quit\n")
        assert "version 1 is kept" in process.stderr.readline()
        assert process.wait(60) == 0
    assert load_memory(file).version == 1


def at_a_terminal(folder: Path) -> str:
    """What is shown until the first prompt, and when Ctrl-D is pressed there."""
    ours, its = pty.openpty()
    said = b""
    with subprocess.Popen([*CHAT, "--model", str(folder)], stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        while not said.endswith(b"> "):
            said += os.read(ours, 4096)
        os.write(ours, b"\x04")
        with suppress(OSError):  # Linux tells the end of a terminal so
            while piece := os.read(ours, 4096):
                said += piece
    os.close(ours)
    assert process.returncode == 0
    return said.decode()


def test_at_a_terminal_it_says_what_it_is_and_leaves_the_line(folder: Path, tmp_path: Path) -> None:
    assert at_a_terminal(write_tiny(tmp_path / "ria", context=64)).endswith("\r\n> \r\n")
    first, rest = at_a_terminal(folder).split("; ")
    assert first == "[tiny remembers what is said in 6 slots"
    assert rest == "query and answer together have at most 64 tokens. :help tells more, :quit ends]\r\n> \r\n"


@pytest.mark.parametrize("family", ["ria", "rxt"])
def test_at_a_terminal_lines_are_edited_and_nothing_is_kept(folder: Path, tmp_path: Path, family: str) -> None:
    pytest.importorskip("readline")
    folder = folder if family == "rxt" else write_tiny(tmp_path / "ria", context=64)
    (tmp_path / "home").mkdir()
    ours, its = pty.openpty()
    said = b""
    with subprocess.Popen(
        [*CHAT, "--model", str(folder)],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "HOME": f"{tmp_path}/home"},
    ) as process:
        os.close(its)
        for keys in (b":wrung\x1b[D\x1b[D\x7fo\n", b"\x1b[A\n", b":quit\n"):  # back, back, rub out; and up
            while not said.endswith(b"> "):
                said += os.read(ours, 4096)
            said += b"|"
            os.write(ours, keys)
        with suppress(OSError):
            while piece := os.read(ours, 4096):
                said += piece
    os.close(ours)
    assert process.returncode == 0
    assert said.count(b"no word :wrong; there are ") == 2, said
    assert not list((tmp_path / "home").iterdir())


def test_an_answer_without_an_end_is_told(talked: Talked, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert talked(folder, "one").err.startswith("[cut off: --max-tokens is 8]\n")
    full = talked(folder, "one", more=("--temperature", "0"))
    assert full.err.startswith("[cut off: query and answer together have at most 64 tokens]\n")
    every = range(load_rxt(folder).config.vocab_size)
    monkeypatch.setattr(MemoryModel, "session", lambda self: Session(self.model, ends=every))
    ended = talked(folder, "one")
    assert ended.err.startswith("[the memory is being updated]\n[updated in"), ended.err


def test_asked_once(talked: Talked, folder: Path) -> None:
    done = talked(folder, more=(*GREEDY, "--prompt", "one", "--json"))
    told = json.loads(done.out)
    assert (told["model"], told["finish_reason"], told["usage"]["completion_tokens"]) == ("tiny", "length", 8)
    assert talked(folder, "one").out.strip("\n") == told["text"].strip("\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--raw",), "--raw: tiny answers queries and does not go on with text"),
        (("--raw", "--prompt", "one"), "--raw: tiny answers queries and does not go on with text"),
        (("--max-tokens", "0"), "--max-tokens is 0"),
        (("--max-tokens", "0", "--prompt", "one"), "--max-tokens is 0"),
        (("--temperature", "-1"), "temperature is -1.0"),
        (("--top-p", "0"), "top_p is 0.0"),
        (("--seed", "-1"), "seed is -1"),
        (("--seed", "-1", "--prompt", "one"), "seed is -1"),
        (("--kv-memory", "nan"), "--kv-memory is nan"),
        (("--kv-memory", "inf"), "--kv-memory is inf"),
        (("--json",), "give --prompt"),
        (("--compression", "8bit"), "run in the type that it is opened in"),
        (("--int8-kv",), "--int8-kv: "),
        (("--draft", "ria-nano"), "--draft: "),
        (("--lookahead", "2"), "--lookahead: "),
        (("--dtype", "float16"), "dtype is 'float16'"),
        (("--max-seq-len", "65"), "was made for 1 to 64 tokens"),
        (("--model", "rxt-beta-micro"), "nobody has weights of rxt-beta-micro, and none are made up"),
        (("--model", "rxt-beta-micro", "--random-weights"), "riallm bench turns"),
        (("--model", "rxt-nano", "--random-weights"), "--random-weights: rxt-nano has weights of its own"),
        (("--random-weights",), "tiny has weights of its own"),
    ],
)
def test_options_are_honoured_or_refused(talked: Talked, folder: Path, words: tuple[str, ...], complaint: str) -> None:
    done = talked(folder, more=words)
    assert done.code == 2 and complaint in done.err and "Traceback" not in done.err


def test_the_model_s_own_tokenizer_must_have_markers(talked: Talked, tmp_path: Path) -> None:
    import textwrap

    from riallm.models.load import save_rxt
    from riallm.models.rxt import RxT
    from riallm.testing.tiny_rxt import VOCAB, tiny_rxt
    from riallm.tokenizer.hybrid import HybridTokenizer
    from riallm.tokenizer.interaction import with_markers
    from riallm.tokenizer.training import train

    vocabulary = train([Path(textwrap.__file__).read_text(encoding="utf-8")], size=VOCAB)
    for name, kept, size, complaint in (
        ("unmarked", vocabulary, VOCAB, "has no <|answer|>, <|begin|>, <|query|>"),
        ("small", with_markers(vocabulary), 300, "its tokenizer has 600 tokens, its configuration 300"),
    ):
        model = RxT(tiny_rxt(vocab_size=size, max_interaction=64))
        model.initialise(0)
        saved.save(HybridTokenizer(kept), tmp_path / TOKENIZER)
        save_rxt(model, tmp_path / name, bits=None, files={TOKENIZER: (tmp_path / TOKENIZER).read_bytes()})
        done = talked(tmp_path / name)
        assert done.code == 2 and complaint in done.err, done.err


def test_what_is_seen_of_a_memory() -> None:
    slots = torch.zeros(2, 1, 4, 8)
    slots[0, 0, :, 0] = 3.0  # all slots alike
    slots[1, 0] = 2.0 * torch.eye(4, 8)  # all apart
    one, apart = looked(MemoryState(slots=slots))
    assert (round(one.norm, 4), round(one.rank, 4)) == (3.0, 1.0)
    assert (round(apart.norm, 4), round(apart.rank, 4)) == (2.0, 4.0)
    assert abs(changed(MemoryState(slots=slots), MemoryState(slots=slots * 1.5)) - 0.5) < 1e-6
